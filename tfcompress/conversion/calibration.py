"""Whatever a user has as calibration data -> batches bound to input *names*, with warnings where it looks wrong."""

import itertools
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FEWEST, MOST = (
    100,
    512,
)  # samples: fewer brings a warning, more are thinned out evenly (arrays) or left unread (streams)
BATCH = 16


class CalibrationWarning(UserWarning):
    """The calibration data can be used, but looks like a mistake."""


@dataclass(frozen=True)
class Calibration:
    """Calibration data together with the range of the training data that it should resemble.

    Args:
        data: anything ``convert`` accepts as ``calibration``.
        training_range: ``(low, high)`` of the training inputs, or ``{input name: (low, high)}``.

    >>> Calibration(np.zeros((100, 4)), training_range=(-1.0, 1.0)).training_range
    (-1.0, 1.0)
    """

    data: object
    training_range: object = None


def bind(calibration, inputs, *, normalized=False, aliases=None):
    """Batches ``[{input name: array}, ...]`` for a model's inputs.

    Args:
        calibration: an array (samples first); a dict of arrays by input name; a list or tuple of arrays, one an input,
            in the model's order; an iterable, a generator, a function that returns one (as TFLite's
            ``representative_dataset``), or a ``tf.data.Dataset`` of any of these, batched or not, with or without
            labels; the path of an ``.npz`` file of arrays by input name; a ``Calibration``.
        inputs: ``{name: Tensor}`` in the model's order (shape with ``None`` for free sizes, first axis = batch).
        aliases: ``{other name: input name}`` that dicts may use too.
        normalized: the model rescales its inputs itself, so raw 0..255 values are right.

    Raises:
        ValueError: wrong name, shape or type, no samples, NaN; the message shows what came and what was expected.

    >>> from tfcompress.conversion.interpreter import Tensor
    >>> spec = {"image": Tensor("image", (None, 2), "float32", 0.0, 0)}
    >>> [batch["image"].shape for batch in bind(np.eye(120, 2), spec)][:2]
    [(16, 2), (16, 2)]
    """
    training = calibration.training_range if isinstance(calibration, Calibration) else None
    data = calibration.data if isinstance(calibration, Calibration) else calibration
    batches = _merge(_samples(_open(data), _Inputs(inputs, aliases)), inputs)
    if not batches:
        raise ValueError("The calibration data is empty. Expected at least one sample, better 100 to 500.")
    for name, spec in inputs.items():
        if np.issubdtype(np.dtype(spec.dtype), np.floating):
            _warn_range(name, [batch[name] for batch in batches], normalized, _range_of(training, name))
    count = sum(len(next(iter(batch.values()))) for batch in batches)
    if count < FEWEST:
        _warn(f"Only {count} calibration samples: ranges may be too narrow. Give {FEWEST} to 500 typical ones.")
    return batches


def first(batches, count, size=None):
    """The first ``count`` samples, in batches of ``size`` (default: as they come)."""
    chosen = []
    for batch in batches:
        held = min(count, len(next(iter(batch.values()))))
        step = size or held
        chosen += [
            {name: array[i : min(i + step, held)] for name, array in batch.items()} for i in range(0, held, step)
        ]
        count -= held
        if count <= 0:
            break
    return chosen


def cut(x, inputs, size=32):
    """Yield ``(batch, samples in it)`` for prediction; the last batch of a fixed size repeats its last sample."""
    whole = _named(x, inputs) if isinstance(x, dict) else _single(x, inputs)
    fixed = {spec.shape[0] for spec in inputs.values() if spec.shape} - {None}
    size = fixed.pop() if fixed else size
    count = len(next(iter(whole.values())))
    if count == 0:
        raise ValueError("There is nothing to predict: the array holds no samples.")
    for start in range(0, count, size):
        batch = {name: array[start : start + size] for name, array in whole.items()}
        held = min(size, count - start)
        if held < size and any(spec.shape[0] for spec in inputs.values()):
            batch = {name: np.concatenate([a, np.repeat(a[-1:], size - held, 0)]) for name, a in batch.items()}
        yield batch, held


class _Inputs(dict):
    """``{name: Tensor}``, with the other names that the inputs go by."""

    def __init__(self, inputs, aliases=None):
        super().__init__(inputs)
        self.aliases = aliases or {}


def _open(data):
    """Unwrap paths, functions and archives; refuse what needs pickle."""
    if isinstance(data, str | Path):
        path = Path(data)
        if not path.exists():
            raise ValueError(f"No calibration file at {str(path)!r}.")
        try:
            file = np.load(path, allow_pickle=False)
            return {name: file[name] for name in file.files} if hasattr(file, "files") else file
        except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
            raise ValueError(
                f"Can't read {str(path)!r} as arrays: {error} Expected an .npz or .npy of plain numbers "
                "(no pickled objects), made with np.savez(path, input_name=array)."
            ) from error
    return data() if callable(data) and not hasattr(data, "shape") else data


def _samples(data, inputs):
    """Yield ``{name: array with a batch axis}``."""
    if isinstance(data, dict):
        yield _named(data, inputs)
    elif hasattr(data, "shape") and not isinstance(data, list | tuple):
        yield _single(data, inputs)
    elif (
        isinstance(data, list | tuple)
        and len(inputs) > 1
        and len(data) == len(inputs)
        and not isinstance(data[0], dict)
    ):
        yield _positional(data, inputs)
    elif hasattr(data, "__iter__"):
        taken = 0
        for element in data:
            batch = _element(element, inputs)
            taken += len(next(iter(batch.values())))
            yield batch
            if taken >= MOST:
                return
    else:
        raise ValueError(
            f"Expected calibration data as arrays, a dict by input name, a generator or a tf.data.Dataset. "
            f"Received: {type(data).__name__}."
        )


def _element(element, inputs):
    """One element of a stream: an array, a dict, an array an input, or any of these with a label behind it."""
    if isinstance(element, dict):
        return _named(element, inputs, add_axis=True)
    if isinstance(element, list | tuple):
        if len(element) == len(inputs) and not isinstance(element[0], dict | list | tuple):
            return _positional(element, inputs, add_axis=True)
        if element and (len(element) in (2, 3)):
            return _element(element[0], inputs)
        raise ValueError(f"Expected {len(inputs)} arrays ({list(inputs)}) an element. Received {len(element)}.")
    return _single(element, inputs, add_axis=True)


def _single(array, inputs, add_axis=False):
    if len(inputs) > 1:
        raise ValueError(f"The model has {len(inputs)} inputs: {list(inputs)}. Give a dict of arrays by these names.")
    (name, spec), = inputs.items()  # fmt: skip
    return {name: _check(array, spec, add_axis)}


def _positional(arrays, inputs, add_axis=False):
    return _same_length({n: _check(a, s, add_axis) for a, (n, s) in zip(arrays, inputs.items(), strict=True)})


def _named(arrays, inputs, add_axis=False):
    other = getattr(inputs, "aliases", {})
    arrays = {name if name in inputs else other.get(name, name): array for name, array in arrays.items()}
    missing, unknown = [n for n in inputs if n not in arrays], [n for n in arrays if n not in inputs]
    if missing or (unknown and len(arrays) < len(inputs)):
        raise ValueError(f"Calibration names don't fit. Expected {list(inputs)}. Received {list(arrays)}.")
    return _same_length({name: _check(arrays[name], spec, add_axis) for name, spec in inputs.items()})


def _same_length(batch):
    lengths = {name: len(array) for name, array in batch.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"Calibration arrays differ in their number of samples: {lengths}.")
    return batch


def _check(array, spec, add_axis):
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"Calibration data for {spec.name!r} must be numbers. Received dtype {array.dtype}.")
    if add_axis and array.ndim == len(spec.shape) - 1:
        array = array[None]
    fits = array.ndim == len(spec.shape) and all(
        want is None or want == got for want, got in zip(spec.shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        wanted = "(samples, " + ", ".join("any" if size is None else str(size) for size in spec.shape[1:]) + ")"
        raise ValueError(f"Calibration data for {spec.name!r} has shape {array.shape}. Expected {wanted}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"Calibration data for {spec.name!r} holds NaN or infinity.")
    if np.dtype(spec.dtype).kind in "iu" and array.dtype.kind == "f" and (array != np.round(array)).any():
        raise ValueError(f"Input {spec.name!r} takes integers ({spec.dtype}). The calibration data holds fractions.")
    return array.astype(spec.dtype, copy=False)


def _merge(batches, inputs):
    """Thin long arrays out, then cut into the batches that are run: 16 samples, or what a static batch asks for."""
    fixed = {spec.shape[0] for spec in inputs.values()} - {None}
    size = fixed.pop() if fixed else BATCH
    merged = []
    for batch in batches:
        count = len(next(iter(batch.values())))
        if count > MOST:
            keep = np.linspace(0, count - 1, MOST).astype(int)
            batch, count = {name: array[keep] for name, array in batch.items()}, MOST
        starts = range(0, count - size + 1 if fixed or size == 1 else count, size)
        merged += [{name: array[i : i + size] for name, array in batch.items()} for i in starts]
    return _join(merged, size) if any(len(next(iter(b.values()))) < size for b in merged) else merged


def _join(batches, size):
    """Put neighbours of the same shape together: a stream of single samples runs 16 at a time."""
    joined = []
    for _, group in itertools.groupby(batches, key=lambda batch: {n: a.shape[1:] for n, a in batch.items()}):
        group = list(group)
        whole = {name: np.concatenate([batch[name] for batch in group]) for name in group[0]}
        count = len(next(iter(whole.values())))
        joined += [{name: array[i : i + size] for name, array in whole.items()} for i in range(0, count, size)]
    return joined


def _warn_range(name, arrays, normalized, training):
    lows, highs = np.concatenate([a.reshape(len(a), -1).min(1) for a in arrays]), None
    highs = np.concatenate([a.reshape(len(a), -1).max(1) for a in arrays])
    low, high = float(lows.min()), float(highs.max())
    if low == high:
        _warn(f"All calibration values of {name!r} are {low:g}: ranges can't be learned from that.")
    if low >= 0 and 128 < high <= 255 and not normalized:
        _warn(
            f"Calibration values of {name!r} go from {low:g} to {high:g} and the model does not start with a Rescaling "
            "layer: was the network trained on raw 0..255 values? Normalize the samples as in training."
        )
    extent = np.maximum(np.abs(lows), np.abs(highs))
    typical = float(np.median(extent))
    if len(extent) >= 8 and typical > 0 and extent.max() > 10 * typical:
        _warn(
            f"Calibration sample {int(extent.argmax())} of {name!r} reaches {extent.max():g}, "
            f"{extent.max() / typical:.0f} times a typical one: it stretches "
            "the int8 range. Remove it if it is an error of measurement."
        )
    _warn_features(name, arrays)
    if training is not None:
        wide = training[1] - training[0]
        if low < training[0] - 0.5 * wide or high > training[1] + 0.5 * wide or high - low < 0.25 * wide:
            _warn(
                f"Calibration values of {name!r} span {low:g}..{high:g}, far from the training data's "
                f"{training[0]:g}..{training[1]:g}. Prepare both in the same way."
            )


def _warn_features(name, arrays):
    """One scale holds the whole tensor: beside a feature of 100,000 one of 1 becomes zero."""
    if arrays[0].shape[-1] < 2 or len({a.shape[-1] for a in arrays}) > 1:
        return
    sizes = np.max([np.abs(a).reshape(-1, a.shape[-1]).max(0) for a in arrays], axis=0)
    typical = float(np.median(sizes))
    if typical > 0 and sizes.max() > 200 * typical:
        _warn(
            f"Feature {int(sizes.argmax())} (last axis) of {name!r} reaches {sizes.max():g}, others {typical:g}: "
            "in int8 the small ones vanish. Scale the features before the model, or keep its first layers float."
        )


def _range_of(training, name):
    return training.get(name) if isinstance(training, dict) else training


def _warn(text):
    warnings.warn(text, CalibrationWarning, stacklevel=4)
