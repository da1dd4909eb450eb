"""Time of one training step: plain, pruned and quantization-aware models, ours beside TFMOT, on the same nets.

    python scripts/bench_training.py       # both tools take turns in one process, six fresh ones a net: 17 minutes

Milliseconds a step, medians: wall clock, and processor time of all threads, which other work on the computer disturbs
less. What a tool does inside each step is in it; a mask update, one step in a hundred, is not (the median drops it).
"rel" is processor time over that of the same tool's plain model. "ours / TFMOT" is wall clock: the median of
neighbouring turns in a process, then the mean of the processes and its standard error.
Rows: scripts/results/training_steps.jsonl, one a net and run.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "scripts" / "results" / "training_steps.jsonl"
BATCH = 64
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
    return keras, {
        "plain": (plain, []),
        "pruned": (pruned, [CompressionCallback(100)]),
        "aware": (quantize_aware(plain), []),
    }


def tfmot(net):
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras

    plain = NETS[net](keras)
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.8, 0, 10_000, frequency=100)
    pruned = tfmot.sparsity.keras.prune_low_magnitude(plain, schedule)
    return keras, {
        "plain": (plain, []),
        "pruned": (pruned, [tfmot.sparsity.keras.UpdatePruningStep()]),
        "aware": (tfmot.quantization.keras.quantize_model(plain), []),
    }


def clock(keras, times):
    """The first and the last callback: what a tool's own does in a step, between them, belongs to the step."""

    class Start(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            started[:] = time.perf_counter(), time.process_time()

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            wall, busy = started
            times.append((1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - busy)))

    started = []
    return Start(), Stop()


def measure(net, copies, rounds, steps):
    """One process: round by round, each copy of each model takes a turn of ``steps`` steps, ours beside TFMOT's.

    Returns ``{model: array (copy, round, tool, 2)}``: median wall clock and processor time of a turn's steps, ms.
    """
    os.environ.update(TF_USE_LEGACY_KERAS="1", TF_CPP_MIN_LOG_LEVEL="3")  # for TFMOT; ours imports keras, not tf.keras
    warnings.filterwarnings("ignore", message="Training stopped at")  # the schedules are longer than a turn
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * steps, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 10, len(x))
    pairs = {}
    for copy in range(copies):
        for place in random.sample((0, 1), 2):
            keras, models = (ours, tfmot)[place](net)
            for name, (model, callbacks) in models.items():
                model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
                times = []
                start, stop = clock(keras, times)
                model.fit(x, y, BATCH, verbose=0, callbacks=[start, *callbacks, stop])  # traces
                pairs.setdefault((name, copy), {})[place] = (model, [start, *callbacks, stop], times)
    found = {name: np.zeros((copies, rounds, 2, 2)) for name in MODELS}
    for turn in range(rounds):
        for name, copy in random.sample(list(pairs), len(pairs)):
            for place in random.sample((0, 1), 2):
                model, callbacks, times = pairs[name, copy][place]
                times.clear()
                model.fit(x, y, BATCH, verbose=0, callbacks=callbacks)
                found[name][copy, turn, place] = np.median(times, axis=0)
    return found


def fresh(*arguments):
    """What ``measure`` returns in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def row_of(net, processes, copies, rounds, steps):
    """The row of one net: both tools, and the ratio of ours to TFMOT's."""
    runs = [fresh(net, copies, rounds, steps) for _ in range(processes)]
    times = {name: np.stack([run[name] for run in runs]) for name in MODELS}  # process, copy, round, tool, 2
    row = {"net": net, "batch": BATCH, "processes": processes, "copies": copies, "rounds": rounds, "steps": steps}
    for place, tool in enumerate(("tfcompress", "tfmot")):
        row[tool] = {name: summary(times[name][..., place, :], times["plain"][..., place, :]) for name in MODELS}
    row["ours_over_tfmot"] = {name: ratio(times[name][..., 0]) for name in MODELS}
    return row | {"threads": os.cpu_count()}


def summary(times, plain):
    wall, busy = np.median(times, axis=(0, 1, 2))
    relative = np.median(times[..., 1] / plain[..., 1])
    return {"wall_ms": round(wall, 2), "cpu_ms": round(busy, 2), "relative": round(relative, 3)}


def ratio(wall):
    processes = np.median(wall[..., 0] / wall[..., 1], axis=(1, 2))
    error = processes.std(ddof=1) / len(processes) ** 0.5 if len(processes) > 1 else float("nan")
    return {"mean": round(processes.mean(), 3), "error": round(error, 3), "processes": processes.round(3).tolist()}


def line(first, cells):
    print(f"{first:22}" + "".join(f" | {cell:>21}" for cell in cells), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=6, help="fresh processes for each net")
    parser.add_argument("--copies", type=int, default=2, help="copies of each model in a process")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each copy")
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn")
    options = parser.parse_args()
    ROWS.parent.mkdir(exist_ok=True)
    line(f"ms a step of {BATCH}", [f"{name}: wall cpu rel" for name in MODELS])
    for net in NETS:
        row = row_of(net, options.processes, options.copies, options.rounds, options.steps)
        with ROWS.open("a") as file:
            file.write(json.dumps({**row, "run": time.strftime("%Y-%m-%dT%H:%M:%S")}) + "\n")
        for tool in ("tfcompress", "tfmot"):
            line(f"{net} {tool}", ["{wall_ms:.2f} {cpu_ms:.1f} {relative:.3f}".format(**row[tool][m]) for m in MODELS])
        line("ours / TFMOT", ["{mean:.3f} +- {error:.3f}".format(**found) for found in row["ours_over_tfmot"].values()])


if __name__ == "__main__":
    main()
