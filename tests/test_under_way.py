"""What changes while a run is under way: its files, its libraries, the phone's settings, the user's mind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
import tiny_files
from emulated_phone.personalities import PIXEL, TABLET
from emulated_phone.sync import Sync
from phone_farm import QUICK, farm
from test_thermal import snapshot

from android_bench import cli, session
from android_bench.accuracy import Pack
from android_bench.adb import Phone, Server
from android_bench.adb_errors import DeviceLost, Stopped
from android_bench.bench import Incomplete
from android_bench.job import models
from android_bench.measure import Cooling, JobFailed, Measurer, References
from android_bench.result import read_rows
from android_bench.settings import NotRestored, Wanted, apply, put_back

X = np.array([[1, 0], [3, 1], [5, 4]], np.float32)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    with farm(tmp_path_factory.mktemp("two"), PIXEL, TABLET) as phones:
        yield phones


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tflite").write_bytes(tiny_files.matmul())
    return tmp_path


@pytest.fixture
def failing_put(two):
    """The Pixel, whose `settings put` fails for the names in the set that comes with it."""
    phone, program = two.phones[0], two.phones[0].root / "bin/settings"
    real, broken = program.read_text(), set()

    def write():
        tests = "".join(f'    "put system {name}"*) exit 1;;\n' for name in broken)
        program.write_text(real.replace("\n", f'\ncase "$*" in\n{tests}esac\n', 1) if broken else real)

    yield phone, broken, write
    program.write_text(real)


def link(farm, phone) -> Phone:
    return Phone(Server(farm.address), phone.address)


def test_a_model_that_is_replaced_is_not_measured_under_the_old_name(two, here):
    done = []

    def replace():  # between the two phones' first and second repetitions at the latest
        while not done and not (here / "out/jobs.jsonl").exists():
            time.sleep(0.002)
        (here / "a.tflite").write_bytes(tiny_files.minus_mean())

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        with pytest.raises(Incomplete, match="changed since the run began: measure the new file into another folder"):
            two.measure(["a.tflite"], here / "out", repetitions=5)
    finally:
        done.append(True)
        thread.join()
    pushed = [path.name for phone in two.phones for path in phone.root.rglob("a.tflite-*")]
    assert len(set(pushed)) == 1


def test_outputs_to_compare_with_are_those_of_the_file_that_was_asked_for(here):
    (model,) = models(["a.tflite"])
    (here / "a.tflite").write_bytes(tiny_files.minus_mean())
    with pytest.raises(JobFailed, match="changed since the run began"):
        References(Pack({"x": X}, None)).get(model, True)
    (here / "a.tflite").unlink()
    with pytest.raises(ValueError, match="changed since the run began"):
        model.check()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_cleans_up(two, here, number):
    phone, before = two.phones[0], two.phones[0].settings()
    argv = ["run", str(here / "a.tflite"), f"--adb-server={two.address}", f"--device={phone.serial}",
            f"--benchmark-binary={','.join(two.binaries)}", "--min-seconds=30", "--cool-down=0", "--brightness=40",
            f"--output={here / 'out'}"]  # fmt: skip
    root = str(Path(cli.__file__).parents[1])
    harness = subprocess.Popen([sys.executable, "-m", "android_bench.cli", *argv], stderr=subprocess.PIPE, text=True,
                               stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": root})  # fmt: skip
    jobs = phone.root / session.FOLDER.lstrip("/") / "jobs"
    while harness.poll() is None and not list(jobs.glob("*/*/pid")):
        time.sleep(0.01)
    assert phone.settings()["system/screen_brightness"] == "40"
    harness.send_signal(number)
    assert "the same command goes on from here" in harness.communicate(timeout=30)[1]
    assert harness.returncode == 130
    assert phone.settings() == before and phone.leftovers() == ([], [])


def test_a_setting_that_is_not_put_back_is_told_and_the_next_run_does(two, here, failing_put):
    phone, broken, write = failing_put
    before = phone.settings()
    done, real = [], phone.map_command

    def fail_at_the_end(text):
        if "restore.sh ] && sh" in text and done:
            broken.add("screen_off_timeout")
            write()
        done.extend(["job"] * ("nohup" in text))
        return real(text)

    phone.map_command = fail_at_the_end
    (here / "broken.tflite").write_bytes(b"\x1c\0\0\0TFL3" + b"rubbish" * 30)
    with pytest.raises(Incomplete, match="Pixel 7: .*not every setting could be put back.*android-bench clean") as told:
        two.measure(["a.tflite", "broken.tflite"], here / "out", device=(phone.serial,))
    assert "Pixel 7: 1 jobs failed" in str(told.value)
    phone.map_command = real
    assert phone.settings() != before and read_rows(here / "out")[0].error is None
    broken.clear()
    write()
    two.measure(["a.tflite"], here / "out", device=(phone.serial,))
    assert phone.settings() == before


def test_what_an_old_script_would_not_put_back_is_not_changed(two, failing_put):
    phone, broken, write = failing_put
    device, before = link(two, phone), phone.settings()
    apply(device, session.FOLDER, Wanted())  # by a harness that died
    broken.add("screen_off_timeout")
    write()
    apply(device, session.FOLDER, Wanted(brightness=40))
    assert phone.settings()["system/screen_brightness"] == before["system/screen_brightness"]
    with pytest.raises(NotRestored):
        put_back(device, session.FOLDER)
    broken.clear()
    write()
    put_back(device, session.FOLDER)
    assert phone.settings() == before


def test_clean_goes_on_after_a_phone_that_fails(two, capsys, failing_put):
    phone, broken, write = failing_put
    apply(link(two, phone), session.FOLDER, Wanted())
    broken.add("screen_off_timeout")
    write()
    assert cli.main(["clean", f"--adb-server={two.address}", "--device=all"]) == 1
    out, err = capsys.readouterr()
    assert "MediaPad T5: settings are back" in out and "error: Pixel 7: " in err and "not every setting" in err
    broken.clear()
    write()
    assert cli.main(["clean", f"--adb-server={two.address}", "--device=all"]) == 0


def test_libraries_are_those_of_this_run_and_rows_of_two_versions_do_not_mix(two, here):
    serial = two.phones[0].serial
    for name, text in {"libgl.so": "1", "libx.so": "1"}.items():
        (here / name).write_text(text)
    (row,) = two.measure(["a.tflite"], "out", device=(serial,), library=("libgl.so",), wait=float("inf"))
    assert list(row.facts["libraries"]) == ["libgl.so"]
    (here / "libgl.so").write_text("2")
    with pytest.raises(ValueError, match="measured into this folder with another --library"):
        two.measure(["a.tflite"], "out", device=(serial,), library=("libgl.so",))
    two.measure(["a.tflite"], "other", device=(serial,), library=("libx.so",))
    lib = two.phones[0].root / session.FOLDER.lstrip("/") / "lib"
    assert sorted(path.name for path in lib.iterdir()) == ["kept", "libx.so"]


def test_what_the_tool_said_is_kept(two, here):
    (here / "broken.tflite").write_bytes(b"\x1c\0\0\0TFL3" + b"rubbish" * 30)
    with pytest.raises(Incomplete):
        two.measure(["a.tflite", "broken.tflite"], "out", device=(two.phones[0].serial,))
    good, bad = sorted(read_rows("out"), key=lambda row: row.id)
    (log,) = (job["log"] for job in bad.facts["failed_jobs"])
    assert "Benchmarking failed" in (here / "out" / log).read_text() and good.error is None
    lines = [json.loads(line) for line in open("out/jobs.jsonl")]
    assert all("Graph: [" in (here / "out" / line["log"]).read_text() for line in lines if not line["error"])
    assert f"Read what the tool said: {log}" in (here / "out/report.html").read_text() or "again" in bad.error


@pytest.mark.parametrize("answer", [b"DATA\0\0\0\0", b"DATA\1\0\0\0x"])
def test_a_phone_that_never_ends_sending_is_left(two, monkeypatch, answer):
    def lie(self, *_):
        while True:
            self.stream.write(answer * 50)
            time.sleep(0.001)

    monkeypatch.setattr(Sync, "_receive", lie)
    phone = link(two, two.phones[0])
    phone.timeout = 0.5
    with pytest.raises(DeviceLost, match="did not end sending"):
        phone.pull("/data/local/tmp/x", 10**6)
    phone.timeout = 60
    threading.Timer(0.3, phone.stop.set).start()
    with pytest.raises(Stopped):
        phone.pull("/data/local/tmp/x", 10**9)


def test_of_a_long_log_both_ends_are_read(tmp_path):
    for name in ("rc", "begin", "end", "times", "samples"):
        (tmp_path / name).write_text("0\n")
    (tmp_path / "log").write_text("STARTING!\n" + "driver: frame done\n" * 60_000 + "count=50 first=9 curr=9\n")
    asked = ["sh", "-c", session._wait(str(tmp_path), 1, 0.5)]
    text = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    log = text.partition("@@log\n")[2]
    assert log.startswith("STARTING!\n") and log.endswith("count=50 first=9 curr=9\n") and len(log) < 700_000
    (tmp_path / "log").write_text(whole := "count=1 curr=800\n" + "driver: frame done\n" * 25_000 + "count=50\n")
    text = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert 400_000 < len(whole) < 600_000 and text.partition("@@log\n")[2] == whole  # no line twice


def test_a_phone_that_is_hot_at_first_is_still_waited_for_later():
    skins = iter([46.0, 46.0, 46.5, 40.0, 40.0, 43.0, 36.0])  # a snapshot each
    waits = []
    phone = types.SimpleNamespace(pause=waits.append)
    fake = types.SimpleNamespace(phone=phone, snapshot=lambda: snapshot(skin=next(skins)))
    wishes = types.SimpleNamespace(cooling=Cooling(37.0, 0.0, 1.0))
    measurer = Measurer(fake, wishes, None)
    assert "did not cool in 0 s: skin 46.0" in measurer._cool()[0]
    assert measurer._cool()[0] == "did not wait: skin 46.0 °C, above 37.0 °C, but no warmer than at the start"
    assert "skin 46.5" in measurer._cool()[0]
    assert "skin 40.0" in measurer._cool()[0] and "skin 40.0" in measurer._cool()[0]  # from here on 40 is the start
    assert "did not cool in 0 s: skin 43.0 °C, above 42.0" in measurer._cool()[0]
    assert measurer._cool()[0] is None


def test_a_cap_that_comes_later_is_not_what_is_usual():
    seen = iter([snapshot(skin=36.0), snapshot(skin=35.5, limits=(1_800_000, 1_200_000)), snapshot(skin=35.0)])
    fake = types.SimpleNamespace(phone=None, snapshot=lambda: next(seen))
    measurer = Measurer(fake, types.SimpleNamespace(cooling=Cooling(37.0, 0.0, 1.0)), None)
    assert measurer._cool()[0] is None
    assert "did not cool in 0 s: clock limited to 1.20 of 2.80" in measurer._cool()[0]
    assert measurer.start.limits_khz == (1_800_000, 2_800_000) and measurer.start_was_cool


def test_a_harness_that_was_told_to_ignore_a_signal_does(monkeypatch):
    seen = []
    monkeypatch.setitem(cli.COMMANDS, "devices", lambda argv: seen.append(
        [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)]) or 0)  # fmt: skip
    before = [signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGTERM, signal.SIG_DFL)]  # by nohup
    try:
        assert cli.main(["devices"]) == 0
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        for number, handler in zip((signal.SIGHUP, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
    assert seen[0][0] == signal.SIG_IGN and callable(seen[0][1])


def test_what_a_phone_refuses_to_change_is_told(two, here):
    phone, program = two.phones[0], two.phones[0].root / "bin/settings"
    real = program.read_text()
    program.write_text(real.replace("\n", '\n[ "$1 $3" != "put screen_off_timeout" ] || exit 0\n', 1))
    try:
        (row,) = two.measure(["a.tflite"], "out", device=(phone.serial,))
    finally:
        program.write_text(real)
    assert row.facts["settings_refused"] == ["screen_off_timeout"] and row.error is None
    assert "the phone kept screen_off_timeout as it was" in (here / "out/report.html").read_text()


def test_the_samples_of_a_slow_model_get_the_time_that_they_take(here):
    assert QUICK.grace_seconds == 60
    asked = []
    fake = types.SimpleNamespace(
        program="p", scripts={"eval.sh": "e"}, phone=types.SimpleNamespace(push=lambda *_: "pushed"),
        binary=types.SimpleNamespace(litert2=False), run=lambda *_, limit, **__: asked.append(limit) or 1 / 0,
    )  # fmt: skip
    measurer = Measurer(fake, QUICK, None)
    (model,) = models(["a.tflite"])
    configuration = types.SimpleNamespace(threads=1, delegate="cpu", mask="", key="k", model=model)
    measurer.timed["k"] = ("xnnpack", 4.0)
    expected = types.SimpleNamespace(packs=(b"x" * 20,), chunks=2, chunk=100, chunk_bytes=4, inputs=())
    with pytest.raises(ZeroDivisionError):
        measurer._scored(types.SimpleNamespace(configuration=configuration), "n", "m", expected)
    assert asked[0] > 200 * 4.0
