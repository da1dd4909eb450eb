"""Seconds of the exact projection of many weights, beside the iterative scheme of the ADMM paper.

    python scripts/bench_projection.py [--millions 25]

Both project the same normal weights onto each code set, in turn, three times; medians. "excess" is how much larger the
squared error of the iterated one is (20 rounds from the mean magnitude). Rows: scripts/results/bench_projection.jsonl.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from android_bench.store import Store
from tfcompress.quantization.projection import nearest, project

SETS = ((1,), (0, 1), (0, 1, 2), (0, 1, 2, 4), (0, 1, 2, 4, 8))


def iterated(v, levels, rounds=20):
    """Nearest codes, best scale, and so on: Leng et al. 2018."""
    alpha = float(np.abs(v).mean())
    for _ in range(rounds):
        q = nearest(v, alpha, levels)
        alpha = float(np.vdot(v, q) / np.vdot(q, q))
    return alpha, nearest(v, alpha, levels)


def timed(function, *arguments):
    started = time.perf_counter()
    alpha, q = function(*arguments)
    seconds = time.perf_counter() - started
    return seconds, float(np.sum(np.square(arguments[0] - np.float32(alpha) * q), dtype="float64"))


def main(options) -> None:
    store = Store(Path(__file__).parent / "results" / "bench_projection.jsonl", key=("levels", "millions"))
    v = np.random.default_rng(0).standard_normal(int(options.millions * 1e6), dtype="float32")
    rows = [row for row in store.read() if row["millions"] != options.millions]
    for levels in SETS:
        turns = [(timed(project, v, levels), timed(iterated, v, levels)) for _ in range(3)]
        seconds, peer = (statistics.median(turn[i][0] for turn in turns) for i in (0, 1))
        excess = turns[0][1][1] / turns[0][0][1] - 1
        rows.append(dict(levels=str(levels), millions=options.millions, seconds=seconds, iterated_seconds=peer,
                         ratio=seconds / peer, excess=excess))  # fmt: skip
        print(f"{levels}: {seconds:.2f} s, iterated {peer:.2f} s with {excess:+.2%} error", flush=True)
    store.rewrite(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=25)
    main(parser.parse_args())
