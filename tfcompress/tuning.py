"""Training after surgery: so many epochs on the user's data, by the labels and by a teacher."""

import keras

from tfcompress.distillation.distiller import Distiller
from tfcompress.pruning.targets import compiled_loss, fitting_labels, guessed_loss


def training(fit, start, data, teacher=None):
    """``fit(model, round)``, as given or of so many epochs on ``data`` with Adam 1e-3: told what is wrong beforehand.

    The loss is what ``start`` was compiled with, or one that fits it. With a ``teacher`` (a Keras model; True:
    ``start``) the model learns from it too, by ``Distiller`` with its defaults, and without labels from it alone.

    Raises:
        ValueError: no number of epochs; epochs without data, or without labels and a teacher; a teacher of other
            classes, or with nothing to do.
    """
    teacher = start if teacher is True else teacher or None
    if callable(fit):
        if teacher is not None:
            raise ValueError("A teacher goes with a number of epochs. Received: teacher= beside a fit of your own: put "
                             "a Distiller into it.")
        return fit
    if not isinstance(fit, int) or fit < 0:
        raise ValueError(f"`fit` is fit(model, round) or a number of epochs >= 0. Received: fit={fit!r}.")
    if teacher is not None:
        Distiller(start, teacher)
        if data is None:
            raise ValueError("A teacher needs data to teach on: data=(x, y), or (x, None) without labels.")
        if not fit:
            raise ValueError("A teacher needs epochs to teach in. Received: teacher= with fit=0.")
    if not fit:
        return lambda model, number: None
    x, y = data if data is not None else (None, None)
    if y is None and teacher is None:
        raise ValueError(f"To train, labels are needed, data=(x, y), or a teacher. Received: fit={fit} and "
                         f"{'no data' if x is None else 'x alone'}.")
    options, alpha = {"loss": None}, 1.0
    if y is not None:
        options, alpha = compiled_loss(start) or {"loss": guessed_loss(start, x, y)}, 0.9
        y = fitting_labels(options["loss"], y, start.outputs[0].shape)

    def tune(model, number):
        student, given = model, options
        if teacher is not None:                          # whose weight is alpha's business
            student, given = Distiller(model, teacher, alpha=alpha), {"loss": options["loss"]}
        student.compile(keras.optimizers.Adam(1e-3), **given)
        student.fit(x, y, epochs=fit, batch_size=64, verbose=0)
    return tune
