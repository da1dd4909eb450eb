"""Time and memory of following and shrinking large models: half of the channels of keras.applications nets go.

    python scripts/bench_shrink.py [--models ResNet50,InceptionResNetV2]

Each model is a child process with two threads. It is run once before the clock starts, as its user has done; what the
resident set grows from there to its peak is given as a multiple of the model's float32 weights. Rows:
scripts/results/bench_shrink.jsonl.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "bench_shrink.jsonl"


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Peak(threading.Thread):
    """The largest resident set while it runs, looked at every 5 ms."""

    def __init__(self):
        super().__init__(daemon=True)
        self.bytes, self.going = resident(), True

    def run(self):
        while self.going:
            self.bytes = max(self.bytes, resident())
            time.sleep(0.005)


def child(name: str) -> None:
    import keras
    import numpy as np

    from tfcompress.pruning.channels import Channels
    from tfcompress.pruning.labels import FIXED
    from tfcompress.pruning.shrink import check_copy, remove

    model = getattr(keras.applications, name)(weights=None)
    model(np.zeros((2, *model.input_shape[1:]), "float32"))
    weights, before, peak = 4 * model.count_params(), resident(), Peak()
    peak.start()
    begin = time.perf_counter()
    channels = Channels(model)
    check_copy(model, channels)
    roots = np.unique(channels.roots(np.arange(channels.count)))
    followed = time.perf_counter() - begin
    free = roots[roots != FIXED]
    small = remove(channels, free[np.random.default_rng(0).random(len(free)) < 0.5])
    seconds, peak.going = time.perf_counter() - begin, False
    macs = Channels(small).macs(np.ones(Channels(small).count, bool)) / channels.macs(np.ones(channels.count, bool))
    print(json.dumps(dict(model=name, graph_seconds=round(followed, 1), seconds=round(seconds, 1),
                          weights_mb=round(weights / 1e6), growth_mb=round((peak.bytes - before) / 1e6),
                          growth_in_weights=round((peak.bytes - before) / weights, 2), macs_kept=round(macs, 3),
                          parameters=model.count_params(), parameters_kept=small.count_params())))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="ResNet50,InceptionResNetV2")
    parser.add_argument("--child")
    options = parser.parse_args()
    if options.child:
        child(options.child)
        sys.exit()
    for name in options.models.split(","):
        command = [sys.executable, __file__, "--child", name]
        line = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        print(line, flush=True)
        with RESULTS.open("a") as file:
            file.write(line + "\n")
