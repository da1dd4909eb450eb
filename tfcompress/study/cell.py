"""One cell: from the trained control to the `.tflite` file, and what that file does on the data."""

import hashlib
import importlib.metadata
import io
import math
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from android_bench.metrics import metrics
from android_bench.store import write_file
from tfcompress import flatbuffer, measure, training, zoo
from tfcompress.arrays import read_npz
from tfcompress.callback import CompressionCallback
from tfcompress.convert import convert
from tfcompress.datasets import Splits, load
from tfcompress.distillation.distiller import Distiller
from tfcompress.inspect import inspect
from tfcompress.model import compress, strip
from tfcompress.pruning import prune
from tfcompress.quantization.aware import quantize_aware
from tfcompress.quantization.float16 import Float16
from tfcompress.schedules import OneShot, Polynomial
from tfcompress.weights import weights

from .grid import Cell, Prune
from .presets import StudyConfig, preset

PACKAGES = ("tfcompress", "tensorflow", "keras", "ai-edge-litert", "litert-quantizer", "numpy")


def read_data(config: StudyConfig) -> Splits:
    """The study's data; the first `config.examples` of each split where that is set.

    A file `.npz` holds x_train, y_train, x_val, y_val, x_test, y_test (class numbers) and may hold class_names.
    """
    splits = _own(config.dataset) if config.dataset.endswith(".npz") else load(config.dataset, **config.dataset_options)
    if config.examples is None:
        return splits
    names = [f"{kind}_{part}" for kind in ("x", "y", "group") for part in ("train", "val", "test")]
    arrays = {name: getattr(splits, name) for name in names}
    return replace(splits, **{k: None if v is None else v[: config.examples] for k, v in arrays.items()})


def write_test_data(name: str, path, limit: int | None = None) -> int:
    """Write a preset's test split as `x` and `y` to an .npz file for `android-bench run --eval`; returns its length.

    `limit` takes so many samples at random, the same ones each time.
    """
    splits = read_data(preset(name))
    chosen = np.random.default_rng(0).permutation(len(splits.y_test))[:limit]
    buffer = io.BytesIO()
    np.savez(buffer, x=splits.x_test[chosen], y=splits.y_test[chosen])
    write_file(path, buffer.getvalue())
    return len(chosen)


def seed_of(config: StudyConfig, cell_id: str) -> int:
    """A cell's own seed, 31 bits, from the study's seed and its id: no cell depends on which ones ran before it."""
    return int.from_bytes(hashlib.sha256(f"{config.seed}/{cell_id}".encode()).digest()[:4]) >> 1


def train_control(config: StudyConfig, splits: Splits) -> tuple[keras.Model, dict]:
    """The base net, trained (the user's own `.keras` file: as it is), and facts about it."""
    keras.backend.clear_session()
    started = time.perf_counter()
    if config.model.endswith(".keras"):
        model = _load(config.model)
    else:
        model = zoo.build(config.model, splits.input_shape, splits.classes, seed=config.seed, **config.model_options)
        training.fit(model, splits, config.control, seed=config.seed)
    return model, {"seconds": time.perf_counter() - started, "parameters": model.count_params()}


def _load(path: str) -> keras.Model:
    """With the optimizer's slots, where the file's loss and metrics can be read: the study sets its own."""
    try:
        return keras.models.load_model(path)
    except (TypeError, ValueError):
        return keras.models.load_model(path, compile=False)


def make_variant(config: StudyConfig, cell: Cell, control_path, splits: Splits) -> tuple[dict, bytes]:
    """Train and convert one cell in every way that the configuration allows; the best on the validation split.

    Returns the fields of a `Result` that do not depend on a device, and the `.tflite` file's bytes.
    """
    seed, tried = seed_of(config, cell.id), []
    for rate in config.learning_rates if cell.trains else [None]:
        keras.backend.clear_session()
        started = time.perf_counter()
        control = keras.models.load_model(control_path, compile=False)  # its file holds the optimizer's slots too
        recipe = replace(config.fine_tune, learning_rate=rate or 1.0)
        model = tuned(cell, control, splits, recipe, seed, config.granularity)
        trained = time.perf_counter()
        after_training = cell.precision == "int8" and not cell.quantize.in_training
        for count in config.calibration if after_training else [None]:
            began = time.perf_counter()
            file = convert(model, cell.precision, calibration(splits, count, seed) if count else None)
            scores = judge(file.content, splits)
            tried.append({"learning_rate": rate, "calibration": count, **scores, "file": file, "model": model})
            tried[-1]["timings"] = {"train": trained - started, "convert": time.perf_counter() - began}
    best = min(tried, key=lambda one: one["loss"])
    return describe(cell, best, tried, seed, splits), best["file"].content


def tuned(cell: Cell, control, splits, recipe, seed, granularity="unstructured"):
    """The control after the cell's training steps, in their order: what `convert` takes."""
    model, quantized = control, None
    for step in cell.steps:
        if isinstance(step, Prune):
            model = compress(model, prune.Prune(_schedule(step, splits, recipe), granularity=granularity))
            fit(model, splits, recipe, seed, control, cell.taught)
        elif step.in_training:
            quantized = step
            zeros = cell.sparsity if model is not control else 0
            model = quantize(strip(model) if zeros else model, step.bits)
            if zeros:  # the zeros that are there stay
                model = compress(model, prune.Prune(OneShot(zeros), granularity=granularity))
            stage = recipe if zeros else replace(recipe, epochs=math.ceil(recipe.epochs / 2))
            fit(model, splits, stage, seed, control, cell.taught)
    if model is control or (quantized and quantized.bits == 8):
        return model
    return strip(model)


def quantize(model, bits: int):
    """A model to be trained with the rounding that its file will have."""
    return quantize_aware(model) if bits == 8 else compress(model, Float16())


def fit(model, splits, recipe, seed, teacher, taught):
    """One training stage of a compressed model; `taught`: in which way by the teacher, if at all."""
    every = max(1, _steps(splits, recipe) // 100)
    student = Distiller(model, teacher, taught.temperature, taught.alpha) if taught else model
    training.fit(student, splits, recipe, seed=seed, callbacks=[CompressionCallback(every)])


def calibration(splits: Splits, count: int, seed: int) -> np.ndarray:
    """`count` training inputs, drawn in turn from the classes."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(splits.y_train))
    labels = splits.y_train[order]
    turn = np.zeros(len(order), int)
    for label in np.unique(labels):
        turn[labels == label] = np.arange((labels == label).sum())
    return splits.x_train[order[np.argsort(turn, kind="stable")[:count]]]


def judge(content: bytes, splits: Splits) -> dict:
    """Cross-entropy, accuracy and macro-F1 of the file on the validation split."""
    scores = measure.run(content, splits.x_val)[0]
    found = metrics(splits.y_val, scores)
    likely = np.clip(_probabilities(scores)[np.arange(len(scores)), splits.y_val], 1 / 512, 1.0)
    return {"loss": float(-np.log(likely).mean()), "accuracy": found.accuracy, "macro_f1": found.macro_f1}


def describe(cell: Cell, best: dict, tried: list, seed: int, splits: Splits) -> dict:
    """The fields of the row: how good the file is on the test split, how big, how it came about."""
    content = best["file"].content
    shown = ("learning_rate", "calibration", "loss", "accuracy", "macro_f1")
    return described(content, splits) | {
        "id": cell.id,
        "recipe": cell.recipe,
        "seed": seed,
        "learning_rate": best["learning_rate"],
        "agreement": best["file"].gate.agreement[0].top1,
        "timings": best["timings"],
        "facts": {
            "validation": {name: best[name] for name in ("loss", "accuracy", "macro_f1")},
            "tried": [{name: one[name] for name in shown} for one in tried],
            "target_sparsity": cell.sparsity or None,
            "pruned_sparsity": kernel_sparsity(content) if cell.sparsity else None,
            "precision": cell.precision,
            "test_samples": len(splits.y_test),
        },
    }


def described(content: bytes, splits: Splits) -> dict:
    """The fields of a row that a file tells by itself: how good it is on the test split, and how big."""
    found = measure.evaluate(content, splits.x_test, splits.y_test, class_names=splits.class_names)
    storage = measure.storage(content)
    return {
        "model_sha256": hashlib.sha256(content).hexdigest(),
        "accuracy": found.accuracy,
        "macro_f1": found.macro_f1,
        "recalls": found.recalls,
        "raw_bytes": storage.raw,
        "gzip_bytes": storage.gzip,
        "xz_bytes": storage.xz,
        "packed_bytes": storage.packed,
        "entropy_bytes": storage.entropy,
        "sparsity": measure.sparsity(content),
        "levels": measure.levels(content),
        "macs": inspect(content).macs,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def kernel_sparsity(content: bytes) -> float:
    """Zeros / weights in the kernels that are pruned: every weight tensor of the file but the last one, the head."""
    found = list(weights(flatbuffer.read(content)))[:-1]
    return sum(weight.zeros for weight in found) / sum(weight.tensor.size for weight in found)


def _own(path: str) -> Splits:
    """The user's own arrays as `Splits`."""
    arrays, names = read_npz(path), [f"{kind}_{part}" for part in ("train", "val", "test") for kind in ("x", "y")]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"Expected the arrays {', '.join(names)} in {path}. Missing: {', '.join(missing)}.")
    classes = arrays.get("class_names", np.arange(max(arrays[name].max() for name in names[1::2]) + 1))
    return Splits(Path(path).stem, tuple(map(str, classes)), *(arrays[name] for name in names), licence="your own")


def _schedule(step: Prune, splits, recipe) -> Polynomial:
    """Zhu & Gupta's: from 0 to the target over the first 60 % of the steps, then the rest to recover."""
    return Polynomial(step.sparsity, begin=0, end=max(1, int(0.6 * _steps(splits, recipe))))


def _steps(splits, recipe) -> int:
    return recipe.epochs * math.ceil((recipe.samples or len(splits.x_train)) / recipe.batch_size)


def _probabilities(scores: np.ndarray) -> np.ndarray:
    """Scores as they are where they are probabilities, else their softmax."""
    if scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1, atol=0.05):
        return scores
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)
