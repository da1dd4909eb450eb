"""``Ternary``: ternary-weight networks."""

from dataclasses import dataclass

from keras import ops

from tfcompress.method import Method, serializable, straight_through
from tfcompress.quantization.groups import check_scales, grouped


@serializable
@dataclass(frozen=True)
class Ternary(Method):
    """Forward ``alpha * (w > delta) - alpha * (w < -delta)``; gradient straight through.

    ``delta = threshold * mean|w|`` and ``alpha`` the mean size of the weights beyond it, of each group; weights that
    are exactly 0 are pruned, and in neither mean. Li et al. 2016, ternary weight networks (arXiv:1605.04711); the best
    threshold, not a rule of thumb: ``LeastSquares("ternary")``.

    Args:
        threshold: times the mean magnitude, >= 0; the paper's 0.7 is best for normal weights.
        scales: "channel" (one scale an output channel), "tensor", or a number of groups along the last axis (4: the
            gates of an LSTM).

    >>> import numpy as np
    >>> np.array(Ternary().apply(np.array([[1.0], [-3.0], [0.1]], "float32"), {})).ravel().tolist()
    [2.0, -2.0, 0.0]
    """

    threshold: float = 0.7
    scales: object = "channel"
    bits = 2

    def __post_init__(self):
        check_scales(self.scales)
        if not 0 <= self.threshold < float("inf"):
            raise ValueError(f"`threshold` times the mean magnitude is the bound of zero: a number >= 0. "
                             f"Received: threshold={self.threshold!r}.")

    def apply(self, w, state):
        w = ops.convert_to_tensor(w)
        parts = grouped(w, self.scales)
        size = ops.abs(parts)
        living = ops.maximum(ops.sum(ops.cast(parts != 0, "float32"), axis=(0, 2), keepdims=True), 1.0)
        beyond = ops.cast(size > self.threshold * ops.sum(size, axis=(0, 2), keepdims=True) / living, "float32")
        count = ops.maximum(ops.sum(beyond, axis=(0, 2), keepdims=True), 1.0)
        alpha = ops.sum(beyond * size, axis=(0, 2), keepdims=True) / count
        return straight_through(w, ops.reshape(alpha * beyond * ops.sign(parts), w.shape))
