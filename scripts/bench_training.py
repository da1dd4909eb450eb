"""Time of one training step: plain, pruned and quantization-aware models, ours beside TFMOT, on the same nets.

    python scripts/bench_training.py       # one run, each tool in its own process, in turn; prints the table

Milliseconds a step: wall clock (best round's median) and processor time of all threads (median), which other work on
the computer disturbs less. "rel" is processor time over that of the same tool's plain model, the models taken in turn.
Rows: scripts/results/training_steps.jsonl, one a tool, net and run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "scripts" / "results" / "training_steps.jsonl"
BATCH, WARM_UP = 64, 8
MODELS = ("plain", "pruned", "aware")


def conv_net(keras):
    """Residual depthwise-separable net on 32 x 32 x 3, six blocks of 32 channels."""
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(32, 3, 2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for _ in range(6):
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(32, 1, use_bias=False)(y))
        x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def residual_net(keras):
    """ResNet on 32 x 32 x 3: three stages of two 3 x 3 convolutions, 16, 32 and 64 channels."""
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)))
    for filters in (16, 32, 64):
        y = layers.Conv2D(filters, 3, 2, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same", use_bias=False)(y))
        x = layers.BatchNormalization()(layers.Conv2D(filters, 1, 2, use_bias=False)(x))
        x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


NETS = {"separable": conv_net, "resnet": residual_net}


def ours(net):
    """``(keras, {name: (model, callbacks)})``"""
    sys.path.insert(0, str(ROOT))
    import keras

    from tfcompress import CompressionCallback, Polynomial, Prune, compress, quantize_aware
    plain = NETS[net](keras)
    pruned = compress(plain, Prune(Polynomial(0.8, 0, 10_000)))
    return keras, {"plain": (plain, []), "pruned": (pruned, [CompressionCallback(100)]),
                   "aware": (quantize_aware(plain), [])}


def tfmot(net):
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras
    plain = NETS[net](keras)
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, 0, 10_000, frequency=100)
    pruned = tfmot.sparsity.keras.prune_low_magnitude(plain, schedule)
    return keras, {"plain": (plain, []), "pruned": (pruned, [tfmot.sparsity.keras.UpdatePruningStep()]),
                   "aware": (tfmot.quantization.keras.quantize_model(plain), [])}


def child(tool, net, rounds, steps):
    """Print the row of one tool: step times in milliseconds, models taken in turn."""
    import numpy as np
    keras, models = {"tfcompress": ours, "tfmot": tfmot}[tool](net)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * steps, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 10, len(x))

    class Clock(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.start = time.perf_counter(), time.process_time()

        def on_train_batch_end(self, batch, logs=None):
            wall, busy = self.start
            times.append((1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - busy)))

    medians = {name: [] for name in models}
    for model, callbacks in models.values():
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        times = []
        model.fit(x[:BATCH * WARM_UP], y[:BATCH * WARM_UP], BATCH, verbose=0, callbacks=[Clock(), *callbacks])
    for _ in range(rounds):
        for name, (model, callbacks) in models.items():
            times = []
            model.fit(x, y, BATCH, verbose=0, callbacks=[Clock(), *callbacks])
            medians[name].append([statistics.median(t) for t in zip(*times, strict=True)])
    row = {"tool": tool, "net": net, "batch": BATCH, "rounds": rounds, "steps": steps, "threads": os.cpu_count()}
    for name, values in medians.items():
        ratios = [a[1] / b[1] for a, b in zip(values, medians["plain"], strict=True)]
        row[name] = {"wall_ms": round(min(v[0] for v in values), 2),
                     "cpu_ms": round(statistics.median(v[1] for v in values), 2),
                     "relative": round(statistics.median(ratios), 3)}
    print(json.dumps(row))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    ROWS.parent.mkdir(exist_ok=True)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    print(f"{'net':10} {'tool':11}" + "".join(f" | {name:6} wall    cpu    rel" for name in MODELS)
          + f"   (ms a step of {BATCH})")
    for net in NETS:
        for tool in ("tfcompress", "tfmot"):
            command = [sys.executable, __file__, tool, net, str(options.rounds), str(options.steps)]
            result = subprocess.run(command, env=environment, capture_output=True, text=True)
            if result.returncode:
                raise SystemExit(f"{tool} failed:\n{result.stderr[-3000:]}")
            row = json.loads(result.stdout.splitlines()[-1])
            with ROWS.open("a") as file:
                file.write(json.dumps({**row, "run": time.strftime("%Y-%m-%dT%H:%M:%S")}) + "\n")
            print(f"{net:10} {tool:11}" + "".join(
                f" | {row[name]['wall_ms']:11.2f} {row[name]['cpu_ms']:6.1f} {row[name]['relative']:6.3f}"
                for name in MODELS), flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1] in ("tfcompress", "tfmot"):
        child(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
