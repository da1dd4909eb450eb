"""``Binary``: binary-weight networks."""

from dataclasses import dataclass

from keras import ops

from tfcompress.method import Method, serializable, straight_through
from tfcompress.quantization.groups import check_scales, grouped


@serializable
@dataclass(frozen=True)
class Binary(Method):
    """Forward ``alpha * sign(w)``, ``alpha = mean|w|`` of the group; gradient straight through; ``sign(0) = 1``.

    Rastegari et al. 2016, XNOR-Net's binary-weight networks (arXiv:1603.05279): the nearest binary point to ``w``.
    For pruned weights that stay zero: ``Chain((Binary(), Prune(...)))``.

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
        alpha = ops.mean(ops.abs(parts), axis=(0, 2), keepdims=True)
        return straight_through(w, ops.reshape(ops.where(parts >= 0, alpha, -alpha), w.shape))
