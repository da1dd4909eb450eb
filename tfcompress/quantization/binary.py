"""``Binary``: binary-weight networks."""

from dataclasses import dataclass

from keras import ops

from tfcompress.method import Method, serializable, straight_through
from tfcompress.quantization.groups import check_scales, grouped


@serializable
@dataclass(frozen=True)
class Binary(Method):
    """Forward ``alpha * sign(w)``, ``alpha = mean|w|`` of the group; gradient straight through.

    Rastegari et al. 2016, XNOR-Net's binary-weight networks (arXiv:1603.05279): the nearest binary point to ``w``.
    Weights that are exactly 0 stay 0, and out of the mean: they are pruned.

    Args:
        scales: "channel" (one scale an output channel), "tensor", or a number of groups along the last axis (4: the
            gates of an LSTM).

    >>> import numpy as np
    >>> np.array(Binary().apply(np.array([[1.0, -2.0], [-3.0, 4.0]], "float32"), {})).tolist()
    [[2.0, -3.0], [-2.0, 3.0]]
    """

    scales: object = "channel"
    bits = 1

    def __post_init__(self):
        check_scales(self.scales)

    def apply(self, w, state):
        w = ops.convert_to_tensor(w)
        parts = grouped(w, self.scales)
        count = ops.maximum(ops.sum(ops.cast(parts != 0, "float32"), axis=(0, 2), keepdims=True), 1.0)
        alpha = ops.sum(ops.abs(parts), axis=(0, 2), keepdims=True) / count
        return straight_through(w, ops.reshape(alpha * ops.sign(parts), w.shape))
