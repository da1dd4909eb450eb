"""Time of one training step: plain, pruned and quantization-aware models, ours beside TFMOT, on the same nets.

    python scripts/bench_training.py       # a process for each tool, in turn round by round; prints the table

Milliseconds a step, medians over the rounds: wall clock, and processor time of all threads, which other work on the
computer disturbs less. What a tool's callback does after each step is in it; a mask update, one step in a hundred, is
not (the median of a round drops it). "rel" is processor time over that of the same tool's plain model. "ours / TFMOT":
wall clock of neighbouring rounds, the median ratio of all, and the least and greatest of the fresh pairs of processes.
Rows: scripts/results/training_steps.jsonl, one a net and run.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
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
    return keras, {
        "plain": (plain, []),
        "pruned": (pruned, [CompressionCallback(100)]),
        "aware": (quantize_aware(plain), []),
    }


def tfmot(net):
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
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


def child(tool, net, steps):
    """Print "ready", then a round for each line of stdin: `{model: [wall ms, processor ms]}`, medians of its steps."""
    import numpy as np

    keras, models = {"tfcompress": ours, "tfmot": tfmot}[tool](net)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * steps, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 10, len(x))

    class Start(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            started[:] = time.perf_counter(), time.process_time()

    class Stop(keras.callbacks.Callback):  # the last one: what a tool's callback does in a step belongs to the step
        def on_train_batch_end(self, batch, logs=None):
            wall, busy = started
            times.append((1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - busy)))

    started = []
    for model, callbacks in models.values():
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        times = []
        model.fit(x[: BATCH * WARM_UP], y[: BATCH * WARM_UP], BATCH, verbose=0, callbacks=[Start(), *callbacks, Stop()])
    print("ready", flush=True)
    for _ in sys.stdin:
        answer = {}
        for name, (model, callbacks) in models.items():
            times = []
            model.fit(x, y, BATCH, verbose=0, callbacks=[Start(), *callbacks, Stop()])
            answer[name] = [statistics.median(t) for t in zip(*times, strict=True)]
        print(json.dumps(answer), flush=True)


class Tool:
    """One tool in its own process, which works only when it is asked for a round."""

    def __init__(self, name, net, steps):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment.pop("TF_USE_LEGACY_KERAS", None)
        self.name, self.errors = name, tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, __file__, name, net, str(steps)], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)  # fmt: skip
        self.answer("ready")

    def answer(self, start):
        for line in self.process.stdout:
            if line.startswith(start):
                return line
        self.errors.seek(0)
        raise SystemExit(f"{self.name} failed:\n{self.errors.read()[-3000:]}")

    def round(self):
        with contextlib.suppress(BrokenPipeError):  # `answer` says what its last words were
            print(file=self.process.stdin, flush=True)
        return json.loads(self.answer("{"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate()
        self.errors.close()


def turns(net, rounds, steps):
    """Answers of both tools, a pair of fresh processes: `[(ours, TFMOT's), ...]`, one pair a round."""
    pairs = []
    with Tool("tfcompress", net, steps) as ours, Tool("tfmot", net, steps) as theirs:
        for turn in range(rounds):
            if turn % 2:
                pairs.append((ours.round(), theirs.round()))
            else:
                pairs.append((theirs.round(), ours.round())[::-1])
    return pairs


def measure(net, processes, rounds, steps):
    """The row of one net: both tools, and the ratio of their neighbouring rounds."""
    runs = [turns(net, rounds, steps) for _ in range(processes)]
    row = {"net": net, "batch": BATCH, "processes": processes, "rounds": rounds, "steps": steps}
    for place, tool in enumerate(("tfcompress", "tfmot")):
        answers = [pair[place] for pairs in runs for pair in pairs]
        row[tool] = {name: summary(answers, name) for name in MODELS}
    for name in MODELS:
        ratios = [[mine[name][0] / theirs[name][0] for mine, theirs in pairs] for pairs in runs]
        medians = [round(statistics.median(values), 3) for values in (sum(ratios, []), *ratios)]
        row.setdefault("ours_over_tfmot", {})[name] = {"all": medians[0], "processes": medians[1:]}
    return row | {"threads": os.cpu_count()}


def summary(answers, name):
    return {
        "wall_ms": round(statistics.median(answer[name][0] for answer in answers), 2),
        "cpu_ms": round(statistics.median(answer[name][1] for answer in answers), 2),
        "relative": round(statistics.median(answer[name][1] / answer["plain"][1] for answer in answers), 3),
    }


def line(first, cells):
    print(f"{first:22}" + "".join(f" | {cell:>21}" for cell in cells), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=4, help="fresh pairs of processes")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each pair")
    parser.add_argument("--steps", type=int, default=10, help="steps of a round, for each of the three models")
    options = parser.parse_args()
    ROWS.parent.mkdir(exist_ok=True)
    line(f"ms a step of {BATCH}", [f"{name}: wall cpu rel" for name in MODELS])
    for net in NETS:
        row = measure(net, options.processes, options.rounds, options.steps)
        with ROWS.open("a") as file:
            file.write(json.dumps({**row, "run": time.strftime("%Y-%m-%dT%H:%M:%S")}) + "\n")
        for tool in ("tfcompress", "tfmot"):
            line(f"{net} {tool}", ["{wall_ms:.2f} {cpu_ms:.1f} {relative:.3f}".format(**row[tool][m]) for m in MODELS])
        ratios = row["ours_over_tfmot"].values()
        spread = [(min(ratio["processes"]), max(ratio["processes"])) for ratio in ratios]
        line("ours / TFMOT", [f"{r['all']:.3f} ({a:.3f}-{b:.3f})" for r, (a, b) in zip(ratios, spread, strict=True)])


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in ("tfcompress", "tfmot"):
        child(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main()
