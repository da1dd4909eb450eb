"""Inputs for the gate where there is no calibration data: random, in the range the model's first layer expects."""

import numpy as np

FREE_SIZE = 64  # stands for a None size (image side, sequence length)


def random_batches(inputs, layers=(), *, count=32, batch=16):
    """Batches of random inputs.

    Floats are standard normal, or uniform over what a first ``Rescaling`` layer maps to -1..1; integers, and floats
    where there is an ``Embedding``, are whole numbers below the smallest ``Embedding``'s ``input_dim`` (2 without one).

    Args:
        inputs: ``{name: Tensor}``.
        layers: the model's layers, where they are known.

    >>> from tfcompress.conversion.interpreter import Tensor
    >>> [b["ids"].dtype.name for b in random_batches({"ids": Tensor("ids", (None, 4), "int32", 0.0, 0)}, count=16)]
    ['int32']
    """
    fixed = {spec.shape[0] for spec in inputs.values() if spec.shape} - {None}
    size = fixed.pop() if fixed else batch
    generator = np.random.default_rng(0)
    count = max(1, (min(count, 8) if fixed and size == 1 else count) // size)
    return [{name: _draw(generator, spec, size, layers) for name, spec in inputs.items()} for _ in range(count)]


def _draw(generator, spec, size, layers):
    shape = (size, *(FREE_SIZE if n is None else n for n in spec.shape[1:]))
    kind = np.dtype(spec.dtype).kind
    if kind == "b":
        return generator.random(shape) < 0.5
    rows = [layer.input_dim for layer in layers if type(layer).__name__ == "Embedding"]
    if kind in "iu" or rows:  # Keras 2 feeds an Embedding floats: whole numbers are right for any other layer too
        return generator.integers(0, min(rows, default=2), shape).astype(spec.dtype)
    scale = [layer for layer in layers if type(layer).__name__ == "Rescaling"]
    if scale and np.ndim(scale[0].scale) == 0 and np.ndim(scale[0].offset) == 0:
        ends = sorted((end - scale[0].offset) / scale[0].scale for end in (-1.0, 1.0))
        return generator.uniform(max(0.0, ends[0]), ends[1], shape).astype(spec.dtype)
    return generator.standard_normal(shape).astype(spec.dtype)
