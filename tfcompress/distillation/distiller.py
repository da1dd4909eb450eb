"""`Distiller`: trains a student on the labels and on a teacher's softened outputs."""

import keras
from keras import ops

from tfcompress.distillation.losses import HEADS, head_of, recover_logits, soft_targets


class SoftLoss(keras.losses.Loss):
    """Mean of ``soft_targets``; Keras adds sample weights, masks and the scaling for tf.distribute."""

    def __init__(self, heads, temperature):
        super().__init__(name="soft_loss", dtype="float32")
        self.heads, self.temperature = heads, temperature

    def call(self, y_true, y_pred):
        teacher, student = self.heads
        return soft_targets(recover_logits(y_true, teacher), recover_logits(y_pred, student), self.temperature.value)


class Distiller(keras.Model):
    """``alpha * T**2 * KL(teacher(T) || student(T)) + (1 - alpha) * loss(y, student) + the student's own losses``.

    Compile, fit and evaluate it like any Keras model; ``loss`` and ``metrics`` are those of the student and see its
    predictions. The student may come from ``compress`` or ``quantize_aware``: penalties are added, and
    ``CompressionCallback`` finds its layers. Both nets get the same batch; the teacher runs with ``training=False``
    and is never changed. ``predict``, ``save``, ``save_weights`` and ``export`` are the student's, which is
    ``distiller.student``. The optimizer's state is saved with it, so
    ``Distiller(keras.models.load_model(path), teacher).compile(loaded.optimizer, ...)`` goes on where it stopped.
    Sample and class weights weigh both terms. The term without alpha is in the logs as ``soft_loss``.

    ``keras.distillation.Distiller`` (Keras 3.15) instead takes the outputs for logits even behind a softmax, ignores
    sample weights and the losses of layers (regularizers, pruning penalties), freezes the teacher it was given, saves
    the teacher with the student, and has no schedule of T. It has feature losses, which this class has not.

    Args:
        student: Keras model with one output: logits, softmax or sigmoid.
        teacher: trained Keras model with the same input and classes; its head may be of another kind.
        temperature: T, a positive number or a schedule ``optimizer step -> T`` (``tfcompress.schedules``). With
            ``steps_per_execution=n`` a schedule is read every n steps.
        alpha: weight of the teacher, 0..1. At 0 training is plain training bit for bit, and the teacher is not run; at
            1 no labels and no ``loss`` are needed.
        heads: ``(student's, teacher's)``, each "logits", "softmax" or "sigmoid"; by default read from the models.

    Raises:
        ValueError: another number of classes, several outputs, an alpha or temperature out of range, or a subclassed
            model (its head can't be read) without ``heads``.

    Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531.

    >>> import keras, numpy as np
    >>> x, y = np.eye(4, dtype="float32"), np.array([0, 1, 0, 1])
    >>> net = lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> distiller = Distiller(net(), teacher=net(), temperature=4.0, alpha=0.9)
    >>> distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    >>> sorted(distiller.fit(x, y, verbose=0).history)
    ['accuracy', 'loss', 'soft_loss']
    """

    def __init__(self, student, teacher, temperature=4.0, alpha=0.9, *, heads=None, name="distiller"):
        super().__init__(name=name)
        _check_models(student, teacher)
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"`alpha`, the weight of the teacher, is a number from 0 to 1. Received: alpha={alpha}")
        self.student = student
        object.__setattr__(self, "teacher", teacher)     # not tracked: neither trained, saved nor pruned with us
        self.alpha, self.temperature = float(alpha), temperature
        self.heads = _heads(student, teacher, heads)
        self._current = keras.Variable(self._temperature_at(0), trainable=False, dtype="float32", name="temperature")
        self._soft = SoftLoss((self.heads[1], self.heads[0]), self._current)
        self._soft_tracker = keras.metrics.Mean(name="soft_loss")
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
        return self.student(inputs, training=training)

    def compile(self, optimizer="adam", loss=None, metrics=None, **kwargs):
        """As ``keras.Model.compile``; ``loss`` may be left out only with ``alpha=1``."""
        if loss is None and self.alpha < 1.0:
            raise ValueError(
                f"A loss on the labels is needed with alpha={self.alpha}. Received: loss=None. Give one, such as "
                f"'sparse_categorical_crossentropy', or learn from the teacher alone with alpha=1.")
        weights = None if self.alpha == 0.0 or loss is None else 1.0 - self.alpha
        super().compile(optimizer, loss=loss, loss_weights=weights, metrics=metrics, **kwargs)
        self.student.compile(self.optimizer, loss=loss, metrics=metrics)    # so that `save` keeps the optimizer

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Total loss of a batch: a float32 scalar."""
        if self.alpha == 0.0:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        taught = ops.stop_gradient(self.teacher(x, training=False))
        soft = self._soft(taught, y_pred, sample_weight)
        self._soft_tracker.update_state(
            soft * self.distribute_strategy.num_replicas_in_sync, sample_weight=ops.shape(y_pred)[0])
        total = self.alpha * soft
        if self.loss is not None or self.losses:
            total = total + super().compute_loss(x, y, y_pred, sample_weight, training)
        return total

    def make_train_function(self, force=False):
        """Keras's own, with the temperature set before each call: a schedule is Python and can't be in the graph."""
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        if not callable(self.temperature):
            return
        inner = self.train_function

        def train_function(data):
            self._current.assign(self._temperature_at(int(ops.convert_to_numpy(self.optimizer.iterations))))
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


def _check_models(student, teacher):
    for role, model in (("student", student), ("teacher", teacher)):
        if not isinstance(model, keras.Model):
            raise ValueError(
                f"The {role} must be a Keras 3 model. Received: {type(model).__module__}.{type(model).__name__}. "
                f"A tf_keras model comes over with tfcompress.from_tf_keras(model).")
        if model.built and len(getattr(model, "outputs", None) or [0]) != 1:
            raise ValueError(f"The {role} must have one output. Received: {len(model.outputs)} outputs. "
                             f"Choose one: keras.Model(model.inputs, model.outputs[0]).")
    if all(model.built and getattr(model, "outputs", None) for model in (student, teacher)):
        ours, theirs = (model.outputs[0].shape for model in (student, teacher))
        if len(ours) != len(theirs) or ours[-1] != theirs[-1]:
            raise ValueError(
                f"Teacher and student must have the same classes in the same order. Received: a teacher with output "
                f"{tuple(theirs)} and a student with output {tuple(ours)}. The last axis counts the classes.")


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
