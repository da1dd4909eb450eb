"""Losses that several tasks share."""

import keras

from tfcompress.distillation.losses import head_of
from tfcompress.method import serializable


def cross_entropy(model):
    """Cross-entropy of class numbers for what `model` ends in: probabilities or logits; -1 counts for nothing.

    One sigmoid is the second of two classes.
    """
    if one_sigmoid(model):
        return keras.losses.BinaryCrossentropy()
    return PaddedCrossEntropy(from_logits=head(model) == "logits")


def binary_cross_entropy(model):
    """Cross-entropy of each 0/1 label on its own, for probabilities or logits."""
    return keras.losses.BinaryCrossentropy(from_logits=head(model) == "logits")


def one_sigmoid(model):
    """Whether `model` ends in `Dense(1, "sigmoid")` or the like."""
    return head(model) == "sigmoid" and tuple(getattr(model, "student", model).outputs[0].shape[1:]) == (1,)


def head(model):
    """"logits", "softmax" or "sigmoid": what the one output of `model` is; of a `Distiller` its student's."""
    return head_of(getattr(model, "student", model)) or "logits"


@serializable
class PaddedCrossEntropy(keras.losses.Loss):
    """Cross-entropy of class numbers `(...)` and scores `(..., classes)`: the mean over those that are not -1.

    The mean is taken in each example first, so that long and short ones count alike.

    >>> loss = PaddedCrossEntropy(from_logits=True)
    >>> round(float(loss([[0, -1]], [[[0.0, 0.0], [9.0, 0.0]]])), 4)
    0.6931
    """

    def __init__(self, from_logits=False, *, name="cross_entropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.from_logits = from_logits

    def call(self, y_true, y_pred):
        y_true, y_pred = keras.ops.cast(y_true, "int32"), keras.ops.convert_to_tensor(y_pred)
        if len(y_true.shape) == len(y_pred.shape):
            y_true = keras.ops.squeeze(y_true, -1)       # Keras gave class numbers (batch,) an axis
        entropy = keras.ops.sparse_categorical_crossentropy(
            keras.ops.maximum(y_true, 0), y_pred, from_logits=self.from_logits)
        if len(entropy.shape) == 1:
            return entropy
        counts = keras.ops.cast(y_true >= 0, entropy.dtype)
        axes = tuple(range(1, len(entropy.shape)))
        total = keras.ops.maximum(keras.ops.sum(counts, axes), 1.0)
        return keras.ops.sum(entropy * counts, axes) / total

    def get_config(self):
        return {**super().get_config(), "from_logits": self.from_logits}
