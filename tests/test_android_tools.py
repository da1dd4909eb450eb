"""The scripts on a phone under Android's own shell and programs, mksh and toybox, where this machine has them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import small_files
from emulated_phone.binary import make_binary
from emulated_phone.personalities import PIXEL
from emulated_phone.phone import EmulatedPhone, android_tools
from emulated_phone.server import AdbServer

import android_bench
from android_bench import bench, measure
from android_bench.command import Timing
from android_bench.result import read_rows

RUN = Path(android_bench.__file__).parent / "on_device" / "run.sh"
QUICK = Timing(runs=3, min_seconds=0, max_seconds=5, warmup_runs=1, warmup_seconds=0)
FORKING_SETSID = "#!/bin/sh\n/usr/bin/setsid --fork \"$@\"\n"  # as toybox's of Android 12 and 13


@pytest.fixture(params=["mksh and toybox", "dash"])
def tools(request, tmp_path):
    """PATH of such a phone, and its shell."""
    if request.param == "dash":
        return os.environ["PATH"], "sh"
    folder = android_tools(tmp_path / "tools")
    if folder is None:
        pytest.skip("no mksh and toybox here; .ci/run installs them")
    return f"{folder}:{os.environ['PATH']}", str(folder / "sh")


def run_sh(tools, folder, limit, *command):
    path, shell = tools
    subprocess.run([shell, str(RUN), str(folder), "0.1", str(limit), *command], env={"PATH": path, "CLOCKS": ""},
                   timeout=30, check=True)  # fmt: skip
    return int((folder / "rc").read_text()), (folder / "log").read_text()


def test_exit_code_and_log_are_the_commands(tools, tmp_path):
    assert run_sh(tools, tmp_path / "job", 10, "sh", "-c", "echo hi; sleep 0.3; exit 7") == (7, "hi\n")
    assert (tmp_path / "job/samples").read_text().startswith("@ ")


def test_a_command_at_its_limit_is_killed_with_all_that_it_started(tools, tmp_path):
    marker = f"3{time.time_ns() % 10**6:06}"
    code, log = run_sh(tools, tmp_path / "job", 1, "sh", "-c", f"sh -c 'sleep {marker} & sleep {marker}'; echo no")
    assert code == 124 and "no" not in log
    alive = subprocess.run(["pgrep", "-f", f"sleep {marker}"], capture_output=True, text=True).stdout.split()
    for process in alive:
        os.kill(int(process), signal.SIGKILL)
    assert alive == []


@pytest.mark.parametrize("setsid", ["toybox's", "one that forks"])
def test_a_phone_with_androids_programs_is_measured(setsid, tmp_path, monkeypatch):
    monkeypatch.setenv("ANDROID_BENCH_CACHE", str(tmp_path / "cache"))
    tools = android_tools(tmp_path / "tools")
    if tools is None:
        pytest.skip("no mksh and toybox here; .ci/run installs them")
    if setsid == "one that forks":
        (tools / "setsid").unlink()
        (tools / "setsid").write_text(FORKING_SETSID)
        (tools / "setsid").chmod(0o755)
    (tmp_path / "m.tflite").write_bytes(small_files.tflite())
    np.savez(tmp_path / "eval.npz", x=small_files.X, y=np.arange(len(small_files.X)) % 4)
    binary = make_binary(tmp_path / "benchmark_model")
    with AdbServer() as server, EmulatedPhone(PIXEL, tmp_path / "phone", tools=tools) as phone:
        server.connect(phone.address)
        bench.run(bench.Request(
            (str(tmp_path / "m.tflite"),), output=str(tmp_path / "out"), repetitions=1, wait=5,
            adb_server=(f"127.0.0.1:{server.port}",), benchmark_binary=(str(binary),), eval=str(tmp_path / "eval.npz"),
            cores=("big",), wishes=measure.Wishes(QUICK, measure.Cooling(None, 0), energy_minutes=0.05),
        ), quiet=True)  # fmt: skip
        leftovers = phone.leftovers()
    (row,) = read_rows(tmp_path / "out")
    assert row.error is None and row.runs == 3 and row.facts["host_max_difference"] == 0
    assert row.facts["energy"].get("source") == "odpm" or row.facts["energy"]["refused"]
    assert row.facts["core_mask"] == "big" and leftovers == ([], [])


def test_ctrl_c_in_a_terminal_ends_a_run_on_this_computer_and_loses_nothing(tmp_path):
    """The terminal sends SIGINT to the whole group, children included."""
    (tmp_path / "m.tflite").write_bytes(small_files.tflite())
    argv = [sys.executable, "-m", "android_bench.cli", "run", str(tmp_path / "m.tflite"), "--device=host", "-o",
            str(tmp_path / "out"), "--repetitions=9", "--min-seconds=1"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(RUN.parents[2]), "ANDROID_BENCH_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(argv, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    lines = tmp_path / "out/jobs.jsonl"
    end = time.monotonic() + 25
    while not (lines.exists() and lines.read_bytes()) and time.monotonic() < end:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(10) == 130
    assert 1 <= len(lines.read_text().splitlines()) < 9 and "SIGINT" not in lines.read_text()
