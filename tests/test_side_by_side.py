"""Files timed in turns: ratios that a slower computer does not change, one child process, clear errors."""

import pytest
import small_files

from android_bench import side_by_side


class Computer:
    """A clock that only work moves on; from `slow_from` on, everything takes `slower` times as long."""

    def __init__(self, slow_from, slower=3):
        self.now, self.slow_from, self.slower = 0, slow_from, slower

    def clock(self):
        return self.now

    def job(self, nanoseconds):
        def run():
            self.now += nanoseconds * (self.slower if self.now >= self.slow_from else 1)

        return run


@pytest.mark.parametrize("slow_from, first", [(0, 3000), (1_000_000, 3000), (150_000_000, 1000), (10**9, 1000)])
def test_a_computer_that_gets_slower_does_not_change_the_ratio(slow_from, first):
    computer = Computer(slow_from)
    jobs = [computer.job(1000), computer.job(2500)]
    assert side_by_side.in_turns(jobs, turns=9, seconds=0.01, max_seconds=1.0, clock=computer.clock) == [
        first, 2.5 * first]


def test_a_median_of_either_file_alone_would_be_of_two_computers():
    """Slower from between the two in the fifth of nine turns: their own medians are 1000 and 7500."""
    computer = Computer(4 * 20_003_500 + 10_001_000)
    jobs = [computer.job(1000), computer.job(2500)]
    found = side_by_side.in_turns(jobs, turns=9, seconds=0.01, max_seconds=1.0, clock=computer.clock)
    assert found == [1000, 2500]


def test_slow_files_stop_after_three_turns():
    for max_seconds, turns in ((1.0, 3), (10.0, 5)):
        computer = Computer(10**18)
        jobs = [computer.job(10**9), computer.job(10**9)]
        options = dict(turns=15, seconds=0.02, max_seconds=max_seconds, clock=computer.clock)
        assert side_by_side.in_turns(jobs, **options) == [1e9, 1e9]
        assert computer.now == turns * 2 * 2e9  # each once to warm up and once by the clock


def test_files_are_timed_in_one_child_and_the_one_that_cant_run_is_named(tmp_path, monkeypatch):
    paths = [tmp_path / f"{name}.tflite" for name in ("float32", "int8", "two", "cut")]
    for path, content in zip(paths, (small_files.tflite("float32"), small_files.tflite("int8"),
                                     small_files.two_inputs(), small_files.tflite("int8")[:500]), strict=True):
        path.write_bytes(content)
    jobs, real = [], side_by_side.child.in_child
    monkeypatch.setattr(side_by_side.child, "in_child", lambda module, job, *rest, **more: (
        jobs.append(job), real(module, job, *rest, **more))[1])
    found = side_by_side.latencies(paths[:3], turns=3, seconds=0.01)
    assert len(found) == 3 and min(found) > 0 and len(jobs) == 1
    with pytest.raises(RuntimeError, match="can't run [^,]*cut.tflite: "):
        side_by_side.latencies(paths, turns=3, seconds=0.01)
    with pytest.raises(ValueError, match="turns=0"):
        side_by_side.latencies(paths, turns=0)


def test_large_files_take_turns_in_several_processes_each_beside_the_first(tmp_path, monkeypatch):
    paths, jobs = [tmp_path / f"{size}.tflite" for size in (100, 50, 25)], []
    for path in paths:
        path.write_bytes(b"x" * int(path.stem))

    def child(module, job, *rest, **more):
        jobs.append([side_by_side.Path(path).stem for path in job["paths"]])
        return {"times_ns": [len(jobs) * 1000 * int(name) for name in jobs[-1]]}, {}

    monkeypatch.setattr(side_by_side, "_MOST_BYTES", 170)
    monkeypatch.setattr(side_by_side.child, "in_child", child)
    assert side_by_side.latencies(paths) == [100, 50, 25] and jobs == [["100", "50"], ["100", "25"]]
