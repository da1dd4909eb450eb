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
_MOST_BYTES = 2**28  # of files in one process; XNNPACK packs a second copy of the weights


def latencies(paths, *, turns: int = 15, seconds: float = 0.02, max_seconds: float = 10.0) -> list[float]:
    """Time of one run of each file in us, one thread, XNNPACK, random inputs in a batch of one.

    The first file's is the median of its turns' medians; another's is that, times the median over the turns of its
    ratio to the first: a turn in which the computer was slow was slow for both. Large files take turns in several
    processes, the first file in each.

    Args:
        paths: of the files.
        turns: in each turn every file runs at least twice.
        seconds: that each file runs in a turn.
        max_seconds: slow files stop after three turns and so many seconds a file.

    Raises:
        ValueError: a file whose inputs can't be made up, no turns.
        RuntimeError: a file that LiteRT refuses or dies of: it is named.
    """
    if turns < 1:
        raise ValueError(f"Files take one turn or more. Received: {turns=}.")
    paths = [Path(path).resolve() for path in paths]
    options = dict(turns=turns, seconds=seconds, max_seconds=max_seconds)
    if len(paths) > 2 and sum(path.stat().st_size for path in paths) > _MOST_BYTES:
        half = (len(paths) + 1) // 2
        first, *some = latencies(paths[:half], **options)
        again, *others = latencies([paths[0], *paths[half:]], **options)
        return [first, *some, *(first * other / again for other in others)]
    job = dict(paths=[str(path) for path in paths], path=", ".join(map(str, paths)), **options)
    try:
        found = child.in_child("side_by_side", job, {}, timeout=120 + 8 * max_seconds * len(paths))[0]
    except RuntimeError:
        for path in paths if len(paths) > 1 else ():  # the one that can't run has the error to itself
            latencies([path], turns=1, seconds=0.0)
        raise
    return [nanoseconds / 1e3 for nanoseconds in found["times_ns"]]


def in_turns(runs, *, turns: int, seconds: float, max_seconds: float, clock=time.perf_counter_ns) -> list[float]:
    """Time of each of the functions `runs` in the clock's ns, as `latencies` tells it of files."""
    found, end = [], clock() + len(runs) * max_seconds * 1e9
    while len(found) < turns and (len(found) < _LEAST_TURNS or clock() < end):
        found.append([_median(run, seconds * 1e9, clock) for run in runs])
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
    options = {name: job[name] for name in ("turns", "seconds", "max_seconds")}
    return {"times_ns": in_turns([interpreter.invoke for interpreter in loaded], **options)}
