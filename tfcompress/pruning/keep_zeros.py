"""``KeepZeros``: a pruned model goes on training, and what is zero stays zero."""

import dataclasses

import numpy as np

from tfcompress.method import Method, serializable


@serializable
@dataclasses.dataclass(frozen=True)
class KeepZeros(Method):
    """``w' = w * (w_0 != 0)`` with the weights ``w_0`` that ``compress`` was given; gradients pass through the mask.

    For training behind pruning: ``compress(pruned, KeepZeros())``, and on ``quantize_aware(pruned)`` or in a ``Chain``
    with a method of few bits. The mask is made once and is saved with the model.

    >>> import keras
    >>> from tfcompress import compress
    >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False, name="one")])
    >>> net.set_weights([np.array([[1.0, 0.0], [0.0, -2.0]])])
    >>> held = compress(net, [("one", KeepZeros())])
    >>> held.compile("sgd", "mse")
    >>> loss = held.train_on_batch(np.ones((1, 2)), np.ones((1, 2)))
    >>> keras.ops.convert_to_numpy(held(np.eye(2))).round(1).tolist()
    [[1.0, 0.0], [0.0, -2.0]]
    """

    def init(self, w):
        return {"mask": (np.asarray(w) != 0).astype("float32")}

    def apply(self, w, state):
        return w * state["mask"]
