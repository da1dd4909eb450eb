"""Filters removed by every criterion, then int8: points lost, and what is saved in bytes and in measured time.

    [TFCOMPRESS_DATA=...] python scripts/table_pruning.py [--data fashion_mnist|ecg] [--nets ...] [--seeds 0,1,2]
        [--criteria l2_norm,taylor,...|all] [--subset 6000]
    python scripts/table_pruning.py --again                 measures the files that are there anew: on a quiet machine

A control is trained once for each net and seed, on all training data. Each criterion removes filters until its float
net has the shares of the control's bytes and MACs in NETS, learns from the control between the rounds and more at the
end; its int8 file is judged on the whole test set, on the validation set too (criteria are picked by it), and timed in
turn with the control's float32 file on this computer, one thread, XNNPACK. "taylor_per_cost": scores are divided by
what a channel costs in bytes and MACs. "none" removes nothing; "scratch" gives the shape that `taylor` left new weights
and trains it as long. `--subset`: so many training samples for scores and for training after the control, in rows of
their own.
Rows: scripts/results/table_pruning.jsonl, table: table_pruning.md beside it, models: runs/table_pruning. Stopped or
killed, the same command goes on.
"""

import argparse
import functools
import statistics
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from controls import control_of
from table_pruning_rows import line, write_tables

import tfcompress
from android_bench import host
from android_bench.store import Store
from tfcompress import datasets, measure, training
from tfcompress.recipes import RECIPES, Recipe
from tfcompress.study.cell import calibration

RESULTS, RUNS = Path(__file__).parent / "results", Path("runs/table_pruning")
CRITERIA = (
    "random", "l1_norm", "l2_norm", "geometric_median", "bn_scale", "taylor", "taylor2", "information_gain",
    "relevance", "behaviour", "slope", "slope_both", "magnitude",
)  # fmt: skip
ROUNDS, PER_COST = 4, "_per_cost"
CLOTHES = RECIPES["fashion_mnist"]
FASHION = dict(control=CLOTHES, tune=replace(CLOTHES, epochs=6), taught=(4.0, 0.9))
BEATS = dict(taught=(1.0, 1.0), options={}, round_to=8)
# keep: shares of the control's float32 bytes and MACs with which int8 is a tenth as big and five times as fast;
# round_to: XNNPACK takes 8 or 16 channels at a time: 13.7 us in place of 16.1 for the same work of image_resnet
NETS = {
    "fashion_mnist": {
        "image_resnet": FASHION | dict(options={"width": 24}, keep={"bytes": 0.31, "flops": 0.42}, round_to=8),
        "image_mobilenet_v1": FASHION | dict(options={}, keep={"flops": 0.24, "bytes": 0.26}, round_to=16),
    },
    "ecg": {
        net: BEATS | dict(control=RECIPES[net], tune=RECIPES[f"{net}_tune"], keep=keep)
        for net, keep in (("ecg_cnn", {"flops": 0.22, "bytes": 0.23}), ("ecg_resnet", {"bytes": 0.37, "flops": 0.6}))
    },
}


def tuned(job: dict, subset: int) -> dict:
    """The job whose epochs after the control draw no more examples than there are."""
    draws = job["tune"].samples
    return job | {"tune": replace(job["tune"], samples=draws and min(draws, subset or draws))}


def teach(student, control, splits, recipe: Recipe, job: dict, seed: int) -> None:
    """Train `student` on the labels and on what the control says to the same inputs."""
    temperature, alpha = job["taught"]
    training.fit(tfcompress.Distiller(student, control, temperature, alpha), splits, recipe, seed=seed)


def pruned(criterion: str, control, splits, job: dict, seed: int, folder: Path) -> keras.Model:
    """The plain Keras model that is left, before its last training."""
    samples = max(6000, (job["tune"].samples or len(splits.x_train)) // 4)
    between = replace(job["tune"], epochs=1, learning_rate=job["tune"].learning_rate / 3, samples=samples)
    chosen = np.random.default_rng(seed).permutation(len(splits.y_train))[:2000]
    return tfcompress.prune_filters(
        control, (splits.x_train[chosen], np.eye(splits.classes)[splits.y_train[chosen]]), job["keep"],
        criterion=criterion.removesuffix(PER_COST), per="budget" if criterion.endswith(PER_COST) else None,
        rounds=ROUNDS, round_to=job["round_to"], folder=folder / criterion,
        fit=lambda student, number: teach(student, control, splits, between, job, seed + 1000 * number),
    ).model  # fmt: skip


def make(criterion: str, control, splits, job: dict, seed: int, folder: Path) -> None:
    """The int8 file of one criterion."""
    recipe, model = job["tune"], control
    if criterion == "scratch":
        model = keras.models.clone_model(keras.models.load_model(folder / "taylor.keras", compile=False))
        recipe = replace(recipe, epochs=recipe.epochs + ROUNDS)
    elif criterion != "none":
        model = pruned(criterion, control, splits, job, seed, folder)
    if model is not control:
        teach(model, control, splits, recipe, job, seed)
        model.save(folder / f"{criterion}.keras")
    tfcompress.convert(model, "int8", calibration(splits, 300, seed)).save(folder / f"{criterion}.tflite")


def times(*paths: Path, turns: int = 5) -> list[float]:
    """Median over `turns` of the p50 in us of each file, one after the other in each turn."""
    found = [[host.measure(path, runs=300, min_seconds=0.3).latency_p50_us for path in paths] for _ in range(turns)]
    return [statistics.median(column) for column in zip(*found, strict=True)]


@functools.cache
def judged(data: str, path: Path) -> dict:
    """What a file does and weighs."""
    splits, content = datasets.load(data), path.read_bytes()
    result, (raw, packed) = measure.evaluate(content, splits.x_test, splits.y_test), measure.sizes(content)
    validation = measure.evaluate(content, splits.x_val, splits.y_val).accuracy
    return dict(accuracy=result.accuracy, macro_f1=result.macro_f1, validation=validation, bytes=raw, gzip=packed,
                macs=tfcompress.inspect(content).macs)  # fmt: skip


def measured(data: str, folder: Path, file: Path) -> dict:
    """An int8 file, and its control's float32 file, timed in turn with it."""
    paths = folder / "control.tflite", file
    base, row = (judged(data, path) | {"us": us} for path, us in zip(paths, times(*paths), strict=True))
    return row | {"control": base}


def folders(row: dict) -> tuple[Path, Path]:
    """Where the control of a row is, and where its own files are."""
    folder = RUNS / f"{row['data']}-{row['net']}-{row['seed']}"
    return folder, folder / f"{row['subset'] or 'all'}"


def measured_again(store: Store) -> None:
    """Write the rows anew whose files are still there: trainings beside them no longer disturb the times."""
    rows = store.read()
    for number, row in enumerate(rows):
        folder, work = folders(row)
        file = work / f"{row['criterion']}.tflite"
        if file.exists() and (folder / "control.tflite").exists():
            rows[number] = row | measured(row["data"], folder, file)
            print(line(" ".join(map(str, store.key_of(row))), [rows[number]]), flush=True)
    store.rewrite(rows)
    write_tables(rows, readme=True)


def main(options) -> None:
    store = Store(RESULTS / "table_pruning.jsonl", key=("data", "net", "seed", "subset", "criterion"))
    if options.again:
        return measured_again(store)
    splits, subset = datasets.load(options.data), options.subset
    few = {name: getattr(splits, name)[:64] for name in ("x_val", "y_val")}  # nothing is chosen by them
    patients = subset and options.data == "ecg"  # beats come patient by patient
    step = max(1, len(splits.x_train) // subset) if patients else 1
    some = slice(None, step * subset or None, step)
    part = replace(splits, x_train=splits.x_train[some], y_train=splits.y_train[some], **few)
    nets = options.nets.split(",") if options.nets else list(NETS[options.data])
    criteria = [name for part in options.criteria.split(",") for name in (CRITERIA if part == "all" else [part])]
    for seed, net in ((int(seed), net) for seed in options.seeds.split(",") for net in nets):
        for criterion in criteria:
            row = dict(data=options.data, net=net, seed=seed, subset=subset, criterion=criterion)
            if store.key_of(row) in store:
                continue
            keras.backend.clear_session()
            job, (folder, work) = tuned(NETS[options.data][net], subset), folders(row)
            control = control_of(net, job["options"], job["control"], seed, splits, folder)
            work.mkdir(exist_ok=True)
            started = time.perf_counter()
            make(criterion, control, part, job, seed, work)
            row["seconds"] = time.perf_counter() - started
            row |= measured(options.data, folder, work / f"{criterion}.tflite")
            store.append(row)
            write_tables(store.read())
            print(line(f"{net} {seed} {criterion}", [row]), flush=True)
    write_tables(store.read(), readme=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion_mnist", choices=sorted(NETS))
    parser.add_argument("--nets", default="", help="of the data's two; default: both")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--criteria", default="none,taylor,l2_norm", help=f"none, scratch, {', '.join(CRITERIA)}; all")
    parser.add_argument("--subset", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="measure what is there, train nothing")
    training.pin_threads(1)
    main(parser.parse_args())
