"""Soft filter pruning (He et al. 2018) of the Fashion-MNIST ResNet: MACs saved and points lost, from the .tflite files.

    python scripts/table_soft_filters.py [--seeds 0,1,2] [--rate 0.26]

From the trained control of table_pruning.py: at the end of each epoch the filters of smallest L2 norm, the same share
of every layer, are set to zero and go on training, taught by the control; two epochs before the end they are masked for
good, then removed. A row says how many filters that were zero once were not zero in the end, how far the small model is
from the masked one, and what its float32 and int8 files do on the test set. Rows: table_soft_filters.jsonl in
scripts/results.
"""

import argparse
import math
from pathlib import Path

import keras
import numpy as np
import table_pruning
from controls import control_of
from table_pruning import FASHION, NETS, RUNS

import tfcompress as tc
from android_bench.store import Store
from tfcompress import datasets, measure, training
from tfcompress.model import compressed_tensors
from tfcompress.study.cell import calibration

NET, HARD = "image_resnet", 2  # epochs with the filters masked, at the end


class Softness(keras.callbacks.Callback):
    """Which filters were zero after some prune."""

    def __init__(self, student):
        super().__init__()
        self.student, self.once = student, {}

    def on_epoch_begin(self, epoch, logs=None):
        for path, zero in zeros(self.student).items():
            self.once[path] = self.once.get(path, False) | zero


def zeros(model) -> dict:
    """``{tensor path: (filters,)}`` True where the latent filter is zero."""
    return {path: ~layer.latent(key).reshape(-1, layer.latent(key).shape[-1]).any(0)
            for path, layer, key in compressed_tensors(model) if key.endswith("kernel")}  # fmt: skip


def row_of(seed: int, rate: float, splits) -> dict:
    recipe, folder = FASHION["tune"], RUNS / f"fashion_mnist-{NET}-{seed}"
    control = control_of(NET, NETS["fashion_mnist"][NET]["options"], FASHION["control"], seed, splits, folder)
    steps = math.ceil(len(splits.x_train) / recipe.batch_size)
    method = tc.Prune(tc.Constant(rate, end=steps * (recipe.epochs - HARD)), "l2_norm", "filter", soft=True)
    student = tc.compress(control, method)
    seen = Softness(student)
    training.fit(tc.Distiller(student, control, *FASHION["taught"]), splits, recipe, seed=seed,
                 callbacks=[tc.CompressionCallback(every=steps), seen])  # fmt: skip
    gone = {path: values["mask"] == 0 for path, values in
            ((path, layer.values(key)) for path, layer, key in compressed_tensors(student)) if path in seen.once}
    masked = tc.strip(student)
    small = tc.shrink(masked)
    x = splits.x_test[:500]
    gap = float(np.abs(masked.predict(x, verbose=0) - small.predict(x, verbose=0)).max())
    files = {"control": (folder / "control.tflite").read_bytes(), "soft": tc.convert(small).content,
             "soft_int8": tc.convert(small, "int8", calibration(splits, 300, seed)).content}  # fmt: skip
    row = dict(seed=seed, rate=rate, epochs=recipe.epochs, small_and_masked_differ=gap,
               came_back=int(sum((seen.once[path] & ~gone[path]).sum() for path in gone)),
               gone=int(sum(g.sum() for g in gone.values())))  # fmt: skip
    for (name, file), result in zip(files.items(), tc.payoff(files), strict=True):
        accuracy = measure.evaluate(file, splits.x_test, splits.y_test).accuracy
        row[name] = dict(accuracy=accuracy, macs=result.macs, bytes=result.raw_bytes, us=result.latency_p50_us)
    row["macs_cut"] = 1 - row["soft"]["macs"] / row["control"]["macs"]
    row["points"] = 100 * (row["soft"]["accuracy"] - row["control"]["accuracy"])
    return row


def main(options) -> None:
    store = Store(Path(table_pruning.RESULTS) / "table_soft_filters.jsonl", key=("seed", "rate"))
    splits = datasets.load("fashion_mnist")
    for seed in map(int, options.seeds.split(",")):
        if (seed, options.rate) not in store:
            store.append(row_of(seed, options.rate, splits))
    for row in store.read():
        print(f"seed {row['seed']}, {row['rate']:.0%}: MACs -{row['macs_cut']:.1%}, {row['points']:+.2f} points, "
              f"{row['came_back']} filters came back, {row['gone']} gone, differs {row['small_and_masked_differ']:.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rate", type=float, default=0.26, help="share of the filters of each layer that go")
    training.pin_threads(1)
    main(parser.parse_args())
