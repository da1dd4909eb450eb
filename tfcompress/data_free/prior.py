"""Inputs before anything is known of them: what natural pictures and signals have in common."""

import math

import numpy as np

from tfcompress.conversion import samples

COLOUR = 0.4  # deviation of what a channel has of its own, beside what all channels share
SLOPE = 1.2  # of the amplitude over the frequency; 1 is that of natural pictures (Field 1987)
CONTRAST = 0.2  # deviation in units of the limits' distance
SMALLEST = 4  # positions along an axis that a spectrum is made for


def limits_of(layers):
    """``(low, high)`` of the input where a first Rescaling tells it, else None."""
    scales = [layer for layer in layers if type(layer).__name__ == "Rescaling"]
    if scales and np.ndim(scales[0].scale) == 0 and np.ndim(scales[0].offset) == 0:
        low, high = sorted((end - scales[0].offset) / scales[0].scale for end in (-1.0, 1.0))
        return max(0.0, low), high
    return None


def draw(inputs, layers, count, limits=None, seed=0):
    """Inputs of a model as an array each, by name.

    Numbers along time, or rows and columns, are noise of a falling spectrum, the same in part in all channels; others
    are white; whole numbers (an Embedding's) are drawn evenly.

    Args:
        inputs: ``{name: Tensor}``, see ``conversion.interpreter``.
        layers: the model's, where they are known.
        count: how many.
        limits: ``(low, high)`` that the numbers lie between; None: of mean 0 and deviation 1, without limits.
        seed: the same seed, the same inputs.

    >>> from tfcompress.conversion.interpreter import Tensor
    >>> x = draw({"image": Tensor("image", (None, 32, 32, 3), "float32", 0.0, 0)}, (), 2, limits=(0, 255))["image"]
    >>> x.shape, bool(x.min() >= 0), bool(100 < x.mean() < 155)
    ((2, 32, 32, 3), True, True)
    """
    random, found = np.random.default_rng(seed), {}
    whole = any(type(layer).__name__ == "Embedding" for layer in layers)
    for name, spec in inputs.items():
        if whole or np.dtype(spec.dtype).kind != "f":
            batch = samples.random_batches({name: spec}, layers, count=count, batch=count)
            found[name] = np.concatenate([part[name] for part in batch] * -(-count // len(batch[0][name])))[:count]
            continue
        shape = [samples.FREE_SIZE if size is None else size for size in spec.shape[1:]]
        x = _noise(random, count, shape)
        if limits is not None:
            low, high = limits
            x = np.clip((low + high) / 2 + CONTRAST * (high - low) * x, low, high)
        found[name] = x.astype(spec.dtype)
    return found


def _noise(random, count, shape):
    """Deviation 1 over each input; along axes but the last a falling spectrum, where there are positions enough."""
    axes = [axis for axis, size in enumerate(shape[:-1], start=1) if size >= SMALLEST]
    own = random.standard_normal((count, *shape))
    if not axes:
        return own
    shared = random.standard_normal((count, *shape[:-1], 1))
    x = _falling(shared, axes) + COLOUR * _falling(own, axes)
    x -= x.mean(axis=tuple(axes), keepdims=True)
    return x / np.maximum(x.std(axis=tuple(range(1, x.ndim)), keepdims=True), 1e-6)


def _falling(x, axes):
    spectrum = np.fft.fftn(x, axes=axes)
    square = np.zeros([1] * x.ndim)
    for axis in axes:
        square = square + np.fft.fftfreq(x.shape[axis]).reshape([-1 if at == axis else 1 for at in range(x.ndim)]) ** 2
    lowest = 1 / max(x.shape[axis] for axis in axes)
    spectrum *= np.maximum(np.sqrt(square), lowest) ** -SLOPE
    x = np.fft.ifftn(spectrum, axes=axes).real
    return x / max(math.sqrt(np.mean(x**2)), 1e-12)
