"""The command: one clear sentence for every mistake, and a run that goes on where it stopped."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import tiny_files
from emulated_phone.binary import make_binary
from emulated_phone.personalities import ARM32, PIXEL, TABLET
from phone_farm import QUICK, farm

from android_bench import bench, cli
from android_bench.bench import Incomplete, Request
from android_bench.lock import hold
from android_bench.result import read_rows
from android_bench.settings import Wanted

QUICKLY = ["--runs=3", "--min-seconds=0", "--warmup-seconds=0", "--repetitions=1", "--cool-down=0", "--wait=5"]
X = np.array([[1, 0], [3, 1], [5, 4]], np.float32)


@pytest.fixture(scope="module")
def phones(tmp_path_factory):
    with farm(tmp_path_factory.mktemp("cli"), PIXEL, TABLET) as found:
        yield found


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    with farm(tmp_path_factory.mktemp("one"), PIXEL) as found:
        yield found


@pytest.fixture(scope="module")
def none(tmp_path_factory):
    with farm(tmp_path_factory.mktemp("none")) as found:
        yield found


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with what a run needs and with what it can't use."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ANDROID_BENCH_BINARY", raising=False)
    monkeypatch.setenv("ANDROID_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.tflite").write_bytes(tiny_files.matmul())
    (tmp_path / "broken.tflite").write_bytes(b"\x1c\0\0\0TFL3" + b"rubbish" * 30)
    (tmp_path / "text.tflite").write_text("no model at all")
    (tmp_path / "app.apk").write_bytes(b"PK\x03\x04" + bytes(100))
    np.savez(tmp_path / "eval.npz", x=X, y=np.array([2, 2, 0]))
    np.savez(tmp_path / "no_x.npz", y=np.arange(3))
    np.savez(tmp_path / "lengths.npz", x=X, y=np.arange(2))
    np.savez(tmp_path / "shape.npz", x=np.ones((3, 7), np.float32))
    (tmp_path / "text.npz").write_text("no arrays at all")
    make_binary(tmp_path / "arm64")
    make_binary(tmp_path / "arm32", ARM32)
    return tmp_path


def said(capsys, code, *argv) -> str:
    """The one sentence on stderr of a command that ends with `code`."""
    found = cli.main(list(map(str, argv)))
    out, words = capsys.readouterr()
    assert (found, out) == (code, ""), words
    assert words.startswith("error: ") and words.count("\n") == 1 and "Traceback" not in words, words
    return words


BINARY = "--benchmark-binary=arm64"


@pytest.mark.parametrize("argv, words", [
    ([], "Expected: run FILE.tflite"),
    (["missing.tflite"], "'missing.tflite', which is not a file; check the path"),
    (["."], "which is not a file"),
    (["text.tflite"], "Expected a .tflite file .TFL3"),
    (["a.tflite", "a.tflite"], "same name more than once"),
    (["a.tflite", "--threads=0"], "--threads takes whole numbers from 1"),
    (["a.tflite", "--threads=two"], "--threads takes whole numbers from 1"),
    (["a.tflite", "--threads=-1"], "--threads takes whole numbers from 1"),
    (["a.tflite", "--threads=1.5"], "--threads takes whole numbers from 1"),
    (["a.tflite", "--threads="], "one or more values for --threads"),
    (["a.tflite", "--delegate="], "one or more values for --delegate"),
    (["a.tflite", "--delegate=cpu,tpu"], "Unknown delegate: 'tpu'. Known: cpu, builtin, gpu"),
    (["a.tflite", "--repetitions=0"], "repetitions"),
    (["a.tflite", "--runs=x"], "runs"),
    (["a.tflite", "--max-seconds=nan"], "Expected runs >= 1, and warm-up and seconds >= 0"),
    (["a.tflite", "--sustain=30"], "Expected a time such as 30m"),
    (["a.tflite", "--brightness=300"], "brightness"),
    (["a.tflite", "--no-such-flag"], "no_such_flag.* usage: android-bench run"),
    (["a.tflite", "--eval=missing.npz"], "'missing.npz', which is not a file"),
    (["a.tflite", "--eval=no_x.npz"], "Expected x .*no_x.npz.*{'y': 3}"),
    (["a.tflite", "--eval=lengths.npz"], "same number of samples.*{'x': 3, 'y': 2}"),
    (["a.tflite", "--eval=text.npz"], "Expected an .npz file, as numpy.savez writes it"),
    (["a.tflite", "--library=none.so"], "Expected a shared library. Received: 'none.so'"),
    (["--", "--threads=1.tflite"], "'--threads=1.tflite', which is not a file"),
    (["--", "--a-b.tflite"], "'--a-b.tflite', which is not a file"),
])  # fmt: skip
def test_bad_input_is_one_sentence_before_any_phone_is_asked(here, capsys, argv, words):
    assert re.search(words, said(capsys, 2, "run", "--adb-server=127.0.0.1:1", *argv))


@pytest.mark.parametrize("argv, code, words", [
    (["--adb-server=nonsense"], 1, "Expected an adb server as HOST:PORT. Received: 'nonsense'"),
    (["--adb-server=127.0.0.9:1"], 1, "No adb server answers at 127.0.0.9:1. Start one there: adb "),
    (["--adb-server=127.0.0.1:1", "--adb=/no/adb"], 1, "adb can't be run .*platform-tools, or name the program: --adb"),
    (["--adb-server=127.0.0.1:1", "--adb=/bin/false"], 1, "'/bin/false .*start-server' failed"),
])  # fmt: skip
def test_no_adb_is_one_sentence(here, capsys, argv, code, words):
    assert re.search(words, said(capsys, code, "run", "a.tflite", BINARY, *argv))


def test_no_phone(none, here, capsys):
    server = f"--adb-server={none.address}"
    run = ["run", "a.tflite", BINARY]
    for argv in (run, [*run, "--device=all"], [*run, "--device=XYZ"], ["devices"], ["clean"]):
        assert "No phone is attached: plug one in with USB debugging on" in said(capsys, 2, *argv, server)
    words = said(capsys, 1, "run", "a.tflite", BINARY, server, "--connect=127.0.0.1:1")
    assert "Can't connect to 127.0.0.1:1" in words and "ireless debugging" in words
    assert not (here / "results").exists()


def test_two_phones_and_no_choice(phones, here, capsys):
    server = f"--adb-server={phones.address}"
    words = said(capsys, 2, "run", "a.tflite", BINARY, server)
    assert "2 phones are attached; choose with --device SERIAL[,SERIAL] or --device all" in words
    assert "(Pixel 7)" in words and "(MediaPad T5)" in words
    assert "'XYZ'. Attached: " in said(capsys, 2, "run", "a.tflite", BINARY, server, "--device=XYZ")
    assert "2 phones are attached" in said(capsys, 2, "clean", server)


@pytest.mark.parametrize("binary, words", [
    ([], "No benchmark_model was named.* Fetch https://.*android_aarch64_benchmark_model and give it as"),
    (["--benchmark-binary=none"], "'none', which is not a file"),
    (["--benchmark-binary=app.apk"], "'app.apk', which starts with b'PK.*; an .apk"),
    (["--benchmark-binary=text.npz"], "'text.npz', which starts with b'no a'"),
    (["--benchmark-binary=arm32"], "MediaPad|arm32"),
    (["--benchmark-binary=http://127.0.0.1:1/x"], "can't be fetched .* Download it elsewhere and give its path"),
])  # fmt: skip
def test_no_binary_for_the_phone(one, here, capsys, binary, words):
    argv = ["run", "a.tflite", f"--adb-server={one.address}", *binary]
    if binary == ["--benchmark-binary=arm32"]:  # a 64-bit phone may run it as well, unless it has 64-bit ABIs only
        make_binary(here / "x86", 62)
        argv[-1], words = "--benchmark-binary=x86", r"Pixel 7 runs arm64-v8a.*given are x86-64 \(x86\). Add --benchmark"
    assert re.search(words, said(capsys, 2, *argv))


def test_the_wrong_binary_for_one_of_two_phones(phones, here, capsys):
    words = said(capsys, 2, "run", "a.tflite", BINARY, f"--adb-server={phones.address}", "--device=all")
    assert re.search(r"MediaPad T5 runs armeabi-v7a.*64-bit ARM .*Add --benchmark-binary https://.*_arm", words)


@pytest.mark.parametrize("state", ["unauthorized", "offline"])
def test_a_phone_that_can_not_be_used_is_one_sentence(tmp_path_factory, here, capsys, state, monkeypatch):
    with farm(tmp_path_factory.mktemp("state"), PIXEL) as found:
        if state == "unauthorized":
            found.phones[0].fault("unauthorized", times=50)
            found.server.run("disconnect")
            found.server.connect(found.phones[0].address)
            words = "tap 'Allow USB debugging', then run the command again|unlock the phone and tap"
        else:
            attached = bench.Server.attached
            monkeypatch.setattr(bench.Server, "attached", lambda self: tuple(
                type(line)(line.serial, "offline", line.tags) for line in attached(self)))  # fmt: skip
            words = "is offline: replug the cable"
        found_words = said(capsys, 2, "run", "a.tflite", BINARY, f"--adb-server={found.address}")
        assert re.search(words, found_words) and found.phones[0].address in found_words


def test_a_server_that_does_not_answer_is_one_sentence(here, capsys, monkeypatch):
    monkeypatch.setattr("adbutils.AdbClient.make_connection", quick_connection)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        words = said(capsys, 1, "run", "a.tflite", BINARY, f"--adb-server=127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in words


def quick_connection(self, timeout=None):
    """adbutils' own, that waits for 0.3 s only."""
    from adbutils import AdbConnection

    link = AdbConnection(self.host, self.port)
    link.conn.settimeout(0.3)
    return link


@pytest.mark.parametrize("argv, code, words", [
    (["frobnicate"], 2, "unknown command 'frobnicate'. Known: devices, run, compare, report, clean, host"),
    (["report", "none"], 2, "Expected a folder of results.*'none'"),
    (["report"], 2, "Expected: report FOLDER"),
    (["compare", "none"], 2, "Expected: compare A B"),
    (["compare", "none", "none"], 2, "Expected a folder of results"),
    (["host", "none.tflite"], 2, "which is not a file"),
    (["devices", "extra"], 2, "Expected: devices"),
])  # fmt: skip
def test_other_commands(here, capsys, argv, code, words):
    assert re.search(words, said(capsys, code, *argv))


def test_the_results_folder_must_be_one(here, capsys):
    words = said(capsys, 2, "run", "a.tflite", "--device=host", "-o", "eval.npz")
    assert "Expected a folder for the results. Received: 'eval.npz', which is a file" in words


def test_a_phones_words_move_no_cursor(capsys, monkeypatch):
    def fail(_):
        raise RuntimeError("it said \x1b[2J\x07\udcff and\n  more")

    monkeypatch.setitem(cli.COMMANDS, "run", fail)
    assert cli.main(["run"]) == 1
    assert capsys.readouterr().err == "error: it said ?[2J?? and\n  more\n"


def test_help_and_no_command(capsys):
    assert cli.main([]) == 2 and cli.main(["--help"]) == 0
    assert cli.main(["run", "--help"]) == 0
    out = capsys.readouterr().out
    assert "android_aarch64_benchmark_model" in out and "android_arm_benchmark_model" in out


def test_as_a_program_in_an_environment_without_anything(here, none):
    package = os.path.dirname(os.path.dirname(cli.__file__))
    environment = {"PATH": "/nonexistent", "HOME": str(here), "PYTHONPATH": package}
    for argv, code, words in (
        (["run", "a.tflite", f"--adb-server={none.address}"], 2, b"error: No phone is attached"),
        (["run", "a.tflite", "--adb-server=127.0.0.1:1", "--adb=adb"], 1, b"error: adb can't be run"),
        (["run", "$(touch canary).tflite"], 2, b"error: Expected a .tflite file"),
    ):
        done = subprocess.run([sys.executable, "-m", "android_bench.cli", *argv], env=environment, check=False,
                              capture_output=True, timeout=60)  # fmt: skip
        assert (done.returncode, done.stdout) == (code, b""), done.stderr
        assert done.stderr.startswith(words) and done.stderr.count(b"\n") == 1
    assert not (here / "canary").exists()


def test_devices_as_a_table_and_for_machines(phones, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    server = f"--adb-server={phones.address}"
    assert cli.main(["devices", server]) == 0
    table = capsys.readouterr().out
    assert all(word in table for word in ("Pixel 7", "MediaPad T5", PIXEL.serial, "emulated"))
    assert cli.main(["devices", server, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [phone["name"] for phone in found["phones"]] == ["MediaPad T5", "Pixel 7"] and found["problems"] == []


def test_a_run_resumes_refuses_other_settings_and_retries_what_failed(one, here, capsys):
    starts = one.phones[0].root / "starts"
    program = one.phones[0].root / "bin/taskset"  # every run is pinned here, so it counts them
    program.write_text(f'#!/bin/sh\necho x >>{starts}\nshift\nexec "$@"\n')
    argv = ["run", "a.tflite", "broken.tflite", BINARY, f"--adb-server={one.address}", "--cores=big", "--eval=eval.npz",
            *QUICKLY]  # fmt: skip

    def run(*more):
        starts.write_text("")
        code = cli.main([*argv, *more])
        return code, len(starts.read_text().split()), capsys.readouterr()

    code, count, (out, err) = run()
    assert code == 1 and "Not everything was measured" in err and "Pixel 7: 2 jobs failed" in err
    assert count == 4  # a: latency, memory, accuracy; broken: latency, and it never gets to a run of its accuracy
    good, bad = sorted(read_rows("results"), key=lambda row: row.id)
    assert (good.id, good.error, good.accuracy, good.facts["core_mask"]) == ("a", None, 2 / 3, "big")
    assert bad.id == "broken" and bad.error and bad.latency_p50_us is None and "accuracy" in bad.facts["accuracy_note"]
    assert run()[:2] == (1, 0)  # finished jobs, failed ones as well, are not run twice
    code, count, (_, err) = run("--runs=4")
    assert (code, count) == (2, 0) and "another configuration" in err and "timing.runs: 3 -> 4" in err
    assert run("--retry-failed")[:2] == (1, 1)
    code, count, _ = run("--repetitions=2")  # one more repetition of each
    assert (code, count) == (1, 2)
    assert len(next(row for row in read_rows("results") if row.id == "a").facts["repetitions"]) == 2
    lines = [json.loads(line) for line in open("results/jobs.jsonl")]
    assert len(lines) == len({(line["id"], line["kind"], line["repetition"]) for line in lines}) == 6
    program.unlink()


def test_this_computer_goes_through_the_same_pipeline(here, capsys):
    argv = ["run", "a.tflite", "--device=host", "--threads=1,2,1", "--delegate=cpu,builtin", "--eval=eval.npz",
            *QUICKLY]  # fmt: skip
    assert cli.main(argv) == 0
    assert re.search(r"Report: .*/results/report.html\n", capsys.readouterr().out)
    rows = read_rows("results")
    assert {(row.threads, row.facts["delegate_asked"], row.delegate) for row in rows} == {
        (1, "cpu", "xnnpack"), (2, "cpu", "xnnpack"), (1, "builtin", "builtin"), (2, "builtin", "builtin")}  # fmt: skip
    for row in rows:
        assert (row.device_kind, row.accuracy, row.error, row.runs) == ("host", 2 / 3, None, 3)
        assert row.latency_p50_us > 0 and row.peak_memory_bytes > 1e6 and row.energy_joules is None
    assert (here / "results/report.html").stat().st_size > 100_000
    for name in ("report.csv", "report.jsonl", "rows.jsonl", "jobs.jsonl", "devices.json"):
        assert (here / "results" / name).stat().st_size > 100
    before = (here / "results/jobs.jsonl").read_bytes()
    assert cli.main(argv) == 0 and (here / "results/jobs.jsonl").read_bytes() == before
    assert cli.main(["report", "results"]) == 0
    assert cli.main(["run", "a.tflite", "--device=host", "--delegate=gpu", "-o", "other", *QUICKLY]) == 2
    assert "This computer has --delegate cpu and builtin" in capsys.readouterr().err and not (here / "other").exists()


def test_another_file_of_the_same_name_needs_another_folder(here, capsys):
    assert cli.main(["run", "a.tflite", "--device=host", *QUICKLY]) == 0
    before = (here / "results/jobs.jsonl").read_bytes()
    (here / "a.tflite").write_bytes(tiny_files.minus_mean())
    assert cli.main(["run", "a.tflite", "--device=host", *QUICKLY]) == 2
    assert "holds results of another a (sha256 " in capsys.readouterr().err
    assert (here / "results/jobs.jsonl").read_bytes() == before


def test_the_report_of_a_run_that_was_stopped_says_so(here):
    assert cli.main(["run", "a.tflite", "--device=host", "--delegate=cpu,builtin", *QUICKLY]) == 0
    page, jobs = here / "results/report.html", here / "results/jobs.jsonl"
    assert "Unfinished" not in page.read_text()
    jobs.write_text(jobs.read_text().splitlines(keepends=True)[0])
    assert cli.main(["report", "results"]) == 0
    assert re.search(r"Unfinished: this computer \(.*\) has run 1 of 2 jobs", page.read_text())
    assert cli.main(["run", "a.tflite", "--device=host", "--delegate=cpu,builtin", *QUICKLY]) == 0
    assert "Unfinished" not in page.read_text() and "Cool-down" not in page.read_text()
    assert "of a Python process that had" in page.read_text()


def test_what_this_computer_can_not_measure_is_refused(here, capsys):
    for flag in ("--energy-minutes=1", "--sustain=30s"):
        assert cli.main(["run", "a.tflite", "--device=host", flag, *QUICKLY]) == 2
        assert "measured on phones only" in capsys.readouterr().err
    assert cli.main(["run", "a.tflite", "--device=host", *QUICKLY, "--min-seconds=5", "--max-seconds=1"]) == 2
    assert not (here / "results").exists()


def test_rows_of_an_earlier_run_into_the_folder_stay(here):
    assert cli.main(["run", "a.tflite", "--device=host", *QUICKLY]) == 0
    shutil.copy("a.tflite", "b.tflite")
    assert cli.main(["run", "b.tflite", "broken.tflite", "--device=host", *QUICKLY]) == 1
    a, b, broken = sorted(read_rows("results"), key=lambda row: row.id)
    assert (a.id, b.id, broken.id) == ("a", "b", "broken") and broken.error
    assert a.raw_bytes == b.raw_bytes == (here / "a.tflite").stat().st_size and a.latency_p50_us > 0
    assert cli.main(["run", "a.tflite", "--device=host", "--retry-failed", *QUICKLY]) == 0  # not its failure
    assert len((here / "results/jobs.jsonl").read_text().splitlines()) == 3


def test_data_that_does_not_fit_the_file_is_told_in_the_row(here):
    assert cli.main(["run", "a.tflite", "--device=host", "--eval=shape.npz", *QUICKLY]) == 1
    (row,) = read_rows("results")
    assert row.latency_p50_us > 0 and "(3, 7)" in row.facts["accuracy_note"]


def test_a_phone_in_use_is_left_alone(phones, here):
    with hold(PIXEL.serial), pytest.raises(Incomplete, match=f"Pixel 7: Another android-bench uses {PIXEL.serial}"):
        phones.measure(["a.tflite"], here / "out")
    (row,) = read_rows(here / "out")
    assert row.device == "MediaPad T5" and row.error is None


def test_a_second_phone_of_a_kind_in_the_same_folder_gets_a_label_of_its_own(one, here, tmp_path_factory):
    (first,) = one.measure(["a.tflite"], here / "out")
    assert first.device == "Pixel 7"
    with farm(tmp_path_factory.mktemp("twin"), PIXEL, serial="TWIN0002") as twin:
        rows = twin.measure(["a.tflite"], here / "out")
    assert {row.device for row in rows} == {f"Pixel 7 ({PIXEL.serial[-4:]})", "Pixel 7 (0002)"}


def test_a_phone_that_refuses_fixed_performance_is_not_said_to_have_it(phones, here):
    rows = phones.measure(["a.tflite"], here / "out", wanted=Wanted(True, None, True))
    assert {row.device: row.facts.get("fixed_performance") for row in rows} == {"Pixel 7": True, "MediaPad T5": None}


def test_an_unusable_phone_beside_good_ones_is_told(tmp_path_factory, here, capsys):
    with farm(tmp_path_factory.mktemp("beside"), PIXEL, TABLET) as two:
        (two.phones[0].root / "bin/getprop").write_text("#!/bin/sh\necho nothing\n")
        bench.run(two.request(["a.tflite"], here / "out"))
        assert f"warning: {two.phones[0].address} does not answer" in capsys.readouterr().err
    assert [row.device for row in read_rows(here / "out")] == ["MediaPad T5"]


def test_what_is_asked_for_twice_is_done_once(here):
    bench.run(Request(("a.tflite",), output="out", device=("host",), threads=(1, 1), delegate=("cpu", "cpu"),
                      cores=("", ""), repetitions=1, wishes=QUICK), quiet=True)  # fmt: skip
    assert len(read_rows("out")) == 1
