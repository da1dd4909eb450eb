"""What a classifier is trained on: the loss that fits what it gives, and labels as a loss wants them."""

import keras
import numpy as np
from keras import ops

from tfcompress.distillation.losses import head_of


def fitting_labels(loss, y, shape):
    """Class numbers for a loss that takes one-hot labels, one-hot labels for one that takes numbers: turned.

    Args:
        loss: what a model was compiled with: name, function or ``keras.losses.Loss``; any other is left alone.
        y: labels, ``(n, ...)``, ``(n, ..., 1)`` or one-hot ``(n, ..., classes)``.
        shape: of the model's output, the batch first.

    >>> fitting_labels("categorical_crossentropy", np.array([1]), (None, 2)).numpy().tolist()
    [[0.0, 1.0]]
    >>> fitting_labels("sparse_categorical_crossentropy", np.array([[0.0, 1.0]]), (None, 2)).numpy().tolist()
    [1]
    """
    if len(keras.tree.flatten(loss)) != 1 or len(keras.tree.flatten(y)) != 1 or len(shape) < 2 or shape[-1] == 1:
        return y
    name = loss_name(loss)
    rest, place = tuple(np.shape(y)[1:]), tuple(shape[1:-1])
    one_hot = len(rest) == len(shape) - 1 and rest[-1] == shape[-1]
    if name.startswith("categorical_") and not one_hot and len(rest) - len(place) in (0, 1):
        y = ops.convert_to_tensor(y)
        return ops.one_hot(ops.cast(y if len(rest) == len(place) else ops.squeeze(y, -1), "int32"), shape[-1])
    if name == "sparse_categorical_crossentropy" and one_hot:
        return ops.argmax(y, axis=-1)
    return y


def check_labels(model, y):
    """ValueError for labels that are no numbers, or no classes of a model compiled for class numbers."""
    if y is None:
        return
    for labels in map(np.asarray, keras.tree.flatten(y)):
        if labels.dtype.kind not in "biuf":
            raise ValueError(f"y holds numbers. Received: {labels.dtype} such as {labels.ravel()[0]!r}.")
    shape, loss = model.outputs[0].shape, compiled_loss(model).get("loss")
    if len(model.outputs) > 1 or loss_name(loss) != "sparse_categorical_crossentropy":
        return
    flat = keras.tree.flatten(loss)[0]
    ignored = getattr(flat, "ignore_class", None), getattr(flat, "_fn_kwargs", {}).get("ignore_class")
    numbers = np.asarray(y)
    if numbers.shape[1:] != tuple(shape[1:]) and not (
            np.isin(numbers, (*range(shape[-1]), *(number for number in ignored if number is not None))).all()):
        raise ValueError(f"y holds the numbers of {shape[-1]} classes, 0 to {shape[-1] - 1}. Received: "
                         f"{numbers.min():g} to {numbers.max():g}.")


def loss_name(loss):
    """Name of the one loss of a model; "" where there are several."""
    flat = keras.tree.flatten(loss)
    known = keras.losses.get(flat[0]) if len(flat) == 1 and flat[0] is not None else None
    return getattr(getattr(known, "fn", known), "__name__", "")


def compiled_loss(model):
    """``{"loss": ..., "loss_weights": ...}`` for ``compile`` of another model; empty where ``model`` has no loss."""
    if getattr(model, "_compile_loss", None) is None:
        return {}
    weights = model._compile_loss._user_loss_weights
    return {"loss": by_position(model, model.loss), "loss_weights": by_position(model, weights)}


def by_position(model, given):
    """A dict by the names of ``model``'s outputs as a list in their order: nested models opened, names are others."""
    names = getattr(model, "output_names", ())
    named = isinstance(given, dict) and not isinstance(model.output, dict) and set(given) == set(names)
    return [given[name] for name in names] if named else given


def guessed_loss(model, x, y):
    """Cross-entropy for what the model gives, probabilities or logits, and for labels as they come.

    Raises:
        ValueError: it can't be told, as with several outputs, one output without sigmoid, or targets that are no
            classes.
    """
    shape, labels, head = model.outputs[0].shape, np.asarray(y), head_of(model)
    if len(model.outputs) > 1 or labels.dtype.kind not in "biuf" or not labels.size:
        kind = None
    elif labels.shape[1:] in (shape[1:], *([shape[1:-1]] if shape[-1] == 1 else [])):        # a value for each output
        one_hot = shape[-1] > 1 and np.allclose(labels.sum(-1), 1, atol=1e-3)
        kind = keras.losses.CategoricalCrossentropy if one_hot and head != "sigmoid" else None
        if head == "sigmoid" and 0 <= labels.min() and labels.max() <= 1:
            return keras.losses.BinaryCrossentropy()
    else:
        numbers = np.array_equal(labels, np.round(labels)) and 0 <= labels.min() and labels.max() < shape[-1]
        kind = keras.losses.SparseCategoricalCrossentropy if numbers and head != "sigmoid" else None
    if kind is None:
        raise ValueError(f"The loss of a model with outputs of the shapes {[tuple(t.shape) for t in model.outputs]} "
                         f"for y of shape {labels.shape} can't be guessed. Compile it first, or pass fit=.")
    scores = np.asarray(model(keras.tree.map_structure(lambda a: a[:32], x), training=False), "float32")
    logits = scores.min() < 0 or not np.allclose(scores.sum(-1), 1, atol=0.05)
    return kind(from_logits=bool(logits))
