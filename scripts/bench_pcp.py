"""Seconds of principal component pursuit with the randomised SVD inside, beside a full SVD in every iteration.

    python scripts/bench_pcp.py [--side 1000] [--rank 20] [--share 0.05] [--turns 1]

Both split the same square matrix, Gaussian factors plus +-1 on a share of its entries, in turn; medians. Errors are
against what was planted. Exits with 1 if ours is slower. Rows: scripts/results/bench_pcp.jsonl.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from android_bench.store import Store
from tfcompress.lowrank.robust_pca import principal_component_pursuit


def planted(side, rank, share):
    rng = np.random.default_rng(0)
    low = rng.standard_normal((side, rank)) @ rng.standard_normal((rank, side))
    return low, np.where(rng.random((side, side)) < share, rng.choice([-1.0, 1.0], (side, side)), 0)


def timed(low, sparse, svd):
    """Seconds, the parts, and their relative errors."""
    started = time.perf_counter()
    parts = principal_component_pursuit(low + sparse, svd=svd)
    seconds = time.perf_counter() - started
    pairs = ((parts.low_rank, low), (parts.sparse, sparse))
    return seconds, parts, [float(np.linalg.norm(found - true) / np.linalg.norm(true)) for found, true in pairs]


def main(options) -> None:
    low, sparse = planted(options.side, options.rank, options.share)
    turns = [[timed(low, sparse, svd) for svd in ("randomized", "full")] for _ in range(options.turns)]
    row = dict(side=options.side, rank=options.rank, share=options.share)
    for i, name in enumerate(("ours", "full")):
        _, parts, errors = turns[0][i]
        row |= {f"{name}_seconds": statistics.median(turn[i][0] for turn in turns), f"{name}_found_rank": parts.rank,
                f"{name}_iterations": parts.iterations, f"{name}_low_error": errors[0],
                f"{name}_sparse_error": errors[1]}  # fmt: skip
        print(f"{name}: {row[f'{name}_seconds']:.2f} s, {parts.iterations} iterations, rank {parts.rank}, "
              f"errors {errors[0]:.1e} (low rank), {errors[1]:.1e} (sparse)", flush=True)
    row["ratio"] = row["ours_seconds"] / row["full_seconds"]
    print(f"ours takes {row['ratio']:.3f} of the full SVD's time")
    store = Store(Path(__file__).parent / "results" / "bench_pcp.jsonl", key=("side", "rank", "share"))
    store.rewrite([*(old for old in store.read() if store.key_of(old) != store.key_of(row)), row])
    sys.exit(row["ratio"] > 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("side", 1000), ("rank", 20), ("share", 0.05), ("turns", 1)):
        parser.add_argument(f"--{name}", type=type(value), default=value)
    main(parser.parse_args())
