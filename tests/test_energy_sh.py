"""on_device/energy.sh in a real shell, with a `dumpsys` that is a file: what it writes, and that nothing stays."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import android_bench
from android_bench.energy import power
from android_bench.energy.trace import read_trace

SCRIPT = Path(android_bench.__file__).parent / "on_device" / "energy.sh"
PHONES = Path(__file__).parent / "golden" / "phones"
DUMPSYS = """#!/bin/sh
case $1 in
*IHealth*) [ -n "$HEALTH_FILE" ] || exit 10; cat "$HEALTH_FILE" ;;
battery) cat '{phones}/battery_honor_a14_discharging.txt' ;;
*) cat '{phones}/odpm_hal2_delta.txt' ;;
esac
"""


@pytest.fixture
def start(tmp_path):
    """Starts energy.sh with 0.1 s between samples and 0.4 s of idle, in a session of its own."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "dumpsys").write_text(DUMPSYS.format(phones=PHONES))
    (tools / "dumpsys").chmod(0o755)
    (tmp_path / "current_now").write_text("-412000\n")
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "CURRENT_FILE": str(tmp_path / "current_now"), "ODPM": "1"}

    def starter(*command, idle="0.4", **changes):
        argv = ["sh", SCRIPT, "0.1", idle, tmp_path / "the trace", *command]
        return subprocess.Popen(argv, env=environment | changes, start_new_session=True, stdout=subprocess.PIPE)

    return starter


def left(process) -> list[str]:
    """The living processes of its session."""
    names = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, _, fields = (folder / "stat").read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, _, session = fields.split()[:4]
        if int(session) == process.pid and state != "Z":
            names.append(name)
    return names


def whole(trace):
    """The sampler's samples. The end may cut the last one off: it counts where it has a battery and a current."""
    *read, last = [sample for sample in trace.samples if sample.mark is None]
    return read if last.battery is None or last.current_raw is None else [*read, last]


def test_a_whole_run(start, tmp_path):
    process = start("sh", "-c", 'echo "$1"; sleep 0.6; exit 7', "sh", "two  $words;")
    output, _ = process.communicate(timeout=20)
    assert (process.returncode, output, left(process)) == (7, b"two  $words;\n", [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current_now", "the trace", "tools"]
    trace = read_trace((tmp_path / "the trace").read_text())
    marks = [trace.marked(name) for name in ("begin", "load_begin", "load_end", "end")]
    gaps = [b.uptime_seconds - a.uptime_seconds for a, b in zip(marks, marks[1:], strict=False)]
    assert trace.period_seconds == 0.1 and all(0.3 <= gap < 5 for gap in gaps)
    assert [mark.odpm.rails["VSYS_PWR_VBATT:Battery"] for mark in marks] == [5566778.0] * 4
    read = [sample for sample in trace.samples if sample.mark is None]
    assert len(read) >= 4
    assert {(sample.battery.charge_uah, sample.current_raw) for sample in whole(trace)} == {(2848000, -412000)}
    assert 1 <= len([sample for sample in read if sample.odpm]) <= len(read) // 8 + 1


def test_without_current_and_meters(start, tmp_path):
    process = start("true", CURRENT_FILE="", ODPM="0")
    assert process.wait(20) == 0
    trace = read_trace((tmp_path / "the trace").read_text())
    assert {(sample.current_raw, sample.odpm) for sample in trace.samples} == {(None, None)}


def test_the_health_service_stands_in_for_the_kernels_file(start, tmp_path):
    process = start("true", CURRENT_FILE="", HEALTH_FILE=str(PHONES / "health_hal_dump.txt"))
    assert process.wait(20) == 0
    trace = read_trace((tmp_path / "the trace").read_text())
    assert {sample.current_raw for sample in whole(trace)} == {-412300}


def test_before_android_13_the_health_service_is_asked_another_way(start, tmp_path):
    (tmp_path / "tools/lshal").write_text(f"#!/bin/sh\n[ $# = 2 ] && cat '{PHONES / 'health_hal_dump.txt'}'\n")
    (tmp_path / "tools/lshal").chmod(0o755)
    process = start("true", CURRENT_FILE="")
    assert process.wait(20) == 0
    trace = read_trace((tmp_path / "the trace").read_text())
    assert {sample.current_raw for sample in whole(trace)} == {-412300}


def test_without_a_health_service_nobody_asks_it_again(start, tmp_path):
    asked = tmp_path / "tools/lshal"
    asked.write_text(f"#!/bin/sh\necho asked >>'{tmp_path / 'asked'}'\necho Cannot find service\n")
    asked.chmod(0o755)
    process = start("true", CURRENT_FILE="", ODPM="0")
    assert process.wait(20) == 0 and (tmp_path / "asked").read_text() == "asked\n"
    assert "@@health" not in (tmp_path / "the trace").read_text()


@pytest.mark.parametrize(
    "command, code", [(["no_such_tool"], 127), (["sh", "-c", "kill -9 $$"], 137), (["sh", "-c", "exit 3"], 3)]
)
def test_exit_code_is_the_commands(start, command, code):
    process = start(*command, idle="0.1")
    assert process.wait(20) == code and left(process) == []


def test_stopped_in_mid_load(start, tmp_path):
    process = start("sleep", "60", idle="0.1")
    _until(lambda: _has(tmp_path / "the trace.child") and "sleep" in "".join(left(process)))
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    _until(lambda: left(process) == [])
    trace = read_trace((tmp_path / "the trace").read_text())
    assert trace.marked("load_begin") and not trace.marked("load_end")
    assert "no load marks" in power.energy(trace, 1).reason


@pytest.mark.parametrize("idle", ["60", "0.1"], ids=["resting", "in mid load"])
def test_killed_without_warning(start, tmp_path, idle):
    process = start("sleep", "60", idle=idle)
    _until(lambda: _has(tmp_path / "the trace.child"))
    time.sleep(0.5)
    process.kill()
    process.wait(10)
    _until(lambda: left(process) == [])


def test_names_no_path_of_the_phone():
    text = SCRIPT.read_text()
    assert "/data" not in text and "/sys" not in text


def _has(path: Path) -> bool:
    return path.exists() and path.read_text().strip() != ""


def _until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
