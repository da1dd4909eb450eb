"""Several `.tflite` files timed beside each other on this computer: in one child process, in short turns.

A computer's clock and its neighbours change by the second, and a process keeps what it met: timed one after the other
in processes of their own, a file seems up to twice as slow as itself. In turns of some milliseconds all files meet
the same computer, and the ratio of two times is good to a percent or two.
"""

import statistics
import time
from pathlib import Path

import numpy as np

from android_bench import child
from android_bench.host import feeds_for

_LEAST_TURNS = 3


def latencies(paths, *, seconds: float = 0.3, turns: int = 15, max_seconds: float = 10.0) -> list[float]:
    """Time of one run of each file in us, one thread, XNNPACK, random inputs in a batch of one.

    The first file's is the median of its turns' medians; another's is that, times the median over the turns of its
    ratio to the first: a turn in which the computer was slow was slow for both.

    Args:
        paths: of the files; all are in memory at once.
        seconds: that each file runs, in all turns together.
        turns: each file runs at least twice in each; slow files stop after three turns and `max_seconds` a file.

    Raises:
        ValueError: a file whose inputs can't be made up.
        RuntimeError: a file that LiteRT refuses or dies of: it is named.
    """
    job = dict(paths=[str(Path(path).resolve()) for path in paths], seconds=seconds, turns=turns,
               max_seconds=max_seconds)  # fmt: skip
    job["path"] = ", ".join(job["paths"])
    try:
        found = child.in_child("side_by_side", job, {}, timeout=120 + 8 * max_seconds * len(paths))[0]
    except RuntimeError:
        for path in paths if len(paths) > 1 else ():  # the one that can't run has the error to itself
            latencies([path], seconds=0.0, turns=1)
        raise
    return [nanoseconds / 1e3 for nanoseconds in found["times_ns"]]


def in_turns(runs, *, seconds: float, turns: int, max_seconds: float, clock=time.perf_counter_ns) -> list[float]:
    """Time of each of the functions `runs` in the clock's ns, as `latencies` tells it of files."""
    found, end = [], clock() + len(runs) * max_seconds * 1e9
    while len(found) < turns and (len(found) < _LEAST_TURNS or clock() < end):
        found.append([_median(run, seconds * 1e9 / turns, clock) for run in runs])
    times = np.array(found)
    return (np.median(times[:, 0]) * np.median(times / times[:, :1], axis=0)).tolist()


def _median(run, share: float, clock) -> float:
    run()  # its weights are back in the caches
    times, end = [], clock() + share
    while not times or clock() < end:
        start = clock()
        run()
        times.append(clock() - start)
    return statistics.median(times)


def work(folder: str) -> None:
    """The child's part of `latencies`."""
    child.serve(folder, _timed)


def _timed(job: dict, arrays: dict[str, np.ndarray]) -> dict:
    from ai_edge_litert.interpreter import Interpreter

    loaded = [Interpreter(path, num_threads=1) for path in job["paths"]]
    for interpreter in loaded:
        details = interpreter.get_input_details()
        interpreter.allocate_tensors()
        for detail, feed in zip(details, feeds_for(details, arrays), strict=True):
            interpreter.set_tensor(detail["index"], feed)
        interpreter.invoke()
    options = {name: job[name] for name in ("seconds", "turns", "max_seconds")}
    return {"times_ns": in_turns([interpreter.invoke for interpreter in loaded], **options)}
