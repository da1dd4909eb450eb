"""Training an embedding with a margin: a head of cosines, and the cross-entropy that asks for more than the class.

The head is for training only: what is exported is the net before it, whose output is compared by cosine.
"""

import math

import keras
from keras import ops

from tfcompress.distillation.features import unit
from tfcompress.method import serializable

MARGINS = {"arcface": 0.5, "cosface": 0.35}
SMALLEST = 1e-7  # of sin(angle)**2: bounds the gradient of the angle at 0 and pi


@serializable
class MarginSoftmax(keras.layers.Layer):
    """``scale * cos(embedding, weights of the class)``: logits ``(..., classes)`` of embeddings ``(..., features)``.

    Both are made unit vectors; there is no bias and no margin, so that predictions and accuracy are those of the plain
    head. Train with ``MarginCrossEntropy(scale=...)``, the same scale; divide by ``scale`` before a temperature of
    distillation is applied. Computed in float32, also under mixed precision. Leave it out of what you export.

    Source: Wang et al., "CosFace", arXiv:1801.09414; Deng et al., "ArcFace", arXiv:1801.07698.

    >>> import keras, numpy as np
    >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])     # exported: keras.Model of the embedding
    >>> trained = keras.Sequential([net, MarginSoftmax(3, scale=16)])
    >>> trained.compile("adam", MarginCrossEntropy("cosface", scale=16), metrics=["accuracy"])
    >>> sorted(trained.fit(np.eye(4), np.array([0, 1, 2, 0]), verbose=0).history)
    ['accuracy', 'loss']
    """

    def __init__(self, classes, scale=64.0, *, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        if not isinstance(classes, int) or classes < 2:
            raise ValueError(f"A head needs two classes or more. Received: classes={classes!r}.")
        _check_scale(scale)
        self.classes, self.scale = classes, float(scale)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise ValueError(f"Embeddings have shape (batch, features) with known features. Received: "
                             f"{tuple(input_shape)}. Flatten or pool before MarginSoftmax.")
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.classes), initializer=self.kernel_initializer, name="kernel")

    def call(self, embeddings):
        return self.scale * ops.matmul(unit(embeddings), unit(self.kernel, axis=0))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.classes)

    def get_config(self):
        own = {"classes": self.classes, "scale": self.scale,
               "kernel_initializer": keras.initializers.serialize(self.kernel_initializer)}
        return {**super().get_config(), **own}


@serializable
class MarginCrossEntropy(keras.losses.Loss):
    """Softmax cross-entropy of cosines times ``scale``, after the cosine of the true class was made harder to reach.

    ==========  =============================  ==============
    kind        true class                     usual margin
    ==========  =============================  ==============
    "arcface"   ``cos(angle + margin)``        0.5, radians
    "cosface"   ``cos(angle) - margin``        0.35
    ==========  =============================  ==============

    Beyond ``angle + margin > pi`` ArcFace would turn back: there it is ``cos(angle) - margin * sin(margin)``. The
    gradient by the cosine of the true class is ``cos(margin) + sin(margin) * cos / sin``, with ``sin**2`` held above
    1e-7, and 1 for CosFace: finite everywhere. With margin 0 this is Keras's cross-entropy, bit for bit.

    Args:
        kind: "arcface" or "cosface".
        scale: what the cosines in ``y_pred`` were multiplied with (``MarginSoftmax.scale``).
        margin: 0 or more, below pi for ArcFace; None: the usual one.

    Call it with ``y_true`` of class numbers, ``(...)`` or ``(..., 1)``, or one-hot ``(..., classes)``, and ``y_pred``
    ``(..., classes)``.

    Source: Deng et al., "ArcFace", arXiv:1801.07698; Wang et al., "CosFace", arXiv:1801.09414.

    >>> cosines = [[0.5, 0.1]]
    >>> round(float(MarginCrossEntropy("cosface", scale=1, margin=0.4)([0], cosines)), 4)     # two equal logits
    0.6931
    """

    def __init__(self, kind="arcface", scale=64.0, margin=None, *, name="margin_cross_entropy",
                 reduction="sum_over_batch_size", dtype="float32"):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if kind not in MARGINS:
            raise ValueError(f"Unknown kind of margin: {kind!r}. Known: {list(MARGINS)}.")
        _check_scale(scale)
        self.kind, self.scale = kind, float(scale)
        self.margin = MARGINS[kind] if margin is None else float(margin)
        if not 0 <= self.margin < (math.pi if kind == "arcface" else 2):
            raise ValueError(
                f"A margin is 0 or more, below pi (radians) for arcface and below 2 for cosface. Received: "
                f"margin={margin} for {kind!r}. Usual: {MARGINS[kind]}.")

    def call(self, y_true, y_pred):
        y_true, y_pred = (ops.convert_to_tensor(y, dtype=self.dtype) for y in (y_true, y_pred))     # also of lists
        classes = y_pred.shape[-1]
        one_hot = len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == classes
        if not one_hot and len(y_true.shape) == len(y_pred.shape):
            y_true = self._squeezed(y_true, y_pred)
        labels = y_true if one_hot else ops.one_hot(ops.cast(y_true, "int32"), classes, dtype=y_pred.dtype)
        logits = y_pred - labels * self.scale * self._reduction_of(y_pred / self.scale)
        entropy = ops.categorical_crossentropy if one_hot else ops.sparse_categorical_crossentropy
        return entropy(y_true if one_hot else ops.cast(y_true, "int32"), logits, from_logits=True)

    def _squeezed(self, y_true, y_pred):
        if y_true.shape[-1] != 1:
            raise ValueError(
                f"Labels are class numbers (...) or (..., 1), or one-hot (..., {y_pred.shape[-1]}). Received: y_true "
                f"{tuple(y_true.shape)} for y_pred {tuple(y_pred.shape)}.")
        return ops.squeeze(y_true, axis=-1)

    def _reduction_of(self, cosine):
        """What the margin takes from a cosine."""
        if self.kind == "cosface":
            return self.margin * ops.ones_like(cosine)
        sine = ops.sqrt(ops.maximum(1 - ops.square(cosine), SMALLEST))
        near = (1 - math.cos(self.margin)) * cosine + math.sin(self.margin) * sine
        return ops.where(cosine > -math.cos(self.margin), near, self.margin * math.sin(self.margin))

    def get_config(self):
        own = {"kind": self.kind, "scale": self.scale, "margin": self.margin, "dtype": self.dtype}
        return {**super().get_config(), **own}


def _check_scale(scale):
    if not 0 < scale < float("inf"):
        raise ValueError(f"The scale of the cosines must be positive. Received: scale={scale}. Usual: 16 to 64.")
