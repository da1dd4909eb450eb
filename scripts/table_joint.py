"""Pruned, then 3 bits by ADMM under the mask, then packed: how many times smaller, at how many points.

    [TFCOMPRESS_DATA=...] python scripts/table_joint.py [--nets image_alexnet,image_resnet,lstm] [--sizes full,half]
        [--seeds 0,1,2] [--sparsity 0.96]

A control is trained once for each net, size and seed. A copy, taught by it, is pruned gradually (magnitudes ranked over
all layers of a kind), its weights are then drawn to {0, +-1, +-2, +-4} x scale by ADMM under the mask, then scales,
biases and norms are tuned; `slim`, the exact .tflite file, `pack`. The ratio is the bytes of the control's float32
.tflite over those of the packed file: headers, scales, biases and the first layer included. "half" is a control of half
the size, which has to be as much smaller than ITS float32 file. Rows: scripts/results/table_joint.jsonl, table:
table_joint.md beside it, models: runs/table_joint. Stopped or killed, the same command goes on.
"""

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from controls import control_of
from table_joint_rows import line, write_tables

import tfcompress as tc
from android_bench.store import Store
from tfcompress import datasets, measure, training
from tfcompress.layout import kernels
from tfcompress.model import leaves
from tfcompress.pack import packing
from tfcompress.recipes import RECIPES

RESULTS, RUNS = Path(__file__).parent / "results", Path("runs/table_joint")
CLOTHES, DIGITS = RECIPES["fashion_mnist"], RECIPES["spoken_digits"]
# kinds: {regular expression on layers: (how far from all weights to the wanted sparsity, scales)}; None: not pruned
NETS = {
    "image_alexnet": dict(
        data="fashion_mnist", sizes={"full": {}, "half": {"units": (1024, 600)}}, control=CLOTHES,
        tune=replace(CLOTHES, epochs=15, learning_rate=2e-3), taught=(4.0, 0.9), sparsity=0.965,
        kinds={r"conv2d_\d+": (0.65, "channel"), "dense.*": (1.005, "tensor"), "logits": (0.8, "tensor")},
        first="conv2d",
    ),
    "image_resnet": dict(
        data="fashion_mnist", sizes={"full": {"width": 32}, "half": {"width": 22}}, control=CLOTHES,
        tune=replace(CLOTHES, epochs=8, learning_rate=2e-3), taught=(4.0, 0.9), sparsity=0.91,
        kinds={r"conv2d_\d+": (1.0, "channel"), "logits": (0.5, "tensor")}, first="conv2d",
    ),
    "lstm": dict(
        data="spoken_digits", sizes={"full": {"units": 150}, "half": {"units": 100}}, control=DIGITS,
        tune=replace(DIGITS, epochs=200), taught=(2.0, 0.9), sparsity=0.935,
        kinds={"lstm": (1.0, 4), "logits": (0.6, "tensor")}, first=None,
    ),
}  # fmt: skip
PRUNED, DRAWN = 0.4, 0.75  # shares of the steps at whose ends the mask and the codes are frozen


def rules(job: dict, sparsity: float, steps: int) -> list:
    """A `Chain` for each kind of layer; the first convolution, of few weights, gets 8 bits."""
    masked, drawn = int(PRUNED * steps), int(DRAWN * steps)
    found = [] if job["first"] is None else [(job["first"], tc.Uniform(8))]
    for pattern, (share, scales) in job["kinds"].items():
        prune = tc.Prune(tc.Polynomial(min(0.995, share * sparsity), 0, masked), granularity="global")
        found.append((pattern, tc.Chain((prune, tc.ADMM((0, 1, 2, 4), drawn, masked, scales)))))
    return found


def trained(net: str, control, splits, seed: int, sparsity: float) -> keras.Model:
    """The plain Keras model, pruned, of three bits."""
    job, recipe = NETS[net], NETS[net]["tune"]
    steps = recipe.epochs * math.ceil(len(splits.x_train) / recipe.batch_size)
    student = tc.compress(control, rules(job, sparsity, steps))
    training.fit(tc.Distiller(student, control, *job["taught"]), splits, recipe, seed=seed,
                 callbacks=[tc.CompressionCallback(every=50)])  # fmt: skip
    return tc.strip(student)


def zeros(model) -> dict:
    """Share of zeros over all kernels, and layer by layer."""
    found = {path: [np.asarray(w) for w, _ in kernels(layer).values()] for path, layer in leaves(model)}
    layers = {path: float(np.mean(np.concatenate([w.ravel() for w in ws]) == 0)) for path, ws in found.items() if ws}
    everything = np.concatenate([w.ravel() for ws in found.values() for w in ws])
    return {"sparsity": float(np.mean(everything == 0)), "layers": layers}


def weighed(control: bytes, model, splits) -> dict:
    """The exact file, packed: bytes, and what it does on the test set; it is unpacked before it is judged."""
    file = tc.convert(tc.slim(model), "exact").content
    packed = packing(file)
    again = tc.unpack(packed.content)
    accuracies = [measure.evaluate(content, splits.x_test, splits.y_test).accuracy for content in (again, control)]
    return dict(
        accuracy=accuracies[0], control_accuracy=accuracies[1], float_bytes=len(control), exact_bytes=len(file),
        packed_bytes=len(packed.content), entropy_bytes=packed.entropy_bytes, ratio=len(control) / len(packed.content),
        gzip_bytes=measure.sizes(file)[1],
    )  # fmt: skip


def weighed_again(store: Store) -> None:
    """The rows anew whose models are still there: converted, packed and judged, not trained."""
    rows = store.read()
    for row in rows:
        folder = RUNS / f"{row['net']}-{row['size']}-{row['seed']}"
        if (folder / f"{row['asked']}.keras").exists():
            model = keras.models.load_model(folder / f"{row['asked']}.keras", compile=False)
            row |= weighed((folder / "control.tflite").read_bytes(), model, datasets.load(NETS[row["net"]]["data"]))
            print(line([row]), flush=True)
    store.rewrite(rows)
    write_tables(rows, readme=True)


def main(options) -> None:
    store = Store(RESULTS / "table_joint.jsonl", key=("net", "size", "seed", "asked"))
    if options.again:
        return weighed_again(store)
    wanted = [(int(seed), net, size) for seed in options.seeds.split(",") for net in options.nets.split(",")
              for size in options.sizes.split(",")]  # fmt: skip
    for seed, net, size in wanted:
        splits, folder = datasets.load(NETS[net]["data"]), RUNS / f"{net}-{size}-{seed}"
        row = dict(net=net, size=size, seed=seed, asked=options.sparsity or NETS[net]["sparsity"])
        if store.key_of(row) in store:
            continue
        keras.backend.clear_session()
        job = NETS[net]
        control = control_of(net, job["sizes"][size], job["control"], seed, splits, folder)
        started = time.perf_counter()
        model = trained(net, control, splits, seed, row["asked"])
        row |= {"seconds": time.perf_counter() - started, "parameters": control.count_params()}
        model.save(folder / f"{row['asked']}.keras")
        row |= weighed((folder / "control.tflite").read_bytes(), model, splits) | zeros(model)
        store.append(row)
        write_tables(store.read())
        print(line([row]), flush=True)
    write_tables(store.read(), readme=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--sizes", default="full,half")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--sparsity", type=float, default=None, help="of all weights; default: each net's own")
    parser.add_argument("--again", action="store_true", help="pack and judge what is there, train nothing")
    training.pin_threads(1)
    main(parser.parse_args())
