"""Two-stage distillation of embeddings: first the teacher's representation, then its classes with a margin."""

import keras
import numpy as np

from tfcompress.distillation.distiller import Distiller
from tfcompress.distillation.losses import soft_targets
from tfcompress.distillation.margin import MarginCrossEntropy, MarginSoftmax
from tfcompress.wrapper import read


def embedding_of(model):
    """The net in front of a ``MarginSoftmax`` head: what is exported and compared by cosine."""
    return keras.Model(model.inputs, _head(model).input, name=f"{model.name}_embedding")


def _head(model):
    if not isinstance(model.layers[-1], MarginSoftmax):
        raise ValueError(f"Expected a model that ends in MarginSoftmax. '{model.name}' ends in "
                         f"{type(model.layers[-1]).__name__}.")
    return model.layers[-1]


def representation_stage(student, teacher):
    """Stage one: a ``Distiller`` in which ``student`` learns the teacher's embeddings; labels and heads have no part.

    Args:
        student: net ``inputs -> (batch, d)``; any d: a linear regressor stands between, where it is not the teacher's.
        teacher: ends in ``MarginSoftmax``.
    """
    return Distiller(student, embedding_of(teacher), alpha=None, features=[(None, None, "representation", 1.0)])


def classification_stage(student, teacher, *, temperature=4.0, alpha=0.5, beta=1.0):
    """Stage two: a ``Distiller`` of the student with a margin head; compile it with a ``MarginCrossEntropy``.

    ``margin loss + alpha * T**2 * KL + beta * representation``; the KL divergence is that of the cosines, not of the
    scaled logits. The head starts as the teacher's classifier where embeddings are of one size.
    """
    head = _head(teacher)
    own = MarginSoftmax(head.classes, head.scale, name="margin_head")
    model = keras.Model(student.inputs, own(student.outputs[0]), name=f"{student.name}_classifier")
    if own.kernel.shape == head.kernel.shape:
        own.kernel.assign(read(head.kernel))
    theirs = embedding_of(teacher)

    def cosines(taught, learned):
        return keras.ops.mean(soft_targets(taught / head.scale, learned / head.scale, temperature))

    inner = (theirs.outputs[0]._keras_history.operation.name, student.outputs[0]._keras_history.operation.name)
    features = [(None, None, cosines, alpha), (*inner, "representation", beta)]
    return Distiller(model, teacher, alpha=0.0, features=features)


def two_stage(student, teacher, data, *, epochs=(10, 10), learning_rate=1e-3, batch_size=64, loss=None, **weights):
    """Train an embedding net in two stages; returns it, trained in place.

    Args:
        student: net ``inputs -> (batch, d)``.
        teacher: trained model that ends in ``MarginSoftmax``.
        data: ``(x, y)``, y class numbers.
        epochs: of the stages. learning_rate: of Adam in stage one, a tenth of it in stage two.
        loss: of stage two; default ``MarginCrossEntropy("arcface", scale of the teacher's head)``.
        weights: temperature, alpha, beta of ``classification_stage``.

    Raises:
        ValueError: a teacher without a ``MarginSoftmax`` head, no ``(x, y)``, class numbers that the head has not.

    Ni R, Shen M, Yuan B, "Enhanced Knowledge Distillation for Face Recognition", ISPA 2019; our reading of the
    abstract.
    """
    x, y = _checked(teacher, data)
    loss = loss or MarginCrossEntropy("arcface", teacher.layers[-1].scale)
    first = representation_stage(student, teacher)
    first.compile(keras.optimizers.Adam(learning_rate))
    first.fit(x, batch_size=batch_size, epochs=epochs[0], verbose=0)
    second = classification_stage(student, teacher, **weights)
    second.compile(keras.optimizers.Adam(learning_rate / 10), loss)
    second.fit(x, y, batch_size=batch_size, epochs=epochs[1], verbose=0)
    return student


def _checked(teacher, data):
    classes = _head(teacher).classes
    if not (isinstance(data, (tuple, list)) and len(data) == 2 and len(data[0]) == len(data[1])):
        raise ValueError("`data` is (x, y), samples and as many class numbers. Received: "
                         f"{type(data).__name__} of {len(data)}.")
    y = np.asarray(data[1])
    if y.ndim != 1 or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= classes:
        raise ValueError(f"y are class numbers, 0 to {classes - 1} of the teacher's head. Received: {y.dtype} of shape "
                         f"{y.shape}, {y.min()} to {y.max()}.")
    return data[0], y
