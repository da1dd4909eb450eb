"""Whatever is wrong with what a user gives: one clear error, exit code != 0, and nothing left half-written."""

import shutil
import warnings
import zipfile

import keras
import numpy as np
import pytest
import small_files

import tfcompress
from android_bench import cli as bench_cli
from tfcompress import cli

N = 24


@keras.saving.register_keras_serializable("test_bad_input")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        return self.dense(x)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A folder of good files and of every kind of bad one."""
    folder = tmp_path_factory.mktemp("bad")
    model = small_files.model()
    model.save(folder / "good.keras")
    model.save(folder / "good.h5")
    content = small_files.tflite()
    (folder / "good.tflite").write_bytes(content)
    x, y = small_files.X[:N], np.arange(N) % 4
    np.savez(folder / "good.npz", x=x, y=y)
    np.savez(folder / "calibration.npz", picture=x)

    for name in ("good.keras", "good.h5", "good.tflite", "good.npz"):
        whole = (folder / name).read_bytes()
        (folder / f"half_{name}").write_bytes(whole[:len(whole) // 2])
        (folder / f"text_{name}").write_text("this is no such file\n" * 20)
        (folder / f"empty_{name}").write_bytes(b"")
    with zipfile.ZipFile(folder / "noconfig.keras", "w") as file:
        file.writestr("readme.txt", "a zip archive, but no model")
    with zipfile.ZipFile(folder / "badconfig.keras", "w") as file:
        for part in ("config.json", "metadata.json"):
            file.writestr(part, "{'torn")
    (folder / "marked.tflite").write_bytes(b"\x1c\0\0\0TFL3" + b"\xff" * 200)
    (folder / "emptyfolder").mkdir()

    nan = keras.models.clone_model(model)
    nan.set_weights([w * np.nan for w in model.get_weights()])
    nan.save(folder / "nan.keras")
    own = Subclassed()
    own.build((None, 4))
    own.save(folder / "subclassed.keras")

    np.savez(folder / "pickled.npz", x=np.array([{"a": 1}, None], dtype=object), y=y, picture=np.array([{}, None]))
    np.savez(folder / "shape.npz", picture=x[:, :5], x=x[:, :5], y=y)
    np.savez(folder / "name.npz", photo=x, other=x, y=y)
    np.savez(folder / "empty.npz", picture=x[:0], x=x[:0], y=y[:0])
    np.savez(folder / "nodata.npz")
    np.savez(folder / "nan.npz", picture=x * np.nan, x=x * np.nan, y=y)
    np.savez(folder / "words.npz", picture=np.array(["a"] * N), x=np.array(["a"] * N), y=y)
    np.savez(folder / "length.npz", picture=x, x=x, y=y[:-3])
    np.savez(folder / "labels.npz", x=x, y=y + 0.5)
    return folder


CONVERT = {
    "no file": ["nowhere.keras"], "text for .keras": ["text_good.keras"], "half a .keras": ["half_good.keras"],
    "empty .keras": ["empty_good.keras"], "zip without model": ["noconfig.keras"], "torn config": ["badconfig.keras"],
    "text for .h5": ["text_good.h5"], "half a .h5": ["half_good.h5"], "empty .h5": ["empty_good.h5"],
    "text for .tflite": ["text_good.tflite"], "half a .tflite": ["half_good.tflite"],
    "empty .tflite": ["empty_good.tflite"], "garbage behind the mark": ["marked.tflite"],
    "empty folder": ["emptyfolder"], "other kind of file": ["good.npz"],
    "NaN weights": ["nan.keras"], "subclassed": ["subclassed.keras"],
    "unknown precision": ["good.keras", "--precision", "int3"],
    "no calibration": ["good.keras", "--precision", "int8"],
    **{f"calibration {name}": ["good.keras", "--precision", "int8", "--calibration", f"{name}.npz"] for name in (
        "nowhere", "pickled", "shape", "name", "empty", "nodata", "nan", "words", "half_good", "text_good")},
    "keep_float matches nothing": ["good.keras", "--precision", "int8", "--calibration", "calibration.npz",
                                   "--keep_float", "nope"],
    "batch 0": ["good.keras", "--static_batch", "0"],
    "unknown io": ["good.keras", "--io", "uint8"],
}
FILES = ("nowhere.tflite", "text_good.tflite", "half_good.tflite", "empty_good.tflite", "marked.tflite", "good.keras",
         "emptyfolder")
DATA = ("nowhere", "pickled", "shape", "name", "empty", "nodata", "words", "length", "labels", "half_good", "text_good")


def refused(main, argv, folder, capsys, monkeypatch):
    """Run a command in ``folder``; it must fail with one error, and leave the folder as it was. Returns the error."""
    monkeypatch.chdir(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = main([str(a) for a in argv])
    error = capsys.readouterr().err.strip()
    assert code in (1, 2), error
    assert error.startswith("error: ") and "Traceback" not in error and error.count("\n") <= 4, error
    assert len(error) > 30
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    return error


@pytest.mark.parametrize("case", CONVERT)
def test_convert(case, bad, capsys, monkeypatch):
    error = refused(cli.main, ["convert", *CONVERT[case], "-o", "out.tflite"], bad, capsys, monkeypatch)
    named = [a for a in CONVERT[case] if a in error or a.rsplit(".", 1)[0] in error]
    assert named or any(word in error for word in (
        "calibration", "Calibration", "static_batch", "batch", "NaN", "subclassed", "precision")), error


@pytest.mark.parametrize("file", ["text_good.keras", "half_good.keras", "empty_good.keras", "noconfig.keras",
                                  "badconfig.keras", "half_good.h5", "subclassed.keras", "good.tflite"])
@pytest.mark.parametrize("command", ["shrink", "factorize"])
def test_commands_that_write_another_keras_file(command, file, bad, capsys, monkeypatch):
    more = ["--target", "0.5"] if command == "factorize" else []
    refused(cli.main, [command, file, *more, "-o", "out.keras"], bad, capsys, monkeypatch)


@pytest.mark.parametrize("data", ["nowhere", "pickled", "shape", "empty", "nodata", "nan", "words", "length",
                                  "half_good", "text_good"])
def test_factorize_on_bad_data(data, bad, capsys, monkeypatch):
    argv = ["factorize", "good.keras", "--target", "0.8", "--data", f"{data}.npz", "--epochs", "1", "-o", "out.keras"]
    refused(cli.main, argv, bad, capsys, monkeypatch)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("command", ["inspect", "evaluate", "diff", "bench"])
def test_commands_on_bad_files(command, file, bad, capsys, monkeypatch):
    argv = {"inspect": ["inspect", file], "evaluate": ["evaluate", file, "--data", "good.npz"],
            "diff": ["diff", "good.tflite", file, "--data", "good.npz"],
            "bench": ["host", file, "--runs", "2"]}[command]
    refused(bench_cli.main if command == "bench" else cli.main, argv, bad, capsys, monkeypatch)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("command", ["evaluate", "diff"])
def test_commands_on_bad_data(command, data, bad, capsys, monkeypatch):
    if command == "diff" and data in ("length", "labels"):
        pytest.skip("diff reads no labels")
    files = ["good.tflite"] * (2 if command == "diff" else 1)
    refused(cli.main, [command, *files, "--data", f"{data}.npz"], bad, capsys, monkeypatch)


@pytest.mark.parametrize("output", ["nowhere/out.tflite", "good.keras/out.tflite", "emptyfolder", "/proc/out.tflite"])
def test_output_that_cannot_be_written(output, bad, capsys, monkeypatch):
    error = refused(cli.main, ["convert", "good.keras", "-o", output], bad, capsys, monkeypatch)
    assert output.split("/")[-1] in error or output.split("/")[0] in error


def test_read_only_folder(bad, tmp_path, capsys, monkeypatch):
    shutil.copy(bad / "good.keras", tmp_path)
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0o500)
    try:
        (tmp_path / "locked" / "probe").touch()
    except OSError:
        refused(cli.main, ["convert", "good.keras", "-o", "locked/out.tflite"], tmp_path, capsys, monkeypatch)
    else:
        pytest.skip("this user may write into read-only folders (root)")


def test_study_into_a_file(bad, capsys, monkeypatch):
    refused(cli.main, ["study", "tiny", "-o", "good.npz"], bad, capsys, monkeypatch)
    refused(cli.main, ["study", "tinny", "-o", "new"], bad, capsys, monkeypatch)
    refused(cli.main, ["study", "tiny", "-o", "new", "--devices", "phone"], bad, capsys, monkeypatch)


@pytest.mark.parametrize("function", ["compress", "strip", "quantize_aware", "convert", "Distiller", "from_tf_keras"])
def test_functions_refuse_what_is_no_graph(function):
    rule = tfcompress.Prune(tfcompress.OneShot(0.5))
    call = {"compress": lambda m: tfcompress.compress(m, rule), "strip": tfcompress.strip,
            "Distiller": lambda m: tfcompress.Distiller(m, m)}.get(function) or getattr(tfcompress, function)
    own = Subclassed()
    own.build((None, 4))
    for thing in (own, keras.Sequential([keras.layers.Dense(2)]), None, 3, np.zeros(3)):
        with pytest.raises(ValueError) as caught:
            call(thing)
        assert len(str(caught.value)) > 30


def test_functions_refuse_bad_numbers(bad):
    model = small_files.model()
    for sparsity in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="sparsity|target|0"):
            tfcompress.compress(model, tfcompress.Prune(tfcompress.OneShot(sparsity)))
    for bits in (0, 1, 33, 4.5):
        with pytest.raises(ValueError, match="bits"):
            tfcompress.compress(model, tfcompress.Uniform(bits))
    with pytest.raises(ValueError, match="bits"):
        tfcompress.quantize_aware(model, bits=3.5)
    for name in ("half_good.tflite", "text_good.tflite", "nowhere.tflite"):
        with pytest.raises(ValueError, match="whole .tflite|flatbuffer|No .tflite"):
            tfcompress.TFLiteModel.load(bad / name).predict(small_files.X)
    file = tfcompress.TFLiteModel.load(bad / "good.tflite")
    for x in (small_files.X[:0], small_files.X[:, :3], {"photo": small_files.X}):
        with pytest.raises(ValueError):
            file.predict(x)
