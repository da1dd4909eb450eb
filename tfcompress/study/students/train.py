"""One training: a teacher or a student, then its `.tflite` file, and what that file does on the test data."""

import hashlib
import os
import time
from pathlib import Path

import keras

from tfcompress import measure, training
from tfcompress.convert import convert
from tfcompress.distillation.distiller import Distiller
from tfcompress.inspect import inspect
from tfcompress.stages import staged

from .config import Plan, StudentsConfig

TEACHER, TAUGHT, ALONE = "teacher", "taught", "alone"


def train_teacher(config: StudentsConfig, seed: int, splits, path) -> tuple[dict, bytes]:
    """Train the full net into `path` (`.keras`); returns figures and the `.tflite` file's bytes."""
    started = time.perf_counter()
    keras.backend.clear_session()
    model = _net(config, splits, seed, config.teacher_block)
    training.fit(model, splits, config.recipe, seed=seed)
    part = Path(f"{path}.{os.getpid()}.part.keras")
    model.save(part)
    os.replace(part, path)
    return _judged(model, splits, started)


def train_student(config: StudentsConfig, seed: int, plan: Plan, splits, teacher=None) -> tuple[dict, bytes]:
    """The same for a student; `teacher`: path of the net that it learns from, None trains it on the labels alone.

    Start weights, the order of the examples and the recipe are the same in both ways.
    """
    started = time.perf_counter()
    keras.backend.clear_session()
    model = _net(config, splits, seed, plan.block, plan.depth, plan.width)
    student = model
    if teacher is not None:
        known = keras.models.load_model(teacher, compile=False)
        student = Distiller(model, known, config.taught.temperature, config.taught.alpha)
    training.fit(student, splits, config.recipe, seed=seed)
    return _judged(model, splits, started)


def _net(config, splits, seed, block, depth=1.0, width=1.0):
    return staged(splits.input_shape, splits.classes, blocks=config.stage_blocks, channels=config.stage_channels,
                  block=block, depth=depth, width=width, seed=seed)  # fmt: skip


def _judged(model, splits, started) -> tuple[dict, bytes]:
    content = convert(model, "float32").content
    found = measure.evaluate(content, splits.x_test, splits.y_test)
    return dict(
        params=model.count_params(), bytes=len(content), macs=inspect(content).macs, accuracy=found.accuracy,
        macro_f1=found.macro_f1, test_samples=found.samples, sha256=hashlib.sha256(content).hexdigest(),
        seconds=time.perf_counter() - started,
    ), content  # fmt: skip
