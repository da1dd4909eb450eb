"""Time and memory of `factorize` on a large model: half of the multiplications of a keras.applications net.

    python scripts/bench_factorize.py [--models ResNet50] [--target 0.5]

Each model is a child process, like those of bench_shrink.py: run once before the clock starts, what the resident set
grows from there to its peak told as a multiple of the float32 weights. Held to: ResNet50 at 224 in 60 seconds. Rows:
scripts/results/bench_factorize.jsonl.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from bench_shrink import Peak, resident

RESULTS = Path(__file__).parent / "results" / "bench_factorize.jsonl"
SECONDS = 60


def child(name: str, target: float) -> None:
    import keras
    import numpy as np

    from tfcompress import factorize

    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None)
    model(np.zeros((2, *model.input_shape[1:]), "float32"))
    weights, before, peak = 4 * model.count_params(), resident(), Peak()
    peak.start()
    begin = time.perf_counter()
    found = factorize(model, target)
    seconds, peak.going = time.perf_counter() - begin, False
    print(json.dumps(dict(model=name, target=target, seconds=round(seconds, 1), held=seconds <= SECONDS,
                          weights_mb=round(weights / 1e6), growth_mb=round((peak.bytes - before) / 1e6),
                          growth_in_weights=round((peak.bytes - before) / weights, 2), macs_before=found.macs_before,
                          macs=found.macs, parameters_before=found.parameters_before, parameters=found.parameters,
                          kinds=Counter(layer.kind or "whole" for layer in found.layers))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="ResNet50")
    parser.add_argument("--target", type=float, default=0.5)
    parser.add_argument("--child")
    options = parser.parse_args()
    if options.child:
        child(options.child, options.target)
        sys.exit()
    for name in options.models.split(","):
        command = [sys.executable, __file__, "--child", name, "--target", str(options.target)]
        line = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
        print(line, flush=True)
        with RESULTS.open("a") as file:
            file.write(line + "\n")
