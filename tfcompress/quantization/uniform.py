"""Uniform symmetric fake-quantization of weights."""

from dataclasses import dataclass

from keras import ops

from tfcompress.method import Method, serializable, straight_through


def divided(x, number):
    """``x / number`` in float32, by way of float64: compiled graphs make a product of it, one bit off in float32."""
    return ops.cast(ops.cast(x, "float64") / number, "float32")


@serializable
@dataclass(frozen=True)
class Uniform(Method):
    """Forward ``s * round(w / s)``, ``s = max|w| / (2**(bits-1) - 1)``; gradient straight through (arXiv:1712.05877).

    Symmetric, so zero is an exact code and pruned weights stay zero; the grid of TFLite's int8 kernels.

    Args:
        bits: 2..16.
        per_channel: one scale an output channel (last axis), else one a tensor.

    >>> import numpy as np
    >>> w = np.array([[1.0, 10.0], [-0.3, 2.0]], "float32")
    >>> (np.array(Uniform(bits=3).apply(w, {})) * 3).round(4).tolist()   # codes -3..3: steps of 1/3 and of 10/3
    [[3.0, 30.0], [-1.0, 10.0]]
    """

    bits: int = 8
    per_channel: bool = True

    def __post_init__(self):
        if not isinstance(self.bits, int) or not 2 <= self.bits <= 16:
            raise ValueError(f"`bits` is an int in 2..16. Received: bits={self.bits!r}.")

    def scale(self, w):
        """The step between two codes, of shape ``(..., channels)`` or scalar-like; 1 where all weights are zero."""
        axes = tuple(range(len(w.shape) - 1)) if self.per_channel else None
        largest = ops.max(ops.abs(w), axis=axes, keepdims=True)
        return ops.where(largest > 0, divided(largest, float(2 ** (self.bits - 1) - 1)), 1.0)

    def apply(self, w, state):
        w = ops.convert_to_tensor(w)
        scale = ops.stop_gradient(self.scale(w))
        return straight_through(w, ops.round(w / scale) * scale)
