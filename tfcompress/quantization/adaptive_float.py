"""``AdaptiveFloat``: small floating-point formats whose exponent range follows the tensor."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from keras import ops

from tfcompress.method import Method, serializable, straight_through

LARGEST = float(np.finfo("float32").max)
OFFSETS = (-2, -1, 0, 1)                                 # of the top exponent, from that of the largest weight


def power_of_two(x):
    """The largest power of two that is not above ``|x|``: ``x`` a normal float32, exact; 0 for 0. float64."""
    x = ops.convert_to_tensor(x, "float32")
    return ops.cast(tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(x, "int32"), 0x7F800000), "float32"), "float64")


def limits(exponent_bits, mantissa_bits, top):
    """``(step of the smallest numbers, largest number)`` of the format with largest power of two ``top``, float64."""
    lowest = top * 2.0 ** (2 - 2**exponent_bits)
    largest = top * (2.0 - 2.0 ** (-mantissa_bits if exponent_bits else 1 - mantissa_bits))
    return lowest * 2.0**-mantissa_bits, largest


def rounded(x, exponent_bits, mantissa_bits, top):
    """``x`` in the format, float32: nearest, ties to the even mantissa, saturated. ``top`` = ``2**emax``, float64.

    >>> rounded(np.array([0.3, -0.9, 1.25, 7.0], "float32"), 2, 1, np.float64(1.0)).numpy().tolist()
    [0.25, -1.0, 1.0, 1.5]
    """
    smallest, largest = limits(exponent_bits, mantissa_bits, top)
    wide = ops.cast(ops.convert_to_tensor(x, "float32"), "float64")
    step = smallest
    if exponent_bits:
        step = ops.maximum(power_of_two(x) * 2.0**-mantissa_bits, smallest)
    near = ops.clip(ops.round(wide / step) * step, -largest, largest)
    return ops.cast(ops.clip(near, -LARGEST, LARGEST), "float32")


def best_top(w, exponent_bits, mantissa_bits):
    """``2**emax`` with the least squared error, a float64 scalar; 1 for a tensor of zeros.

    Tried: two exponents below that of ``max|w|`` (the largest weights are cut off), to one above it, which holds what
    is rounded up. Of equal errors the lower one.
    """
    w = ops.convert_to_tensor(w, "float32")
    largest = ops.cast(ops.max(ops.abs(w)), "float32")
    base = ops.where(largest > 0, power_of_two(largest), ops.cast(1.0, "float64"))
    tops = [base * 2.0**offset for offset in OFFSETS]
    unit = ops.cast(base, "float32")                     # squares of 1e30 overflow, those of 1e-30 vanish
    errors = [ops.mean(ops.square((rounded(w, exponent_bits, mantissa_bits, top) - w) / unit)) for top in tops]
    return ops.take(ops.stack(tops), ops.argmin(ops.stack(errors)))


@serializable
@dataclass(frozen=True)
class AdaptiveFloat(Method):
    """Forward: ``w`` in a float of 1 + ``exponent_bits`` + ``mantissa_bits`` bits; gradient straight through.

    ``value = (-1)**s * 2**(emax - (2**e - 1) + E) * (1 + M / 2**m)`` for exponent codes ``E`` of 1 to ``2**e - 1``;
    ``E = 0`` holds the subnormals ``2**(emax - (2**e - 2)) * M / 2**m``, zero among them. No code is spent on infinity
    or not-a-number: larger values saturate. ``e = 0`` is fixed point, ``m = 0`` powers of two. Each tensor has its own
    ``emax``, the one of four near its largest weight that gives the least squared error in this step. With
    ``emax=16``, (5, 10) holds the numbers of IEEE half precision; with ``emax=128``, (8, 7) those of bfloat16.

    Adaptive floating point, Liu et al., "Improving Neural Network Efficiency via Post-training Quantization with
    Adaptive Floating-Point", ICCV 2021. ``bits_per_layer.choose_bits`` finds the bits of each layer.

    Args:
        exponent_bits: ``e``, 0..8.
        mantissa_bits: ``m``, 0..23; at least one of the two is above 0.
        emax: exponent of the largest power of two, if not from the weights.

    Raises:
        ValueError: bits out of range.

    >>> w = np.array([0.9, -0.3, 0.12, 0.02], "float32")
    >>> AdaptiveFloat(2, 0, emax=0).apply(w, {}).numpy().tolist()          # 0, 1/4, 1/2, 1 and their negatives
    [1.0, -0.25, 0.0, 0.0]
    """

    exponent_bits: int = 3
    mantissa_bits: int = 4
    emax: int | None = None

    def __post_init__(self):
        e, m = self.exponent_bits, self.mantissa_bits
        if type(e) is not int or type(m) is not int or not (0 <= e <= 8 and 0 <= m <= 23 and e + m > 0):
            raise ValueError("Expected exponent_bits in 0..8 and mantissa_bits in 0..23, not both 0. Received: "
                             f"exponent_bits={e!r}, mantissa_bits={m!r}.")

    @property
    def bits(self):
        return 1 + self.exponent_bits + self.mantissa_bits

    def top(self, w):
        """``2**emax`` for the weights ``w``, a float64 scalar."""
        return best_top(w, self.exponent_bits, self.mantissa_bits) if self.emax is None else np.float64(2.0**self.emax)

    def apply(self, w, state):
        w = ops.convert_to_tensor(w)
        fixed = ops.stop_gradient(w)
        return straight_through(w, rounded(fixed, self.exponent_bits, self.mantissa_bits, self.top(fixed)))
