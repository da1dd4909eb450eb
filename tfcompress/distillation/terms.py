"""What a student is taught beside the outputs: losses between a layer of the teacher's and one of its own."""

import functools
import math
import threading

import keras
from keras import ops

from tfcompress.distillation import features
from tfcompress.model import leaves

LOSSES = {
    "hint": features.hint,
    "attention": features.attention_transfer,
    "similarity": features.similarity,
    "relation": features.pairwise_relation,
    "mmd": features.mmd,
    "representation": features.representation,
    "adversarial": features.adversarial,
}
_SAME_SIZE = ("hint", "mmd", "representation", "adversarial")


class Tap:
    """The output of a layer, as it was when the layer was last called in this thread.

    Layers of nested models, shared ones and wrappers can be tapped: nothing is rebuilt, nothing runs twice.
    """

    def __init__(self, model, path):
        layer = _layer_at(model, path)
        self.store = vars(layer).get("_tfcompress_tap")
        if self.store is not None:
            return
        self.store, inner = threading.local(), layer.call

        @functools.wraps(inner)
        def call(*args, **kwargs):
            self.store.value = inner(*args, **kwargs)
            return self.store.value

        object.__setattr__(layer, "call", call)          # seen by Keras, not tracked
        object.__setattr__(layer, "_tfcompress_tap", self.store)

    def take(self):
        return self.store.value


def _layer_at(model, path):
    """The layer of that path, or the nested model of that name."""
    known = {layer.name: layer for layer in model.layers} | dict(leaves(model))
    if path not in known:
        raise ValueError(f"Model '{model.name}' has no layer at {path!r}. It has: {[own for own, _ in leaves(model)]}.")
    return known[path]


def output_of(model, path):
    """Shape of what a layer gives; of the model's own output for the path None."""
    if path is None:
        return tuple(model.outputs[0].shape)
    layer = _layer_at(model, path)
    try:
        return tuple(layer.output.shape)
    except AttributeError:
        raise ValueError(f"Layer {path!r} of '{model.name}' is called several times, or in no graph: what it gives is "
                         "not one tensor. Name another layer.") from None


class Term(keras.layers.Layer):
    """``weight * loss(teacher's features, student's features)``, with what it needs in training alone.

    A linear regressor, where the student has another number of channels; a discriminator for "adversarial". Both are
    trained with the student, by its optimizer, and are no part of it. The discriminator learns from its own loss, with
    weight 1, on features that are held still; the student from ``adversarial``, for which the discriminator is.

    Args:
        kind: a name of ``LOSSES``, or a function (teacher, student) -> scalar.
        teacher, student: shapes of the features, the batch first.
        weight: a float, or a schedule of the step.
    """

    def __init__(self, kind, teacher, student, weight, name):
        super().__init__(name=name, dtype="float32")
        if not callable(kind) and kind not in LOSSES:
            raise ValueError(f"Unknown loss {kind!r}. Known: {list(LOSSES)}, or a function (teacher, student) -> "
                             "scalar.")
        self.kind, self.weight = kind, weight
        self.regressor = self.judge = None
        if kind in _SAME_SIZE:
            self._match(teacher, student)
        self.tracker = keras.metrics.Mean(name=name)
        self.built = True

    def _match(self, teacher, student):
        if self.kind == "hint":
            wanted, given = teacher[-1], student[-1]
        else:
            wanted, given = (_size(self.name, shape) for shape in (teacher, student))
        if wanted != given:
            self.regressor = keras.layers.Dense(wanted, name="regressor", dtype="float32")
            self.regressor.build((None, given))
        if self.kind == "adversarial":
            self.judge = features.discriminator(wanted)

    def call(self, teacher, student):
        """The loss without its weight, and what the discriminator adds."""
        teacher, student = ops.cast(teacher, "float32"), ops.cast(student, "float32")
        if self.kind in ("mmd", "representation", "adversarial"):
            teacher, student = (ops.reshape(x, (-1, math.prod(x.shape[1:]))) for x in (teacher, student))
        if self.regressor is not None:
            student = self.regressor(student)
        if self.kind == "hint":
            teacher, student = features.matched(teacher, student)
        if self.judge is None:
            return LOSSES.get(self.kind, self.kind)(teacher, student), 0.0
        still = [ops.stop_gradient(v.value) for v in self.judge.trainable_variables]
        fooled, _ = self.judge.stateless_call(still, [], student)
        own = features.discriminator_loss(self.judge(teacher), self.judge(ops.stop_gradient(student)))
        return features.adversarial(fooled), own


def _size(name, shape):
    if None in shape[1:]:
        raise ValueError(f"{name} compares whole features, whose size must be known. Received: {shape}. Name a layer "
                         "behind the pooling, or give the input its sizes.")
    return math.prod(shape[1:])


def terms_of(student, teacher, asked):
    """``[(Term, the teacher's Tap, the student's)]`` of ``[(teacher's layer, student's layer, loss, weight)]``."""
    made, names = [], []
    for one in asked:
        if not isinstance(one, (tuple, list)) or len(one) != 4:
            raise ValueError("A feature is (the teacher's layer, the student's layer, loss, weight); None for a layer "
                             f"is the model's output. Received: {one!r}.")
        theirs, ours, kind, weight = one
        name = kind if isinstance(kind, str) else getattr(kind, "__name__", "feature")
        name = name if name.isidentifier() else "feature"            # "<lambda>"
        names.append(name)
        name = name if names.count(name) == 1 else f"{name}_{names.count(name)}"
        term = Term(kind, output_of(teacher, theirs), output_of(student, ours), weight, name)
        made.append((term, theirs and Tap(teacher, theirs), ours and Tap(student, ours)))
    return made
