"""Bytes and time of one CNN and one fully connected net in every way to store their low-bit weights.

    python scripts/bench_lowbit_latency.py            # resumes; rows in scripts/results/bench_lowbit_latency.jsonl
    python scripts/bench_lowbit_latency.py --fresh --rounds 5

The weights are planted, not trained: time does not depend on their values. "ternary" has one scale a channel, "trained
ternary" two (its negative one differs), "2-bit least squares" four levels a channel. Every file is made by
``tfcompress.convert``; the exact files of one width are its candidates of that width. Rounds go over all files in turn.
"""

import argparse
import os
import statistics
import tempfile
import warnings
from pathlib import Path

from android_bench.store import Store

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
RESULTS, KEY = Path(__file__).parent / "results" / "bench_lowbit_latency.jsonl", ("net", "levels", "file", "round")
PLAIN = ("float32", "float16", "dynamic", "int8")
NETS = ("cnn", "fc")
LEVELS = ("ternary", "trained ternary", "2-bit least squares")


def build(net):
    import keras

    layers, keras_input = keras.layers, keras.Input
    if net == "fc":  # 1.9 million weights
        sizes = [layers.Dense(1024, activation="relu"), layers.Dense(1024, activation="relu"), layers.Dense(10)]
        return keras.Sequential([keras_input((784,)), *sizes], name=net)
    parts = []
    for filters in (32, 64, 128):  # 0.29 million weights, 26 million multiplications
        parts += [layers.Conv2D(filters, 3, padding="same", use_bias=False), layers.BatchNormalization(), layers.ReLU()]
        parts += [layers.DepthwiseConv2D(3, padding="same"), layers.Conv2D(filters, 3, padding="same", strides=2)]
    return keras.Sequential([keras_input((32, 32, 3)), *parts, layers.Flatten(), layers.Dense(10)], name=net)


def plant(model, levels):
    """Low-bit kernels of a sensible size, the same ones every time."""
    import numpy as np

    rng = np.random.default_rng(0)
    for layer in model.layers:
        if not hasattr(layer, "kernel"):
            continue
        shape = layer.kernel.shape
        channels = (1, 1, shape[2], 1) if "depthwise" in layer.name else (1,) * (len(shape) - 1) + (shape[-1],)
        first, second = (rng.uniform(0.9, 1.1, channels) / np.sqrt(np.prod(shape) / channels[-1]) for _ in "12")
        sign, other = (rng.choice([-1, 1], shape) for _ in "12")
        kernel = {
            "ternary": rng.integers(-1, 2, shape) * first,
            "trained ternary": rng.integers(0, 2, shape) * np.where(sign > 0, first, -second),
            "2-bit least squares": sign * first + other * 0.4 * second,
        }[levels]
        layer.kernel.assign(kernel)
    return model


def files(net):
    """``{(levels, form): TFLiteModel's bytes}`` of one net."""
    import numpy as np

    from tfcompress.convert import convert_all

    warnings.simplefilter("ignore")
    made = {}
    for levels in LEVELS:
        model = plant(build(net), levels)
        x = np.random.default_rng(1).standard_normal((100, *model.input_shape[1:])).astype("float32")
        wanted = (*PLAIN, "exact", "exact8") if levels == "ternary" else ("float32", "exact")
        found = convert_all(model, wanted, x)
        for precision, file in found.items():
            if precision != "float32" or levels == "ternary":
                made[levels, precision] = file.content, file.gate.agreement[0]
        if levels == "ternary":
            made[levels, "exact, int4"] = _of_width(found["float32"].content, 4), None
    return made


def _of_width(content, bits):
    """The exact file whose codes have no fewer than ``bits`` bits."""
    from tfcompress.conversion import exact
    from tfcompress.conversion.file import read, write

    chosen = {}
    for buffer, (_, forms) in exact.choices(content).items():
        wide = [form for form in forms if getattr(form, "bits", 0) >= bits]
        chosen |= {buffer: wide[0]} if wide else {}
    model = read(content)
    exact.store(model, chosen)
    return write(model)


def measure(net, rounds, folder):
    import gzip

    from android_bench import host

    store = Store(RESULTS, key=KEY)
    if all((net, "ternary", "exact", number) in store for number in range(rounds)):
        return
    made = files(net)
    for number in range(rounds):
        for (levels, name), (content, agreement) in made.items():
            if (net, levels, name, number) in store:
                continue
            path = folder / "file.tflite"
            path.write_bytes(content)
            row = {"net": net, "levels": levels, "file": name, "round": number, "bytes": len(content)}
            row["gzip_bytes"] = len(gzip.compress(content, 9))
            if agreement:
                row |= {"max_difference": agreement.max_difference, "unit": agreement.unit}
            for kernels, xnnpack in (("xnnpack", True), ("builtin", False)):
                seen = host.measure(path, xnnpack=xnnpack, min_seconds=0.5, max_seconds=10)
                row[f"{kernels}_p50_us"], row[f"{kernels}_min_us"] = seen.latency_p50_us, seen.latency_min_us
                row[f"{kernels}_init_us"], row[f"{kernels}_memory_bytes"] = seen.init_us, seen.peak_memory_bytes
            row |= {"cpu": seen.facts["cpu"], "load": os.getloadavg()[0], "versions": seen.versions}
            store.append(row)
            print(f"{net} {levels}, {name}, round {number + 1}: {row['xnnpack_p50_us']:.0f} us", flush=True)


def show():
    rows = Store(RESULTS, key=KEY).read()
    print("Median over the rounds of each round's median, one thread; ratio to float32 with the same kernels.\n")
    for net in NETS:
        mine = [row for row in rows if row["net"] == net]
        if not mine:
            continue
        print(f"| {net} weights | file | bytes | gzip | XNNPACK us | x | built-in us | x | off by |")
        print("|---|---|---|---|---|---|---|---|---|")
        base = [row for row in mine if row["file"] == "float32"]
        for key in dict.fromkeys((row["levels"], row["file"]) for row in mine):
            same = [row for row in mine if (row["levels"], row["file"]) == key]
            cells = []
            for kernels in ("xnnpack_p50_us", "builtin_p50_us"):
                mid, whole = (statistics.median(row[kernels] for row in part) for part in (same, base))
                cells += [f"{mid:,.0f}", f"{mid / whole:.2f}"]
            off = f"{same[0]['max_difference']:.1e} {same[0]['unit']}" if "unit" in same[0] else "-"
            sizes = [f"{same[0]['bytes']:,}", f"{same[0]['gzip_bytes']:,}"]
            print(f"| {' | '.join([*key, *sizes, *cells, off])} |")
        print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fresh", action="store_true", help="forget earlier rows")
    options = parser.parse_args()
    if options.fresh:
        RESULTS.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as name:
        for net in NETS:
            measure(net, options.rounds, Path(name))
    show()


if __name__ == "__main__":
    main()
