"""`Distiller`: trains a student on the labels and on a teacher: its softened outputs, and its features."""

import keras
import numpy as np
from keras import ops

from tfcompress.distillation.losses import HEADS, head_of, recover_logits, soft_targets
from tfcompress.distillation.terms import terms_of
from tfcompress.graph import batches
from tfcompress.model import plain_twin


class SoftLoss(keras.losses.Loss):
    """Mean of ``soft_targets``; Keras adds sample weights, masks and the scaling for tf.distribute."""

    def __init__(self, heads, temperature):
        super().__init__(name="soft_loss", dtype="float32")
        self.heads, self.temperature = heads, temperature

    def call(self, y_true, y_pred):
        teacher, student = self.heads
        return soft_targets(recover_logits(y_true, teacher), recover_logits(y_pred, student), self.temperature.value)


class Distiller(keras.Model):
    """``alpha * T**2 * KL(teacher(T) || student(T)) + (1 - alpha) * loss(y, student) + features + the student's own``.

    Compile, fit and evaluate it like any Keras model; ``loss`` and ``metrics`` are those of the student and see its
    predictions. The student may come from ``compress`` or ``quantize_aware``: penalties are added, and
    ``CompressionCallback`` finds its layers. Both nets get the same batch; the teacher runs with ``training=False``
    and is never changed. ``predict``, ``save``, ``save_weights`` and ``export`` are the student's, which is
    ``distiller.student``. The optimizer's state is saved with it, so
    ``Distiller(keras.models.load_model(path), teacher).compile(loaded.optimizer, ...)`` goes on where it stopped;
    with ``features`` it is not: what they need is trained by it too, and thrown away.
    Sample and class weights weigh the outputs' terms, not the features'. The terms without their weights are in the
    logs: ``soft_loss``, and each feature by its name.

    ``keras.distillation.Distiller`` (Keras 3.15) instead takes the outputs for logits even behind a softmax, ignores
    sample weights and the losses of layers (regularizers, pruning penalties), freezes the teacher it was given, saves
    the teacher with the student, and has no schedules, regressors or discriminators.

    Args:
        student: Keras model with one output: logits, softmax or sigmoid; anything where only features are learned.
        teacher: trained Keras model with the same input and classes; its head may be of another kind. "self": a copy
            of the student as it is now, without its compression (self-distillation).
        temperature: T, a positive number or a schedule ``optimizer step -> T`` (``tfcompress.schedules``). With
            ``steps_per_execution=n`` schedules are read every n steps.
        alpha: weight of the teacher's outputs, 0..1, or a schedule. At 0 training is plain training, bit for bit where
            there are no features; at 1 no labels and no ``loss`` are needed; None: features alone, neither outputs nor
            labels (stage one of FitNets: what lies above the guided layer has no gradient).
        features: ``[(the teacher's layer, the student's layer, loss, weight), ...]``. Layers by path
            ("encoder/conv1"), None: the output. Losses: "hint", "attention", "similarity", "relation", "mmd",
            "representation", "adversarial" (``distillation.features``), or a function (teacher, student) -> scalar.
            Weights are numbers or schedules. A linear regressor is put behind the student's features where a loss needs
            as many as the teacher has, and a discriminator for "adversarial"; they go with the Distiller.
        view: what the student sees of a batch, a function of it, such as a smaller image; the teacher sees all.
        heads: ``(student's, teacher's)``, each "logits", "softmax" or "sigmoid"; by default read from the models.

    Raises:
        ValueError: another number of classes, several outputs, an alpha or temperature out of range, an unknown layer
            or loss, or a subclassed model (its head can't be read) without ``heads``.

    Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531; Romero et al. 2015, arXiv:1412.6550.

    >>> import keras, numpy as np
    >>> x, y = np.eye(4, dtype="float32"), np.array([0, 1, 0, 1])
    >>> def net(units): return keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(units, name="hidden"), keras.layers.Dense(2)])
    >>> distiller = Distiller(net(3), net(8), temperature=4.0, alpha=0.9, features=[("hidden", "hidden", "hint", 10.0)])
    >>> distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    >>> sorted(distiller.fit(x, y, verbose=0).history)
    ['accuracy', 'hint', 'loss', 'soft_loss']
    """

    def __init__(self, student, teacher, temperature=4.0, alpha=0.9, *, features=(), view=None, heads=None,
                 name="distiller"):
        super().__init__(name=name)
        teacher = plain_twin(student) if isinstance(teacher, str) and teacher == "self" else teacher
        if not (alpha is None or callable(alpha) or 0.0 <= alpha <= 1.0):
            raise ValueError(f"`alpha`, the weight of the teacher, is a number from 0 to 1, a schedule, or None. "
                             f"Received: alpha={alpha}")
        if alpha is None and not features:
            raise ValueError("With alpha=None the student learns features alone. Received: features=().")
        self.soft = alpha is not None and (callable(alpha) or alpha > 0)
        _check_models(student, teacher, self.soft)
        _check_inputs(student, teacher, view)
        self.student = student
        object.__setattr__(self, "teacher", teacher)     # not tracked: neither trained, saved nor pruned with us
        self.alpha, self.temperature, self.view = alpha, temperature, view
        self.heads = _heads(student, teacher, heads) if self.soft else None
        self._current = keras.Variable(self._temperature_at(0), trainable=False, dtype="float32", name="temperature")
        if self.soft:
            self._soft = SoftLoss((self.heads[1], self.heads[0]), self._current)
            self._soft_tracker = keras.metrics.Mean(name="soft_loss")
        made = terms_of(student, teacher, features)
        self.terms = [term for term, _, _ in made]
        object.__setattr__(self, "_taps", [taps for _, *taps in made])
        scheduled = {"temperature": temperature, "alpha": alpha} | {
            f"the weight of {term.name}": term.weight for term in self.terms}
        self._schedules = {name: one for name, one in scheduled.items() if callable(one)}
        self._scheduled = {name: self._current if name == "temperature" else keras.Variable(
            _scheduled(name, one, 0), trainable=False, dtype="float32") for name, one in self._schedules.items()}
        self.built = student.built

    def _temperature_at(self, step):
        value = float(self.temperature(step) if callable(self.temperature) else self.temperature)
        if not 0.0 < value < float("inf"):
            raise ValueError(
                f"The temperature must be a positive number. Received: {value} at step {step} from "
                f"temperature={self.temperature!r}. Usual: 2 to 20; a schedule must start above 0 "
                f"(Linear(target=2, begin=0, end=1000, initial=8)).")
        return value

    def call(self, inputs, training=None):
        inputs = _inputs(inputs)
        return self.student(inputs if self.view is None else self.view(inputs), training=training)

    def cache(self, x, batch_size=256):
        """``x`` together with what the teacher says of it, to be given to ``fit`` in place of ``x``.

        The teacher then runs once a sample, not once an epoch. Only for samples that stay as they are: no augmentation.
        """
        several, parts = len(getattr(self.student, "inputs", None) or ()) > 1, []
        x = keras.tree.map_structure(np.asarray, x) if several else np.asarray(x)
        for part in batches(x, batch_size):
            taught = self._taught(keras.tree.map_structure(ops.convert_to_tensor, part))
            parts.append([None if one is None else ops.convert_to_numpy(one) for one in taught])
        whole = [np.concatenate(part) for part in zip(*parts, strict=True) if part[0] is not None]
        return {"inputs": x, "taught": whole}

    def compile(self, optimizer="adam", loss=None, metrics=None, **kwargs):
        """As ``keras.Model.compile``; ``loss`` may be left out only with ``alpha=1`` and None."""
        needed = self.alpha is not None and (callable(self.alpha) or self.alpha < 1.0)
        if loss is None and needed:
            raise ValueError(
                f"A loss on the labels is needed with alpha={self.alpha}. Received: loss=None. Give one, such as "
                f"'sparse_categorical_crossentropy', or learn from the teacher alone with alpha=1.")
        constant = self.soft and not callable(self.alpha) and loss is not None
        super().compile(optimizer, loss=None if self.alpha is None else loss, metrics=metrics,
                        loss_weights=1.0 - self.alpha if constant else None, **kwargs)
        if not self.terms:                               # so that `save` keeps the optimizer
            self.student.compile(self.optimizer, loss=loss, metrics=metrics)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Total loss of a batch: a float32 scalar."""
        if not self.soft and not self.terms:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        taught, total = self._given(x), 0.0
        alpha = self._now("alpha", self.alpha)
        replicas = self.distribute_strategy.num_replicas_in_sync
        if self.soft:
            soft = self._soft(taught[0], y_pred, sample_weight)
            self._soft_tracker.update_state(soft * replicas, sample_weight=ops.shape(y_pred)[0])
            total = alpha * soft
        if self.loss is not None and y is None:
            raise ValueError("The loss needs labels: fit(x, y). To learn from the teacher alone: alpha=1, and compile "
                             f"without a loss. Received: x alone, alpha={self.alpha}.")
        if self.loss is not None or self.losses:
            hard = super().compute_loss(x, y, y_pred, sample_weight, training)
            if callable(self.alpha):                     # the student's own losses have no weight
                own = sum(map(ops.sum, self.losses), 0.0)
                hard = (1.0 - alpha) * (hard - own) + own
            total = total + hard
        for term, (_, tap), features in zip(self.terms, self._taps, taught[1:], strict=True):
            value, judge = term(ops.stop_gradient(features), y_pred if tap is None else tap.take())
            term.tracker.update_state(value, sample_weight=ops.shape(y_pred)[0])
            total = total + (self._now(f"the weight of {term.name}", term.weight) * value + judge) / replicas
        return total

    def _taught(self, x):
        """The teacher's outputs (None where nothing asks for them), then its features in the order of the terms."""
        output = ops.stop_gradient(self.teacher(x, training=False))
        return [output if self.soft else None, *(output if tap is None else tap.take() for tap, _ in self._taps)]

    def _given(self, x):
        """What ``cache`` kept, or what the teacher says now."""
        if not _cached(x):
            return self._taught(x)
        return [*([] if self.soft else [None]), *x["taught"]]

    def _now(self, name, value):
        return self._scheduled[name].value if name in self._scheduled else value

    def make_train_function(self, force=False):
        """Keras's own, with schedules read before each call: they are Python and can't be in the graph."""
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        if not self._schedules:
            return
        inner = self.train_function

        def train_function(data):
            step = int(ops.convert_to_numpy(self.optimizer.iterations))
            for name, schedule in self._schedules.items():
                self._scheduled[name].assign(self._temperature_at(step) if name == "temperature" else
                                             _scheduled(name, schedule, step))
            return inner(data)

        self.train_function = train_function

    def save(self, filepath, **kwargs):
        """Save the student (``.keras``), its optimizer included."""
        self.student.save(filepath, **kwargs)

    def save_weights(self, filepath, **kwargs):
        """Save the student's weights (``.weights.h5``)."""
        self.student.save_weights(filepath, **kwargs)

    def load_weights(self, filepath, **kwargs):
        """Load weights into the student."""
        self.student.load_weights(filepath, **kwargs)

    def export(self, filepath, **kwargs):
        """Export the student."""
        return self.student.export(filepath, **kwargs)

    def get_config(self):
        raise NotImplementedError("A Distiller is not saved itself. Use distiller.save(path): it saves the student.")


def _scheduled(name, schedule, step):
    value = float(schedule(step))
    if not (0.0 <= value <= 1.0 if name == "alpha" else 0.0 <= value < float("inf")):
        raise ValueError(f"{name[0].upper()}{name[1:]} must be {'from 0 to 1' if name == 'alpha' else '0 or above'}. "
                         f"Received: {value} at step {step} from {schedule!r}.")
    return value


def _cached(x):
    return isinstance(x, dict) and set(x) == {"inputs", "taught"}


def _inputs(x):
    return x["inputs"] if _cached(x) else x


def _check_models(student, teacher, soft):
    for role, model in (("student", student), ("teacher", teacher)):
        if not isinstance(model, keras.Model):
            raise ValueError(
                f"The {role} must be a Keras 3 model. Received: {type(model).__module__}.{type(model).__name__}. "
                f"A tf_keras model comes over with tfcompress.from_tf_keras(model).")
        if model.built and len(getattr(model, "outputs", None) or [0]) != 1:
            raise ValueError(f"The {role} must have one output. Received: {len(model.outputs)} outputs. "
                             f"Choose one: keras.Model(model.inputs, model.outputs[0]).")
    if soft and all(model.built and getattr(model, "outputs", None) for model in (student, teacher)):
        ours, theirs = (model.outputs[0].shape for model in (student, teacher))
        if len(ours) != len(theirs) or ours[-1] != theirs[-1]:
            raise ValueError(
                f"Teacher and student must have the same classes in the same order. Received: a teacher with output "
                f"{tuple(theirs)} and a student with output {tuple(ours)}. The last axis counts the classes.")


def _check_inputs(student, teacher, view):
    inputs = [getattr(model, "inputs", None) or () for model in (student, teacher)]     # none of a subclassed model
    if view is not None or [len(own) for own in inputs] != [1, 1]:
        return
    shapes = [tuple(own[0].shape) for own in inputs]
    if len(shapes[0]) != len(shapes[1]) or any(a != b for a, b in zip(*shapes, strict=True) if None not in (a, b)):
        raise ValueError("Without `view` student and teacher take the same input. Received: a student of "
                         f"{shapes[0]}, a teacher of {shapes[1]}. view=function makes the student's input of the "
                         "teacher's; for smaller images see tfcompress.resolution_aware.")


def _heads(student, teacher, heads):
    if heads is None:
        heads = (head_of(student), head_of(teacher))
    heads = tuple(heads)
    if len(heads) != 2 or any(head not in HEADS for head in heads):
        raise ValueError(
            f"What do the outputs mean? Received: heads={heads} for (student, teacher). Known: {list(HEADS)}. A "
            f"subclassed model doesn't tell: pass heads=('logits', 'softmax'), for example.")
    one = getattr(student, "outputs", None) and student.outputs[0].shape[-1] == 1
    if "sigmoid" in heads and set(heads) != {"sigmoid"} and not (one and "logits" in heads):
        raise ValueError(
            f"A sigmoid head answers yes or no for each class, the other head chooses one class: they can't be "
            f"compared. Received: heads={heads} for (student, teacher). Give both a sigmoid, or neither.")
    return heads
