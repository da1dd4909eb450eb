"""Training after surgery: so many epochs on the user's data, by the labels and by a teacher."""

import keras

from tfcompress.distillation.distiller import Distiller
from tfcompress.pruning.targets import compiled_loss, fitting_labels, guessed_loss


def epochs(count, start, data, teacher=None):
    """A ``fit(model, round)`` of so many epochs on ``data`` with Adam 1e-3: told what is wrong before any work.

    The loss is what ``start`` was compiled with, or one that fits it. With a ``teacher`` (a Keras model; True:
    ``start``) the model learns from it too, by ``Distiller`` with its defaults, and without labels from it alone.

    Raises:
        ValueError: no number of epochs, a teacher of other classes or without data.
    """
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"`fit` is fit(model, round) or a number of epochs >= 0. Received: fit={count!r}.")
    teacher = start if teacher is True else teacher or None
    if teacher is not None:
        Distiller(start, teacher)
        if data is None:
            raise ValueError("A teacher needs data to teach on: data=(x, y), or (x, None) without labels.")
    if not count or data is None or data[1] is None and teacher is None:
        return lambda model, number: None
    x, y = data
    options, alpha = {"loss": None}, 1.0
    if y is not None:
        options, alpha = compiled_loss(start) or {"loss": guessed_loss(start, x, y)}, 0.9
        y = fitting_labels(options["loss"], y, start.outputs[0].shape)

    def fit(model, number):
        student, given = model, options
        if teacher is not None:                          # whose weight is alpha's business
            student, given = Distiller(model, teacher, alpha=alpha), {"loss": options["loss"]}
        student.compile(keras.optimizers.Adam(1e-3), **given)
        student.fit(x, y, epochs=count, batch_size=64, verbose=0)
    return fit
