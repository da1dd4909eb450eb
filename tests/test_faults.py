"""What goes wrong with phones: nothing is lost or doubled, the other phones don't notice, and the harness ends."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import small_files
from emulated_phone.binary import make_binary
from emulated_phone.personalities import ARM32, PIXEL, TABLET
from emulated_phone.phone import EmulatedPhone
from emulated_phone.server import AdbServer

from android_bench import bench, measure
from android_bench.command import Timing
from android_bench.result import read_rows
from android_bench.settings import Wanted

QUICK = Timing(runs=2, min_seconds=0, max_seconds=0.5, warmup_runs=1, warmup_seconds=0)
MODELS = ("float32", "float16")
LIVE = "data/local/tmp/android_bench/jobs"  # of a phone: a folder for each run
CALM, FAULTY = "Pixel 7", "MediaPad T5"


@dataclasses.dataclass(frozen=True)
class Farm:
    """A faulty phone and a calm one behind a real adb server, and what a request needs to know of them."""

    faulty: EmulatedPhone
    calm: EmulatedPhone
    request: bench.Request

    def run(self, **changes) -> Path:
        return bench.run(dataclasses.replace(self.request, **changes), quiet=True)

    def lines(self) -> dict[str, list[dict]]:
        """What jobs.jsonl holds of each phone."""
        text = Path(self.request.output, "jobs.jsonl").read_text()
        found = {self.faulty.serial: [], self.calm.serial: []}
        for line in map(json.loads, text.splitlines()):
            found[line["serial"]].append(line)
        return found


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """An adb server, and the models, data and programs of every run."""
    root = tmp_path_factory.mktemp("shelf")
    for name in MODELS:
        (root / f"{name}.tflite").write_bytes(small_files.tflite(name))
    np.savez(root / "eval.npz", x=small_files.X, y=np.arange(len(small_files.X)) % 4)
    binaries = make_binary(root / "benchmark_model"), make_binary(root / "benchmark_model_arm", ARM32)
    with AdbServer() as server:
        yield server, root, tuple(map(str, binaries))


@pytest.fixture
def farm(shelf, tmp_path, monkeypatch):
    server, root, binaries = shelf
    monkeypatch.setenv("ANDROID_BENCH_CACHE", str(tmp_path / "cache"))
    request = bench.Request(
        tuple(str(root / f"{name}.tflite") for name in MODELS), output=str(tmp_path / "out"), device=("all",),
        adb_server=(f"127.0.0.1:{server.port}",), benchmark_binary=binaries, repetitions=1, wait=5,
        wishes=measure.Wishes(QUICK, measure.Cooling(None, 0)), wanted=Wanted(True, 40, fixed_performance=True),
    )  # fmt: skip
    phones = EmulatedPhone(TABLET, tmp_path / "faulty"), EmulatedPhone(PIXEL, tmp_path / "calm", pace=0.05)
    with phones[0], phones[1]:
        for phone in phones:
            assert server.connect(phone.address).startswith("connected")
        before = [_settings(phone) for phone in phones]
        yield Farm(*phones, request)
        _as_it_was(phones, before, tmp_path)
        for phone in phones:
            server.run("disconnect", phone.address)


def _as_it_was(phones, before, folder: Path) -> None:
    assert [phone.leftovers() for phone in phones] == [([], [])] * 2
    assert [_settings(phone) for phone in phones] == before
    assert not list((folder / "cache").rglob("*.lock"))
    assert not list((folder / "out").glob("*.part"))


def _settings(phone: EmulatedPhone) -> dict[str, str]:
    found = phone.settings()
    return found | {"fixed_performance": found["fixed_performance"] or "false"}  # a fresh phone has none


def _complete(lines: list[dict], kinds=("latency",)) -> bool:
    """Every job once, and none failed."""
    found = sorted((line["id"], line["kind"]) for line in lines if not line["error"])
    return found == sorted((name, kind) for name in MODELS for kind in kinds) and len(lines) == len(found)


@contextlib.contextmanager
def when_running(phone: EmulatedPhone, action) -> None:
    """Calls `action` as soon as a job runs on the phone."""
    done = threading.Event()

    def watch():
        while not done.is_set() and not list((phone.root / LIVE).glob("*/*/pid")):
            time.sleep(0.005)
        action()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("kind, options, words", [
    ("drop_push", {"match": "bin/"}, None),  # while the phone is prepared: begun anew
    ("drop_push", {"match": "models/"}, "link dropped"),
    ("drop_shell", {"match": "nohup", "after": 0.05}, None),  # the job runs on and is found again
    ("drop_shell", {"match": "restore.sh"}, None),
    ("hang", {"match": "nohup"}, "did not end a command"),
    ("killed", {}, "killed"),
    ("crash", {}, "segmentation fault"),
    ("battery_garbage", {}, None),
])  # fmt: skip
def test_a_fault_that_passes_costs_an_attempt_at_most(farm, kind, options, words):
    farm.faulty.fault(kind, **options)
    farm.run(wait=1 if kind == "hang" else 5)
    assert not farm.faulty.faults.peek(kind), "it did not come about"
    lines = farm.lines()
    assert _complete(lines[farm.faulty.serial]) and _complete(lines[farm.calm.serial])
    failures = [failure for line in lines[farm.faulty.serial] for failure in line["failures"]]
    assert len(failures) == (words is not None)
    assert words is None or words in failures[0]
    assert all(line["attempts"] == 1 for line in lines[farm.calm.serial])
    rows = read_rows(farm.request.output)
    assert len(rows) == 4 and all(row.latency_p50_us and not row.error for row in rows)
    assert all(row.peak_memory_bytes for row in rows if row.device == FAULTY)


def test_a_storage_that_fills_up_while_a_job_runs(farm):
    plain, full = farm.faulty.map_command, ["trap '' XFSZ; ulimit -f 0; "]  # every file that is written stays empty
    farm.faulty.map_command = lambda text: ((full.pop() if full and "nohup" in text else "") + plain(text))
    farm.run()
    lines = farm.lines()
    assert _complete(lines[farm.faulty.serial]) and _complete(lines[farm.calm.serial])
    failures = [failure for line in lines[farm.faulty.serial] for failure in line["failures"]]
    assert len(failures) == 1 and "storage full" in failures[0]


def test_a_storage_that_is_full_from_the_start(farm):
    farm.faulty.fault("storage_full")
    with pytest.raises(bench.Incomplete, match="T5: .*No space left on device; free some space.*; 2 jobs left"):
        farm.run()
    assert _complete(farm.lines()[farm.calm.serial]) and not farm.lines()[farm.faulty.serial]


@pytest.mark.parametrize("kind", ["gone", "unauthorized"])
def test_a_phone_that_comes_back_goes_on(farm, kind):
    with when_running(farm.faulty, lambda: farm.faulty.fault(kind, seconds=0.7)):
        farm.run()
    lines = farm.lines()
    assert _complete(lines[farm.faulty.serial]) and _complete(lines[farm.calm.serial])


def test_a_phone_that_was_restarted_is_set_up_anew_and_goes_on(farm, tmp_path):
    phone, plain, brightness = farm.faulty, farm.faulty.map_command, []

    def restart():
        for path in (phone.root / LIVE).glob("*/*/pid"):
            os.killpg(int(path.read_text()), signal.SIGKILL)
        phone.fault("gone", seconds=0.7)
        (tmp_path / "uptime").write_text("5.00 5.00\n")
        (phone.root / "state/settings/system/screen_brightness").write_text("102\n")

    def map_command(text):
        if "nohup" in text:
            brightness.append(phone.settings()["system/screen_brightness"])
        restarted = (tmp_path / "uptime").exists() and "@@uptime" in text
        return plain(text).replace("/proc/uptime", str(tmp_path / "uptime")) if restarted else plain(text)

    phone.map_command = map_command
    with when_running(phone, restart):
        farm.run()
    lines = farm.lines()
    assert _complete(lines[phone.serial]) and _complete(lines[farm.calm.serial])
    failures = [failure for line in lines[phone.serial] for failure in line["failures"]]
    assert len(failures) == 1 and "was the phone restarted" in failures[0]
    assert set(brightness) == {"40"} and len(brightness) >= 3


@pytest.mark.parametrize("kind, words", [
    ("wrong_abi", "wrong ABI"),
    ("storage_full", "No space left on device; free some space"),
    ("hang_benchmark", "time limit"),
])  # fmt: skip
def test_a_job_that_can_not_work_is_recorded_with_its_cause(farm, kind, words):
    with when_running(farm.faulty, lambda: farm.faulty.fault(kind)):
        with pytest.raises(bench.Incomplete, match="MediaPad T5: 1 jobs failed"):
            farm.run(wishes=dataclasses.replace(farm.request.wishes, grace_seconds=3))
    lines = farm.lines()
    assert _complete(lines[farm.calm.serial])
    errors = [line["error"] for line in lines[farm.faulty.serial]]
    assert len(errors) == 2 and errors.count(None) == 1
    assert words in next(filter(None, errors))
    row = next(row for row in read_rows(farm.request.output) if row.error)
    assert words in row.error and row.latency_p50_us is None
    if kind == "storage_full":
        farm.run(wishes=dataclasses.replace(farm.request.wishes, grace_seconds=3), retry_failed=True)
        assert _complete(farm.lines()[farm.faulty.serial])


def test_a_missing_output_file_is_asked_for_again(farm, shelf):
    farm.faulty.fault("no_output_file")
    farm.calm.pace = None
    farm.run(eval=str(shelf[1] / "eval.npz"))
    lines = farm.lines()
    for phone in (farm.faulty, farm.calm):
        assert _complete(lines[phone.serial], ("latency", "accuracy"))
    failures = [failure for line in lines[farm.faulty.serial] for failure in line["failures"]]
    assert len(failures) == 1 and "wrote no output" in failures[0]
    assert {row.facts["host_agreement"] for row in read_rows(farm.request.output)} == {1.0}


def test_a_thermal_trip_is_said_in_the_row(farm):
    calm, trip = farm.faulty, farm.calm  # the tablet has no thermal service
    trip.pace = 0.5
    trip.fault("thermal_trip", status=3, cap=0.5)
    farm.run()
    throttled = [line["found"]["throttled"] for line in farm.lines()[trip.serial]]
    assert any(throttled) and _complete(farm.lines()[calm.serial])
    rows = [row for row in read_rows(farm.request.output) if row.device == CALM]
    assert sum(row.facts["throttled_repetitions"] for row in rows) == sum(map(bool, throttled))


def test_an_adb_server_that_dies_is_started_again(farm, tmp_path, monkeypatch):
    with AdbServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        for phone in (farm.faulty, farm.calm):
            server.connect(phone.address)
        with when_running(farm.faulty, lambda: server.run("kill-server")):
            farm.run(adb_server=(f"127.0.0.1:{server.port}",))
        server.run("kill-server")
    lines = farm.lines()
    assert _complete(lines[farm.faulty.serial]) and _complete(lines[farm.calm.serial])


def test_a_phone_gone_for_good_leaves_its_jobs_to_the_next_run(farm):
    with when_running(farm.faulty, lambda: farm.faulty.fault("gone", seconds=1000)):
        with pytest.raises(bench.Incomplete) as caught:
            farm.run(wait=1)
    assert "the same command goes on" in str(caught.value) and "look at its cable or Wi-Fi" in str(caught.value)
    assert "2 jobs left" in str(caught.value)
    before = farm.lines()
    assert _complete(before[farm.calm.serial]) and not before[farm.faulty.serial]
    farm.faulty.fault("gone", seconds=0)
    time.sleep(0.1)
    bench.servers(farm.request)[0].connect(farm.faulty.address)
    farm.run()
    assert _complete(farm.lines()[farm.faulty.serial]) and farm.lines()[farm.calm.serial] == before[farm.calm.serial]


def test_ctrl_c_ends_clean_and_the_same_call_goes_on(farm):
    with when_running(farm.faulty, lambda: os.kill(os.getpid(), signal.SIGINT)):
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            farm.run()
    assert time.monotonic() - begin < 15
    assert [phone.leftovers() for phone in (farm.faulty, farm.calm)] == [([], [])] * 2
    assert farm.faulty.settings()["system/screen_brightness"] == "102"
    farm.run()
    lines = farm.lines()
    assert _complete(lines[farm.faulty.serial]) and _complete(lines[farm.calm.serial])


def test_a_killed_harness_is_taken_up_where_it_was(farm, tmp_path):
    code = (f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "from android_bench.bench import *\nfrom android_bench.measure import *\n"
            f"from android_bench.command import *\nrun({farm.request!r}, quiet=True)")  # fmt: skip
    harness = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    with when_running(farm.faulty, harness.kill):
        harness.wait(60)
    assert harness.returncode == -signal.SIGKILL
    assert farm.faulty.settings()["system/screen_brightness"] == "40"
    farm.run()
    lines = farm.lines()
    assert _complete(lines[farm.faulty.serial]) and _complete(lines[farm.calm.serial])
