"""The commands as a user types them: in process, so that TensorFlow is imported once."""

import json
import os
import warnings

import numpy as np
import pytest
import small_files

from android_bench import cli as bench_cli
from tfcompress import cli
from tfcompress.commands import factors, filters
from tfcompress.commands.flags import quiet
from tfcompress.lowrank import factorize, options
from tfcompress.pruning.criteria import CRITERIA


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    small_files.model().save(folder / "net.keras")
    np.savez(folder / "calibration.npz", picture=small_files.X)
    np.savez(folder / "data.npz", x=small_files.X, y=np.arange(len(small_files.X)) % 4)
    return folder


def test_convert_inspect_evaluate_diff_and_bench(folder, capsys):
    def run(*argv):
        code = cli.main([str(a) for a in argv])
        return code, capsys.readouterr().out
    assert run("convert", folder / "net.keras", "-o", folder / "float.tflite")[0] == 0
    code, text = run("convert", folder / "net.keras", "--precision", "int8", "--calibration",
                     folder / "calibration.npz", "-o", folder / "int8.tflite")
    assert code == 0 and "int8" in text and "top-1" in text
    assert (folder / "int8.tflite").read_bytes()[4:8] == b"TFL3"
    code, text = run("inspect", folder / "int8.tflite")
    assert code == 0 and "CONV_2D" in text
    code, text = run("evaluate", folder / "int8.tflite", "--data", folder / "data.npz")
    assert code == 0 and text.startswith("accuracy 0.") and "recall 3" in text
    np.savez(folder / "few.npz", x=small_files.X, y=np.arange(len(small_files.X)) % 3)
    assert cli.main(["evaluate", str(folder / "int8.tflite"), "--data", str(folder / "few.npz")]) == 0
    assert "no sample of 1 of the model's 4 classes" in capsys.readouterr().err
    code, text = run("diff", folder / "float.tflite", folder / "int8.tflite", "--data", folder / "data.npz")
    assert code == 0 and "SNR" in text
    code, text = run("payoff", folder / "float.tflite", folder / "int8.tflite")
    assert code == 0 and "what the others are measured against" in text and "gzip" in text
    code, text = run("shrink", folder / "net.keras", "-o", folder / "small.keras")
    assert code == 0 and (folder / "small.keras").is_file() and "parameters of" in text
    code, text = run("prune-filters", folder / "net.keras", "--data", folder / "data.npz", "--target", 0.6,
                     "--rounds", 1, "-o", folder / "half.keras")
    assert code == 0 and (folder / "half.keras").is_file() and "round 1" in text and "parameters of" in text
    code, text = run("prune-filters", folder / "net.keras", "--data", folder / "data.npz", "--target", 0.6,
                     "--rounds", 1, "--teach", "--criterion", "l2_norm", "-o", folder / "half.keras")
    assert code == 0 and "parameters of" in text
    assert run("shrink", folder / "none.keras", "-o", folder / "other.keras")[0] == 2
    assert bench_cli.main(["host", str(folder / "int8.tflite"), "--runs", "5"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["latency_p50_us"] > 0 and row["energy_joules"] is None


def test_factorize(folder, capsys):
    def run(*argv):
        code = cli.main(["factorize", str(folder / "net.keras"), *map(str, argv)])
        return code, capsys.readouterr()
    small = folder / "factors.keras"
    code, said = run("--target", 0.9, "-o", small, "--data", folder / "data.npz", "--epochs", 1, "--teach")
    assert code == 0 and "parameters of 256" in said.out
    assert "multiply-accumulates" in said.out and "sensitivity" in said.out
    code, said = run("--target", "flops=0.9,bytes=0.95", "--kinds", "svd,tucker", "--round_to", 2, "-o", small,
                     "--data", folder / "calibration.npz")
    assert code == 2 and "lacks the arrays ['x']. It holds: ['picture']" in said.err
    assert run("--rank", "vbmf", "--folder", folder / "kept", "-o", small)[0] == 0
    assert (folder / "kept" / "factorized.keras").is_file() and small.is_file()
    small.unlink()
    for argv, words in (
            (["--target", 0.5, "--kinds", "lu"], "`kinds` is 'auto' or some of"),
            (["--target", 0.001], "Factors can't meet the target"), (["--target", "many"], "--target is a number"),
            (["--target", 0.5, "--kinds", "sparse"], '{"nonzeros": 0.3}'), (["--rank", "energy"], "--target is needed"),
            (["--rank", "ebic", "--target", 0.5], "leave the target out"), (["--rank", "bayes"], "bayes"),
            (["--target", 0.5, "--teach"], "Training needs --epochs and --data"),
            (["--target", 0.5, "--epochs", 2], "Training needs --epochs and --data"),
            (["--target", 0.5, "--data", folder / "nowhere.npz"], "nowhere.npz")):
        code, said = run(*argv, "-o", small)
        assert code == 2 and words in said.err and said.err.count("\n") == 1 and not said.out, said.err
        assert not [path for path in folder.iterdir() if "factors" in path.name]


@pytest.mark.parametrize("argv, said", [
    (["cnvert"], "unknown command 'cnvert'. Known: convert"),
    (["convert"], "Expected 1 argument"),
    (["convert", "nowhere.keras"], "nowhere.keras"),
    (["convert", "x.keras", "--precison", "int8"], "precison"),
    (["convert", "x.keras", "-o", "/nowhere/x.tflite"], "/nowhere"),
    (["one-click", "nowhere.keras"], "nowhere.keras"),
    (["one-click", "x.keras", "--target", "tiny"], "'small', 'fast', a ratio above 1"),
    (["inspect", "nowhere.tflite"], "nowhere.tflite"),
    (["evaluate", "x.tflite"], "--data is needed"),
    (["evaluate", "x.tflite", "--data", "nowhere.npz"], "nowhere.npz"),
    (["prune-filters", "x.keras", "--target", "0.5"], "--output is needed"),
    (["prune-filters", "x.keras", "--target", "0.5", "-o", "y.keras"], "No .keras file at 'x.keras'"),
    (["factorize", "x.keras", "--target", "0.5"], "--output is needed"),
    (["factorize", "x.keras", "-o", "y.keras", "--target", "0.5"], "No .keras file at 'x.keras'"),
    (["train"], "Expected 1 argument"),
    (["train", "nowhere.py"], "No script at 'nowhere.py'"),
    (["train", "--workers", "0", "x.py"], "workers"),
    (["train", "--hosts", "a:1,b:2", "x.py"], "--hosts goes with --index"),
    (["train", "--hosts", "a:1,b:2", "--index", "2", __file__], "0 to 1. Received: 2"),
    (["train", "--index", "1", "x.py"], "no --hosts"),
    (["study", "cats"], "Unknown preset 'cats'. Known: digits"),
    (["study", "cats.keras"], "--data is needed"),
    (["study", "cats.keras", "--data", "x.npz"], "cats.keras, which is no file"),
    (["study", "digits", "--epochs", "9"], "--epochs goes with a MODEL.keras"),
], ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_bad_input_is_one_line_and_exit_code_2(argv, said, capsys):
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert said in err and err.startswith("error: ") and err.count("\n") == 1 and not out


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_every_command(command, capsys):
    assert cli.main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: tfcompress {command}")


def test_help_names_every_criterion():
    assert filters.CRITERIA.split(", ") == list(CRITERIA)
    assert factors.KINDS == options.KINDS and factors.RULES == factorize.RULES


def test_android_bench_help_and_errors(capsys):
    assert bench_cli.main(["--help"]) == 0 and bench_cli.main([]) == 2
    assert bench_cli.main(["host", "nowhere.tflite"]) == 2
    assert "nowhere.tflite" in capsys.readouterr().err


def test_what_is_quiet_tells_warnings_for_users_once(capfd):
    with pytest.raises(ValueError), quiet():
        os.write(2, b"chatter of a library")
        for kind in (UserWarning, UserWarning, DeprecationWarning):
            warnings.warn("Only 3 samples" if kind is UserWarning else "old name", kind, stacklevel=1)
        raise ValueError
    assert capfd.readouterr().err == "warning: Only 3 samples\n"
