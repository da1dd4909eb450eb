"""This computer as a device: real files timed in a child; crashes, refusals and bad input as clear errors."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import small_files

from android_bench import child, host
from android_bench.result import Result
from android_bench.stats import mad, outliers, percentile, summary

QUICK = dict(runs=5, min_seconds=0.0, warmup=1, max_seconds=5.0)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    found = tmp_path_factory.mktemp("files") / "int8.tflite"
    found.write_bytes(small_files.tflite("int8"))
    return found


@pytest.mark.parametrize(("xnnpack", "delegate"), [(True, "xnnpack"), (False, "builtin")])
def test_a_row_gets_every_number(path, xnnpack, delegate):
    found = host.measure(path, xnnpack=xnnpack, **QUICK)
    row = found.into(Result(id="C0", recipe="control", device="here", versions={"keras": "3"}, facts={"room": "cold"}))
    assert Result.from_json(row.to_json()) == row
    assert (row.runs, row.threads, row.delegate) == (5, 1, delegate)
    assert 0 < row.latency_min_us <= row.latency_p50_us <= row.latency_p95_us <= row.latency_max_us
    assert row.first_run_us > 0 and row.init_us > 0 and row.cpu_percent > 0
    assert 10e6 < row.facts["memory_before_load_bytes"] <= row.peak_memory_bytes < 300e6
    assert row.versions.keys() == {"keras", "ai-edge-litert", "numpy"} and row.facts["room"] == "cold"
    assert row.energy_joules is None
    assert len(row.model_sha256) == 64 and len(found.times_us) == 5


def test_runs_go_on_until_the_time_has_passed_and_not_beyond_the_limit(path):
    longer = host.measure(path, runs=1, min_seconds=0.2, warmup=0)
    assert longer.runs > 100
    shorter = host.measure(path, runs=10**9, min_seconds=0.0, max_seconds=0.2)
    assert 1 <= shorter.runs < 10**6


def test_the_warm_up_goes_on_until_its_time_has_passed(path):
    short = host.measure(path, runs=1, min_seconds=0.0, warmup=0)
    long = host.measure(path, runs=1, min_seconds=0.0, warmup=0, warmup_seconds=0.1)
    assert short.facts["warmup_runs"] == 0 and host.measure(path, **QUICK).facts["warmup_runs"] == 1
    assert long.facts["warmup_runs"] >= 5


def test_inputs_by_name_and_in_order(tmp_path):
    path = tmp_path / "two.tflite"
    path.write_bytes(small_files.two_inputs())
    left, right = np.zeros((1, 3)), np.zeros((1, 2))
    assert host.measure(path, inputs={"left": left, "right": right}, **QUICK).runs == 5
    with pytest.raises(ValueError, match="one array for each input"):
        host.measure(path, inputs={"left": left}, **QUICK)
    with pytest.raises(ValueError, match=r"Received: \(1, 9\)"):
        host.measure(path, inputs={"left": np.zeros((1, 9)), "right": right}, **QUICK)


def test_a_batch_of_another_size(path):
    assert host.measure(path, inputs=np.zeros((4, 8, 8, 3)), **QUICK).runs == 5


def test_wrong_files_are_a_clear_error(path, tmp_path):
    with pytest.raises(ValueError, match="check the path"):
        host.measure(tmp_path / "none.tflite")
    (tmp_path / "text.tflite").write_text("not a model")
    with pytest.raises(ValueError, match="TFL3"):
        host.measure(tmp_path / "text.tflite")
    (tmp_path / "cut.tflite").write_bytes(path.read_bytes()[:500])
    with pytest.raises(RuntimeError, match="can't run"):
        host.measure(tmp_path / "cut.tflite")
    with pytest.raises(ValueError, match="threads=0"):
        host.measure(path, threads=0)


def test_ctrl_c_that_reaches_the_child_is_no_fault_of_the_file(path, monkeypatch):
    """It does where it comes before the child has a session of its own."""

    class Hit(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.send_signal(signal.SIGINT)

    monkeypatch.setattr(child.subprocess, "Popen", Hit)
    with pytest.raises(child.Stopped):
        host.measure(path, **QUICK)


@pytest.mark.parametrize(
    ("code", "message"),
    [("import os; os.kill(os.getpid(), 11)", "SIGSEGV"), ("raise OSError('disk full')", "disk full")],
)
def test_a_crash_of_the_child_is_a_clear_error(path, monkeypatch, code, message):
    real = subprocess.Popen

    def crash(command, **options):
        return real([sys.executable, "-c", code], **options)

    monkeypatch.setattr(child.subprocess, "Popen", crash)
    with pytest.raises(RuntimeError, match=message):
        host.measure(path, **QUICK)


def test_android_bench_needs_neither_tensorflow_nor_tfcompress():
    code = "import android_bench.host, sys; print({'tensorflow', 'tfcompress', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_statistics():
    values = [10.0, 11.0, 9.0, 10.0, 12.0, 10.0, 90.0]
    assert percentile(values, 0) == 9 and percentile(values, 100) == 90
    assert summary(values)["p50"] == 10
    assert mad(values) == 1
    assert outliers(values).tolist() == [False] * 6 + [True]
    assert not outliers([5.0] * 9).any()
    assert outliers([5.0] * 9 + [50.0]).tolist() == [False] * 9 + [True]
    for wrong in ([], [float("nan")], [[1.0]]):
        with pytest.raises(ValueError):
            summary(wrong)
