"""``LeastSquares``: weights as sums of scaled sign vectors, ``v_1 s_1 + ... + v_k s_k``, of least squared error."""

from dataclasses import dataclass

from keras import ops

from tfcompress.method import Method, serializable, straight_through
from tfcompress.quantization.groups import check_scales, grouped

KINDS = (1, 2, "ternary", 3, 4, 5, 6, 7, 8)


def signs(x):
    """``sign(x)`` with ``sign(0) = 1``."""
    return ops.where(x >= 0, ops.ones_like(x), -ops.ones_like(x))


def one_bit(x, pruned=False):
    """The best scale, (1, groups), of ``v * sign(x)`` for the columns of ``x``: the mean magnitude.

    With ``pruned``, here and below, zeros are no members: they stay 0.
    """
    total = ops.sum(ops.abs(x), axis=0, keepdims=True)
    return total / (ops.maximum(_nonzeros(x), 1) if pruned else x.shape[0])


def _nonzeros(x):
    return ops.sum(ops.cast(x != 0, x.dtype), axis=0, keepdims=True)


def two_bits(x, pruned=False):
    """The best ``(v1, v2)``, v1 >= v2 >= 0, each (1, groups), for the columns of ``x`` (members, groups).

    With ``s2 = sign(|x| - v1)`` the levels of ``|x|`` are v1 - v2 and v1 + v2: the optimal two means of ``|x|``, found
    by sorting and prefix sums. Pouransari et al. 2020 (arXiv:2001.02786).

    >>> import numpy as np
    >>> [round(float(v[0, 0]), 3) for v in two_bits(np.array([[1.0], [-1.0], [3.0], [-3.0]], "float32"))]
    [2.0, 1.0]
    """
    size = ops.sort(ops.abs(x), axis=0)
    count = size.shape[0]
    if count == 1:
        return size, ops.zeros_like(size)
    sums = ops.cumsum(ops.cast(size, "float64"), axis=0)
    zeros = ops.cast(count - _nonzeros(x), "float64") if pruned else 0.0     # they come first
    low, number = sums[:-1], ops.cast(ops.reshape(ops.arange(1, count), (-1, 1)), "float64") - zeros
    high = sums[-1:] - low
    c_high = high / ops.minimum(count - zeros - number, ops.maximum(count - zeros, 1.0))
    c_low = ops.where(number > 0, low / ops.maximum(number, 1.0), c_high)    # nothing below: both means are one
    best = ops.argmax(c_low * low + c_high * high, axis=0, keepdims=True)
    lower, upper = (ops.take_along_axis(c, best, axis=0) for c in (c_low, c_high))
    return ops.cast((upper + lower) / 2, x.dtype), ops.cast((upper - lower) / 2, x.dtype)


def ternary(x):
    """The best scale, (1, groups), of ``scale * {-1, 0, 1}`` for the columns of ``x``, and the least size that stays.

    The k largest stay, for which ``sum^2 / k`` is greatest: the projection onto ternary codes.

    >>> import numpy as np
    >>> scale, bound = ternary(np.array([[1.0], [-0.9], [0.1]], "float32"))
    >>> round(float(scale[0, 0]), 3), round(float(bound[0, 0]), 3)
    (0.95, 0.9)
    """
    size = ops.flip(ops.sort(ops.abs(x), axis=0), axis=0)
    sums = ops.cumsum(ops.cast(size, "float64"), axis=0)
    number = ops.cast(ops.reshape(ops.arange(1, size.shape[0] + 1), (-1, 1)), "float64")
    best = ops.argmax(sums / number * sums, axis=0, keepdims=True)
    scale = ops.take_along_axis(sums / number, best, axis=0)
    return ops.cast(scale, x.dtype), ops.take_along_axis(size, best, axis=0)


def quantized(x, kind):
    """The columns of ``x`` (members, groups) by ``kind``: 1, 2, "ternary" or a greedy number of bits; no gradient."""
    if kind == "ternary":
        scale, bound = ternary(x)
        return ops.where(ops.abs(x) >= bound, scale * ops.sign(x), 0.0)
    if kind == 2:
        v1, v2 = two_bits(x, pruned=True)
        first = v1 * signs(x)
        return ops.where(x == 0, 0.0, first + v2 * signs(x - first))
    stays = ops.cast(x != 0, x.dtype)
    total = ops.zeros_like(x)
    for _ in range(kind):
        rest = (x - total) * stays
        total = total + one_bit(rest, pruned=True) * signs(rest) * stays
    return total


@serializable
@dataclass(frozen=True)
class LeastSquares(Method):
    """Forward: the nearest sum of ``kind`` scaled sign vectors to ``w``, per group; gradient straight through.

    1 bit and 2 bits are the optimum (``mean|w|``; two means of ``|w|``), "ternary" is the optimum with ``v1 = v2``;
    from 3 bits on each vector is the best for what the ones before leave (greedy). Relative squared errors for normal
    weights, 1 to 4 bits: .3646, .1183, .0594, .0338; ternary .1913. Pouransari et al. 2020, "Least squares binary
    quantization of neural networks" (arXiv:2001.02786). Weights that are exactly 0 stay 0: they are pruned.

    Args:
        kind: 1, 2, "ternary", or 3 to 8.
        scales: "channel" (scales for each output channel), "tensor", or a number of groups along the last axis (4: the
            gates of an LSTM).

    >>> import numpy as np
    >>> w = np.array([[1.0], [-1.0], [3.0], [-3.0], [0.5], [-3.5]], "float32")
    >>> [round(float(v), 3) for v in np.ravel(LeastSquares(2).apply(w, {}))]
    [0.833, -0.833, 3.167, -3.167, 0.833, -3.167]
    """

    kind: object = 2
    scales: object = "channel"

    def __post_init__(self):
        check_scales(self.scales)
        if self.kind not in KINDS or isinstance(self.kind, bool):
            raise ValueError(f"`kind` is one of {KINDS}. Received: kind={self.kind!r}.")

    @property
    def bits(self):
        return 2 if self.kind == "ternary" else self.kind

    def apply(self, w, state):
        w = ops.convert_to_tensor(w)
        parts = ops.transpose(grouped(w, self.scales), (0, 2, 1))
        columns = ops.reshape(parts, (-1, parts.shape[-1]))
        found = ops.reshape(quantized(columns, self.kind), parts.shape)
        return straight_through(w, ops.reshape(ops.transpose(found, (0, 2, 1)), w.shape))
