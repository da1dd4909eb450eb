"""A budget of measured time: asked for half of the control's, what does the model that comes back take?

    python scripts/bench_latency_budget.py [--share 0.5]

The nets of the study's zoo with new weights (time depends on shapes alone), float32, one thread, XNNPACK. The result is
timed anew, beside the control, in more turns than the search used. Rows: scripts/results/bench_latency_budget.jsonl.
"""

import argparse
import json
import os
from pathlib import Path

import keras

import tfcompress as tc
from tfcompress import zoo

RESULTS = Path(__file__).parent / "results" / "bench_latency_budget.jsonl"
NETS = {
    "image_resnet, width 24": lambda: zoo.build("image_resnet", (28, 28, 1), 10, width=24),
    "image_mobilenet_v1": lambda: zoo.build("image_mobilenet_v1", (28, 28, 1), 10),
    "ecg_resnet": lambda: zoo.build("ecg_resnet", (187, 4), 4),
    "MobileNetV2 at 96": lambda: keras.applications.MobileNetV2(input_shape=(96, 96, 3), weights=None),
}


def row_of(name: str, share: float) -> dict:
    model = NETS[name]()
    result = tc.prune_filters(model, None, share, "latency_us", criterion="l2_norm", rounds=2,
                              fit=0)  # fmt: skip
    before, after = tc.payoff({"control": tc.convert(model), "small": tc.convert(result.model)}, turns=45)
    got = after.latency_p50_us / before.latency_p50_us
    return dict(net=name, asked=share, got=round(got, 3), off=round(got / share - 1, 3), load=os.getloadavg()[0],
                control_us=before.latency_p50_us, us=after.latency_p50_us, macs=round(after.macs / before.macs, 3))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.5)
    options = parser.parse_args()
    for net in NETS:
        line = json.dumps(row_of(net, options.share))
        print(line, flush=True)
        with RESULTS.open("a") as file:
            file.write(line + "\n")
