"""Half precision as a method: train with the weights a float16 file will hold."""

from dataclasses import dataclass

from keras import ops

from tfcompress.method import Method, serializable, straight_through


@serializable
@dataclass(frozen=True)
class Float16(Method):
    """Forward: ``w`` rounded to IEEE half precision, saturated at +-65504; gradient straight through.

    >>> import numpy as np
    >>> float(Float16().apply(np.array([0.1], "float32"), {})[0]) == float(np.float16(0.1))
    True
    """

    bits = 16

    def apply(self, w, state):
        w = ops.convert_to_tensor(w)
        half = ops.cast(ops.clip(w, -65504.0, 65504.0), "float16")
        return straight_through(w, ops.cast(half, "float32"))
