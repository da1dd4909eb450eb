"""A job's folder: rows, models and files, by the names of stages."""

import dataclasses
from pathlib import Path

import keras

from android_bench.store import Store
from tfcompress.job import judge

CONTROL, FILE = "control", "model.tflite"


def rows_of(folder):
    """The store of the rows, one a stage."""
    return Store(Path(folder) / "rows.jsonl", key=("stage",))


def row_of(folder, name):
    """The row of a stage; None where it is not done."""
    return next((row for row in rows_of(folder).read() if row["stage"] == name), None)


def load(folder, name):
    """The Keras model of a stage."""
    return keras.models.load_model(Path(folder) / f"{name}.keras", compile=False)


def judged(folder, name, file, task, data, target):
    """The row of a ``TFLiteModel``, which is saved as ``<name>.tflite``."""
    path = Path(folder) / f"{name}.tflite"
    file.save(path)
    return {"stage": name} | dataclasses.asdict(judge.weigh(path, task, data, target))
