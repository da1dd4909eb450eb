"""``TrainedTernary``: ternary weights with two learned scales."""

from dataclasses import dataclass

import numpy as np
from keras import ops

from tfcompress.method import Method, serializable
from tfcompress.quantization.groups import check_scales, group_count, grouped, members

SMALLEST = 1e-6


@serializable
@dataclass(frozen=True)
class TrainedTernary(Method):
    """Forward ``+positive`` where ``w > delta``, ``-negative`` where ``w < -delta``, else 0; both scales are trained.

    ``delta = threshold * max|w|`` of the group, anew at each step. Gradients, ``g`` being that of the ternary weight:
    ``sum g`` over the positive weights for ``positive`` and ``-sum g`` over the negative ones for ``negative``, divided
    by their number with ``average``; for ``w`` itself ``positive * g``, ``g`` or ``negative * g``. Scales stay above
    1e-6. Zhu et al. 2016, trained ternary quantization (arXiv:1612.01064).

    Args:
        threshold: share of the largest magnitude, in [0, 1); the paper's 0.05 leaves few zeros.
        scales: "tensor" (the paper's), "channel", or a number of groups along the last axis (4: the gates of an LSTM).
        average: divide the gradients of the scales by the number of weights behind them: with plain gradient descent
            they are too large otherwise.

    >>> import numpy as np
    >>> method, w = TrainedTernary(threshold=0.2), np.array([[1.0], [3.0], [-4.0], [0.5]], "float32")
    >>> state = method.init(w)
    >>> state["positive"].tolist(), state["negative"].tolist()
    ([2.0], [4.0])
    >>> np.array(method.apply(w, state)).ravel().tolist()
    [2.0, 2.0, -4.0, 0.0]
    """

    threshold: float = 0.05
    scales: object = "tensor"
    average: bool = True

    trainable = ("positive", "negative")
    bits = 2

    def __post_init__(self):
        check_scales(self.scales)
        if not 0 <= self.threshold < 1:
            raise ValueError("`threshold` is a share of the largest magnitude, in [0, 1). "
                             f"Received: threshold={self.threshold!r}.")

    def init(self, w):
        """The mean sizes of the positive and of the negative weights beyond the threshold: (groups,) each."""
        parts = members(np.asarray(w, "float64"), self.scales)
        delta = self.threshold * np.abs(parts).max(axis=1, keepdims=True)
        sides = {"positive": (parts > delta, parts), "negative": (parts < -delta, -parts)}
        return {name: np.maximum((on * size).sum(1) / np.maximum(on.sum(1), 1), SMALLEST).astype("float32")
                for name, (on, size) in sides.items()}

    def apply(self, w, state):
        w = ops.convert_to_tensor(w)
        parts = grouped(w, self.scales)
        shape = (1, group_count(w.shape, self.scales), 1)
        delta = ops.stop_gradient(self.threshold * ops.max(ops.abs(parts), axis=(0, 2), keepdims=True))
        total, slope = 0.0, 1.0
        for name, sign, on in (("positive", 1.0, parts > delta), ("negative", -1.0, parts < -delta)):
            on = ops.cast(on, "float32")
            scale = ops.reshape(ops.convert_to_tensor(state[name]), shape)
            kept = ops.stop_gradient(ops.maximum(scale, SMALLEST))           # a gradient below it too, the way back up
            share = ops.maximum(ops.sum(on, axis=(0, 2), keepdims=True), 1.0) if self.average else 1.0
            total = total + sign * on * (kept + (scale - ops.stop_gradient(scale)) / share)
            slope = slope + on * (kept - 1.0)
        return ops.reshape(total + slope * (parts - ops.stop_gradient(parts)), w.shape)
