"""A run that sleeps instead of computing, for benchmarks of the harness: the log of a real one, nothing imported."""

import os
import time

from emulated_phone.benchmark_model.log import Stop, error, info, runtime
from emulated_phone.benchmark_model.runs import Stat


def sleep(flags, seconds: float) -> int:
    """Take that long, print plausible numbers of the runs asked for, return the exit code 0."""
    for line in flags.log(flags["verbose"]):
        info(line)
    try:
        size = os.path.getsize(flags["graph"])
    except OSError:
        error(f"Could not open '{flags['graph']}'.")
        raise Stop(f"Failed to load model {flags['graph']}") from None
    info(f"Loaded model {flags['graph']}")
    runtime("Created TensorFlow Lite XNNPACK delegate for CPU.")
    info(f"The input model file size (MB): {size / 1e6:g}")
    info("Initialized session in 1.03ms.")
    time.sleep(seconds)
    runs = [Stat([1000 + 7 * (k % 13) for k in range(flags[name])]) for name in ("warmup_runs", "num_runs")]
    for stat, least in zip(runs, ("warmup_min_secs", "min_secs"), strict=True):
        info(f"Running benchmark for at least {stat.count} iterations and at least {flags[least]:g} seconds but "
             f"terminate if exceeding {flags['max_secs']:g} seconds.")  # fmt: skip
        info(f"{stat}\n")
    first = runs[0].times[0] if runs[0].count else 0
    info(f"Inference timings in us: Init: 1030, First inference: {first}, Warmup (avg): {runs[0].mean:g}, "
         f"Inference (avg): {runs[1].mean:g}")  # fmt: skip
    info("Memory footprint delta from the start of the tool (MB): init=3.74609 overall=4.09766")
    return 0
