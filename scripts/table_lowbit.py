"""Every low-bit method on real data: points lost against the float control, on the `.tflite` files.

    [TFCOMPRESS_DATA=...] python scripts/table_lowbit.py [--nets image_resnet,ecg_cnn] [--subset 6000]
        [--seeds 0] [--widths 1,ternary,2,3,4] [--methods all|best|ternary,admm]

A control is trained once for each net and seed, on all training data. Each method then trains the kernels of a copy,
but the first and the last layer's, from the control and taught by it: on `--subset` samples, or on all (0). The float32
file of what `strip` leaves is judged on the whole test set; bytes are of the exact file, which holds the same weights
as codes (`convert(model, "exact")`), and of that one packed (`pack`). Methods are picked by the validation set:
`--methods best` takes those that did best on the subset, one a width, and ADMM. Rows: table_lowbit.jsonl, table:
table_lowbit.md in scripts/results, models: runs/table_lowbit. Stopped or killed, the same command goes on.
"""

import argparse
import math
import re
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from controls import control_of
from table_lowbit_rows import best_methods, line, write_tables

import tfcompress as tc
from android_bench.store import Store
from tfcompress import datasets, measure, training
from tfcompress.pack import packing
from tfcompress.recipes import RECIPES

RESULTS, RUNS = Path(__file__).parent / "results", Path("runs/table_lowbit")
CLOTHES = RECIPES["fashion_mnist"]
# rules: regular expressions on the layers that are quantized: all but the first convolution and the classifier
NETS = {
    "image_resnet": dict(data="fashion_mnist", options={"width": 16}, control=CLOTHES, taught=(4.0, 0.9),
                         tune=replace(CLOTHES, epochs=4), few=6, rules=r"conv2d_\d+"),
    "ecg_cnn": dict(data="ecg", options={}, control=RECIPES["ecg_cnn"], taught=(1.0, 1.0),
                    tune=RECIPES["ecg_cnn_tune"], few=16, rules=r"conv1d_\d+|dense"),
}  # fmt: skip
SHARE = 0.7  # of the steps, in which ADMM, temperatures and codebooks settle; then scales, biases and norms are tuned


def methods(width: str, steps: int) -> dict[str, tc.Method]:
    """``{name: Method}`` of a bit width."""
    end = int(SHARE * steps)

    def network(*levels):
        return tc.QuantizationNetwork(tc.Linear(200.0, begin=0, end=end, initial=5.0), levels)

    def admm(*levels):
        return tc.ADMM(levels, end=end, scales="channel", rounds=min(20, max(8, end // 25)))

    return {
        "1": {"binary": tc.Binary(), "admm": admm(1), "network": network(-1, 1), "cluster": tc.Cluster(2, end)},
        "ternary": {
            "ternary": tc.Ternary(), "trained_ternary": tc.TrainedTernary(0.15, "channel"),
            "least_squares": tc.LeastSquares("ternary"), "admm": admm(0, 1), "network": network(-1, 0, 1),
            "cluster": tc.Cluster(3, end), "adaptive_float": tc.AdaptiveFloat(1, 0),
        },
        "2": {"least_squares": tc.LeastSquares(2), "network": network(-2, -1, 1, 2), "cluster": tc.Cluster(4, end)},
        "3": {
            "uniform": tc.Uniform(3), "least_squares": tc.LeastSquares(3), "admm": admm(0, 1, 2, 4),
            "admm_5_levels": admm(0, 1, 2), "network": network(-4, -2, -1, 0, 1, 2, 4),
            "cluster": tc.Cluster(8, end), "adaptive_float": tc.AdaptiveFloat(2, 0),
        },
        "4": {
            "uniform": tc.Uniform(4), "least_squares": tc.LeastSquares(4), "admm": admm(0, 1, 2, 4, 8),
            "network": network(-8, -4, -2, -1, 0, 1, 2, 4, 8), "cluster": tc.Cluster(16, end),
            "adaptive_float": tc.AdaptiveFloat(2, 1),
        },
    }[width]  # fmt: skip


WIDTHS = ("1", "ternary", "2", "3", "4")


def part_of(splits, subset: int):
    """Training data of `subset` samples, evenly spread (beats come patient by patient); 0: all."""
    if not subset:
        return splits
    step = len(splits.x_train) // subset
    some, few = slice(None, step * subset, step), {name: getattr(splits, name)[:64] for name in ("x_val", "y_val")}
    return replace(splits, x_train=splits.x_train[some], y_train=splits.y_train[some], **few)


def trained(net: str, width: str, name: str, control, splits, seed: int, subset: int) -> keras.Model:
    """The plain low-bit Keras model of one method."""
    job = NETS[net]
    recipe, part = job["tune"], part_of(splits, subset)
    if subset:
        recipe = replace(recipe, epochs=job["few"], samples=recipe.samples and min(recipe.samples, subset))
    steps = recipe.epochs * math.ceil((recipe.samples or len(part.x_train)) / recipe.batch_size)
    student = tc.compress(control, [(job["rules"], methods(width, steps)[name])])
    training.fit(tc.Distiller(student, control, *job["taught"]), part, recipe, seed=seed,
                 callbacks=[tc.CompressionCallback(every=20)])  # fmt: skip
    return tc.strip(student)


def judged(content: bytes, splits) -> dict:
    """What a file does on test and validation data."""
    test = measure.evaluate(content, splits.x_test, splits.y_test)
    validation = measure.evaluate(content, splits.x_val, splits.y_val).accuracy
    return dict(accuracy=test.accuracy, macro_f1=test.macro_f1, validation=validation)


def weight(content: bytes) -> dict:
    """What a file weighs."""
    packed = packing(content)
    return dict(bytes=len(content), gzip=measure.sizes(content)[1], packed=len(packed.content),
                entropy=packed.entropy_bytes)  # fmt: skip


def weighed_again(store: Store) -> None:
    """Bytes anew of the rows whose models are still there."""
    rows = store.read()
    for row in rows:
        path = file_of(row)
        if path.exists():
            row |= weight(tc.convert(keras.models.load_model(path, compile=False), "exact").content)
            row["control"] |= weight((path.parent / "control.tflite").read_bytes())
    store.rewrite(rows)
    write_tables(rows, readme=True)


def file_of(row: dict) -> Path:
    """Where the model of a row is; its control is beside it."""
    name = f"{row['width']}-{row['method']}-{row['subset'] or 'all'}.keras"
    return RUNS / f"{row['net']}-{row['seed']}" / name


def main(options) -> None:
    store = Store(RESULTS / "table_lowbit.jsonl", key=("net", "seed", "subset", "width", "method"))
    if options.again:
        return weighed_again(store)
    widths = options.widths.split(",")
    known = {"all", "best"}.union(*(methods(width, 100) for width in WIDTHS))
    if unknown := set(options.methods.split(",")) - known:
        raise SystemExit(f"--methods {','.join(sorted(unknown))}: expected some of {', '.join(sorted(known))}.")
    for seed, net in ((int(seed), net) for seed in options.seeds.split(",") for net in options.nets.split(",")):
        splits, folder = datasets.load(NETS[net]["data"]), RUNS / f"{net}-{seed}"
        for width in widths:
            chosen = list(methods(width, 100))
            if options.methods == "best":
                chosen = best_methods(store.read(), net, width)
            elif options.methods != "all":
                chosen = [name for name in chosen if name in options.methods.split(",")]
            for name in chosen:
                row = dict(net=net, seed=seed, subset=options.subset, width=width, method=name)
                if store.key_of(row) in store:
                    continue
                keras.backend.clear_session()
                control = control_of(net, NETS[net]["options"], NETS[net]["control"], seed, splits, folder)
                started = time.perf_counter()
                model = trained(net, width, name, control, splits, seed, options.subset)
                row["seconds"] = time.perf_counter() - started
                model.save(file_of(row))
                row |= judged(tc.convert(model).content, splits) | weight(tc.convert(model, "exact").content)
                control = (folder / "control.tflite").read_bytes()
                row |= {"control": judged(control, splits) | weight(control), "levels": levels_of(model, net)}
                store.append(row)
                write_tables(store.read())
                print(net, seed, line([row]), flush=True)
    write_tables(store.read(), readme=not options.subset)


def levels_of(model, net: str) -> int:
    """The most distinct values of an output channel among the quantized layers."""
    found = [layer.kernel.numpy() for layer in model.layers if re.fullmatch(NETS[net]["rules"], layer.name)]
    return max(len(np.unique(channel)) for w in found for channel in w.reshape(-1, w.shape[-1]).T)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="image_resnet,ecg_cnn")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--subset", type=int, default=6000, help="training samples; 0: all")
    parser.add_argument("--widths", default=",".join(WIDTHS))
    parser.add_argument("--methods", default="all", help="all, best or names, such as ternary,admm")
    parser.add_argument("--again", action="store_true", help="weigh what is there, train nothing")
    training.pin_threads(1)
    main(parser.parse_args())
