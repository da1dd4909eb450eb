"""A job's folder: rows, models and files, by the names of stages."""

import dataclasses
from pathlib import Path

import keras

from android_bench.store import Store
from tfcompress.job import judge
from tfcompress.job.plan import sparsities

CONTROL, FILE = "control", "model.tflite"


def rows_of(folder):
    """The store of the rows, one a stage."""
    return Store(Path(folder) / "rows.jsonl", key=("stage",))


def row_of(folder, name):
    """The row of a stage; None where it is not done."""
    return next((row for row in rows_of(folder).read() if row["stage"] == name), None)


def attempts(stage):
    """``{name: settings}`` of what is tried in turn, until one is kept: each sparsity of pruning; else the stage.

    >>> list(attempts({"stage": "prune", "sparsity": [0.9, 0.8]})), list(attempts({"stage": "shrink"}))
    (['prune_90', 'prune_80'], ['shrink'])
    """
    if stage["stage"] != "prune" or stage.get("kept") is False:
        return {stage["stage"]: stage}
    return {f"prune_{100 * sparsity:g}": stage | {"sparsity": sparsity} for sparsity in sparsities(stage)}


def in_words(name):
    """The name of an attempt as a person reads it.

    >>> in_words("prune_80"), in_words("shrink")
    ('prune 80 %', 'shrink')
    """
    return f"{name.replace('_', ' ')} %" if name.startswith("prune_") else name


def load(folder, name):
    """The Keras model of a stage."""
    return keras.models.load_model(Path(folder) / f"{name}.keras", compile=False)


def judged(folder, name, file, task, data, target, before=None):
    """The row of a ``TFLiteModel``, which is saved as ``<name>.tflite``; ``before``: the row of the file before it."""
    path = Path(folder) / f"{name}.tflite"
    file.save(path)
    known = None if before is None else (path.with_name(f"{before['stage']}.tflite"), before["cost"])
    return {"stage": name} | dataclasses.asdict(judge.weigh(path, task, data, target, known))
