"""``mixed_precision``: bits layer by layer within budgets of bytes, time and accuracy: held, or refused by name.

1. For every layer with weights and every precision that runs on both run times with and without XNNPACK (found out
in a child process): the damage of that layer alone, as mean KL divergence of the classes from the float file's
(relative squared error of other outputs); the bytes of a file with it; with a budget of time, the measured time.
2. An integer programme (``programme.choose``; Yao Z et al., "HAWQ-V3", ICML 2021) takes the least sum of damages
within the budgets. Bytes and times of layers are taken to add up; where the real file is larger or slower than its
budget, the programme gets so much less, and goes on. Before a budget is refused, the files of one precision are
measured, and the one that takes least is changed layer by layer while the real file takes clearly less.
3. Where the real file's accuracy is too low, the layer whose next step of bits repairs most of the damage, measured
in that file, must have the step, and the others pay for it by the programme; the next one where they can't.

Precisions: "int8" and "int4" weights; "int2" where the run time has it (matrix products, not convolutions); int4 and
int2 clip the largest weights (OCTAV: Sakr C et al., ICML 2022) in the layers where that does less damage;
"float16" weights; "float32"; and with calibration "int16x8", 16-bit activations around 8-bit weights, which gets
the QUANTIZE and DEQUANTIZE operations in between that a mix takes. With calibration activations are int8 by fixed
ranges (an int2 layer quantizes its input at run time), without it they stay float between layers. Operations
that can't be quantized stay float32, and are told in ``file.gate.notes``. A budget of bytes alone leaves layers
float where there is room; integers everywhere: calibration, and precisions=("int4", "int8", "int16x8").
"""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfcompress.conversion import source
from tfcompress.conversion.mixer import BITS, LADDER, Mixer
from tfcompress.conversion.pipeline import Pipeline
from tfcompress.conversion.worker import worker
from tfcompress.convert import TFLiteModel
from tfcompress.diff import diff
from tfcompress.search import BUDGETS, Search

__all__ = ["BudgetError", "MixedLayer", "MixedPrecision", "mixed_precision"]
SNR_SAMPLES = 64


@dataclass(frozen=True)
class MixedLayer:
    """One layer with weights.

    Attributes:
        name: of its weights in the file; op: the operation that reads them.
        precision: one of "int2", "int4", "int8", "int16x8", "float16", "float32"; bits: of a weight as stored.
        weights: how many; bytes: what their codes take.
        snr_db_alone: 10 log10(signal / noise) of what the layer computes, where everything else is float; infinite
            where nothing changes, None inside a loop, whose values can't be read.
        snr_db: the same in the final file, noise of the layers before it included.
    """

    name: str
    op: str
    precision: str
    bits: int
    weights: int
    bytes: int
    snr_db_alone: float | None
    snr_db: float | None


@dataclass(frozen=True)
class MixedPrecision:
    """What ``mixed_precision`` gives back; ``print`` shows it.

    Attributes:
        file: the ``TFLiteModel``, checked by the gate on both run times.
        layers: a ``MixedLayer`` for each layer with weights, in running order.
        accuracy: of the file on the data, 0..1; drop: points (hundredths) below the float32 file.
        budgets: ``{"bytes": (asked for, reached), "latency_us": ..., "max_drop": ...}``.
        refused: ``{(operation, precision): reason}`` of what today's run times don't run.
        tries: files whose accuracy was measured; more were made, weighed and timed.
    """

    file: TFLiteModel
    layers: tuple
    accuracy: float
    drop: float
    budgets: dict
    refused: dict
    tries: int

    @property
    def met(self):
        """Whether every budget is held."""
        return all(reached <= asked for asked, reached in self.budgets.values())

    def __str__(self):
        width = max((len(layer.name) for layer in self.layers), default=5)
        heads = "".join(f"{head:>{w}}" for head, w in zip(("precision", "bits", "bytes", "alone dB", "dB"),
                                                          (10, 6, 11, 10, 8), strict=True))
        lines = [f"{'layer':{width}}  {'operation':18}{heads}"]
        lines += [f"{layer.name:{width}}  {layer.op:18}{layer.precision:>10}{layer.bits:>6}{layer.bytes:>11,}"
                  f"{_decibels(layer.snr_db_alone):>10}{_decibels(layer.snr_db):>8}" for layer in self.layers]
        for name, (asked, reached) in self.budgets.items():
            held = "met" if reached <= asked else "NOT MET"
            lines.append(f"{name}: {_amount(name, reached)} of {_amount(name, asked)}, {held}")
        lines.append(f"accuracy {self.accuracy:.4f}, measured of {self.tries} files")
        return "\n".join(lines)


class BudgetError(ValueError):
    """A budget that can't be met.

    Attributes:
        budgets: the names of those, of "bytes", "latency_us", "max_drop". Bytes and times are told by the file that
            takes least, two by the one that takes the smallest share of either; "max_drop" where no file that was
            measured, some 30, holds it within the others.
        nearest: the ``MixedPrecision`` that comes nearest; its file runs.
    """

    def __init__(self, message, budgets, nearest):
        super().__init__(message)
        self.budgets, self.nearest = budgets, nearest


def mixed_precision(model_or_path, data, target, metric="bytes", *, max_drop=1.0, calibration=None, precisions=None,
                    device="host"):
    """A ``.tflite`` whose layers have the bits that a budget and the accuracy leave them; it holds both, or says no.

    How, and what the precisions are: see the module.

    Args:
        model_or_path: what ``convert`` takes: a Keras model, .keras, .h5, a SavedModel folder, a float .tflite.
        data: ``(x, y)`` of a classifier, by which ``max_drop`` is held: the validation set. The test set stays for you.
        target: a share of the float32 file's amount where it is below 1, else the amount itself; or a dict (``metric``
            is not looked at then), ``{"bytes": 0.2, "latency_us": 50.0}``.
        metric: "bytes" of the file, or "latency_us" (p50 of one run, measured on ``device`` beside the float file).
        max_drop: points (hundredths) of accuracy on ``data`` that the file may lose against the float32 file.
        calibration: typical inputs, as ``convert`` takes them, for fixed ranges; damage is measured on them too, else
            on at most 512 of ``x``.
        precisions: names to choose from; default: all that run.
        device: "host" or a phone's serial number, where times are measured.

    Returns:
        A ``MixedPrecision``: ``.file``, ``.layers``, ``.accuracy``, ``.drop``, ``.budgets``; ``print`` shows it.

    Raises:
        ValueError: an unknown name, data that don't fit, a model that can't be converted.
        BudgetError: a ValueError that names the budget that can't be met, and holds the nearest file.
        ConversionError: the file failed the gate.

    >>> import keras, numpy as np
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([keras.Input((40,), name="x"), keras.layers.Dense(200, "relu", name="a"),
    ...                           keras.layers.Dense(3, name="b")])
    >>> x = np.random.default_rng(0).normal(size=(200, 40)).astype("float32")
    >>> found = mixed_precision(model, (x, model.predict(x, verbose=0).argmax(1)), 0.4, max_drop=3.0)
    >>> found.met, [layer.op for layer in found.layers]
    (True, ['FULLY_CONNECTED', 'FULLY_CONNECTED'])
    """
    targets = dict(target) if isinstance(target, dict) else {metric: target}
    precisions = _checked(data, targets, max_drop, calibration, precisions)
    worker.start()
    origin = source.read(model_or_path)
    if origin.aware:
        raise ValueError("A quantization-aware model has its bits already: convert it. Received one; expected the "
                         "model that it was made from.")
    with tempfile.TemporaryDirectory(prefix="tfcompress-") as name:
        pipeline = Pipeline(origin, Path(name))
        pipeline.bind(data[0] if calibration is None else calibration)
        search = Search(Mixer(pipeline, calibration is not None, precisions), _named(data, pipeline.inputs), device)
        goals = search.goals(targets) | {"max_drop": float(max_drop)}
        tried, missed = search.run(goals)
        found = _result(search, tried, goals)
    if missed:
        raise BudgetError(_refusal(missed, found), missed, found)
    return found


def _named(data, inputs):
    """``(x, y)``, several inputs by name: a file may have them in another order than the model."""
    x, y = data
    return (dict(zip(inputs, x, strict=True)), y) if len(inputs) > 1 and isinstance(x, (list, tuple)) else data


def _checked(data, targets, max_drop, calibration, precisions):
    """The precisions, in order; a ValueError for arguments that make no sense."""
    if not (isinstance(data, (tuple, list)) and len(data) == 2):
        raise ValueError(f"`data` is (x, y), samples and labels. Received: {type(data).__name__}.")
    unknown = [name for name in targets if name not in BUDGETS]
    if unknown or not targets:
        raise ValueError(f"A budget is of {list(BUDGETS)}. Received: {list(targets)}.")
    numbers = [*targets.values(), max_drop]
    if not all(isinstance(n, (int, float, np.number)) and math.isfinite(n) for n in numbers) or max_drop < 0 or min(
            targets.values()) <= 0 or 1 in targets.values():
        raise ValueError("A target is a share of the float32 file's amount, above 0 and below 1, or the amount itself, "
                         f"above 1; `max_drop` is points >= 0. Received: {targets}, max_drop={max_drop!r}.")
    names = LADDER if precisions is None else tuple(precisions)
    unknown = [name for name in names if name not in LADDER]
    if unknown or not names:
        raise ValueError(f"Unknown precisions {unknown}. Known: {list(LADDER)}; expected one or more.")
    if precisions is not None and "int16x8" in names and calibration is None:
        raise ValueError("Precision int16x8 needs `calibration`: 100 to 500 typical inputs, prepared as in training.")
    return tuple(name for name in LADDER if name in names)


def _result(search, tried, goals):
    """The ``MixedPrecision`` of a file that was tried: through the gate, with the noise of every layer."""
    mixer = search.mixer
    path = mixer.pipeline.folder / "mixed.tflite"
    path.write_bytes(search.file(tried.chosen))
    fixed = {layer["op"] for layer, runs in zip(mixer.layers, mixer.offered, strict=True) if runs == ("float32",)}
    notes = [f"{op} stays float32: {mixer.refused[op, 'int8']}" for op in sorted(fixed)
             if (op, "int8") in mixer.refused]
    gate = mixer.pipeline.check(path, "mixed", notes)
    file = TFLiteModel(path.read_bytes(), "mixed", gate, dict(mixer.pipeline.seconds, gate=gate.seconds))
    layers = tuple(
        MixedLayer(layer["name"], layer["op"], name, BITS[name], layer["elements"],
                   math.ceil(layer["elements"] * BITS[name] / 8), alone, final)
        for layer, name, (alone, final) in zip(mixer.layers, tried.chosen, _noise(search, tried.chosen), strict=True))
    reached = {name: tried.amounts[name] for name in goals}
    return MixedPrecision(file, layers, tried.accuracy, tried.amounts["max_drop"],
                          {name: (goals[name], reached[name]) for name in goals}, mixer.refused, search.tries)


def _noise(search, picked):
    """``[(SNR in dB of a layer alone, in the final file)]``; None where its values can't be read."""
    mixer = search.mixer
    x = _joined(mixer.pipeline.batches, SNR_SAMPLES)
    final = _ratios(search.float_file, search.file(picked), x)
    paths, rows = mixer.write_alone(picked, mixer.pipeline.folder), []
    for at, layer in enumerate(mixer.layers):
        alone = _ratios(search.float_file, paths[at], x) if at in paths else {}
        worst = [min((found[made] for made in layer["outputs"] if made in found), default=None)
                 for found in (alone, final)]
        rows.append((np.inf if at not in paths and not layer["loop"] else worst[0], worst[1]))
    return rows


def _ratios(first, second, x):
    return {layer.name: layer.snr_db for layer in diff(first, second, x).layers}


def _joined(batches, count):
    """The first samples of all batches, as arrays by input name."""
    each = max(1, count // len(batches))
    return {name: np.concatenate([batch[name][:each] for batch in batches])[:count] for name in batches[0]}


def _refusal(missed, found):
    amounts = [f"{name} of {_amount(name, found.budgets[name][0])}" for name in missed]
    held = [f"{name} of {_amount(name, asked)}" for name, (asked, _) in found.budgets.items() if name not in missed]
    within = f" within {' and '.join(held)}" if missed == ("max_drop",) else ""
    nearest = ", ".join(f"{name} {_amount(name, reached)}" for name, (_, reached) in found.budgets.items())
    return (f"{' and '.join(amounts)} can't be met{within}: the nearest file has "
            f"{nearest}. Allow more, prune or shrink the model first, or train it for low bits.")


def _decibels(value):
    return "-" if value is None else "exact" if value == math.inf else f"{value:.1f}"


def _amount(name, value):
    return f"{value:,.0f}" if name == "bytes" else f"{value:,.1f} us" if name == "latency_us" else f"{value:.2f} points"
