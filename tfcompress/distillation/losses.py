"""Distillation losses and the logits behind a model's outputs: plain functions of tensors (Hinton et al. 2015)."""

import keras
from keras import ops

FLOOR = 1e-12  # smallest probability a logit is recovered from: log -> -27.6
HEADS = ("logits", "softmax", "sigmoid")
PASS_THROUGH = ("Reshape", "Flatten", "Permute", "Identity", "Dropout", "ActivityRegularization", "FakeQuant")


def soft_targets(teacher_logits, student_logits, temperature=4.0):
    """``T**2 * KL(softmax(teacher / T) || softmax(student / T))``, one value an example.

    The gradient by the student's logits is ``T * (q - p)``, with ``p`` the teacher's and ``q`` the student's softened
    probabilities: ``T**2`` keeps its size as T grows. As T grows the loss itself tends to half the squared distance
    of the two centred logit vectors, divided by the number of classes. Computed in float32 or wider.

    Args:
        teacher_logits: float, ``(..., classes)``, at least two classes.
        student_logits: float, of the same shape.
        temperature: positive number or scalar tensor.

    Returns:
        Float tensor of shape ``(...)``, 0 where the two distributions agree. Take the mean over the batch.

    Raises:
        ValueError: the two differ in the number of classes, or there is only one class.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531.

    >>> [round(float(v), 4) for v in soft_targets([[2.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [5.0, 5.0]], 1.0)]
    [0.3278, 0.0]
    """
    teacher_logits, student_logits = _wide(teacher_logits), _wide(student_logits)
    classes, received = student_logits.shape[-1], teacher_logits.shape[-1]
    if classes != received:
        raise ValueError(
            f"Teacher and student must have the same classes in the same order. Received: a teacher with {received} "
            f"outputs and a student with {classes}. Give the student a head of {received} outputs, or train a teacher "
            f"on the student's classes.")
    if classes == 1:
        raise ValueError(
            "One logit has no other class to compare with. Received: shape (..., 1). "
            "Use recover_logits(outputs, 'sigmoid'), which adds the other class.")
    teacher = ops.log_softmax(teacher_logits / temperature, axis=-1)
    student = ops.log_softmax(student_logits / temperature, axis=-1)
    return temperature**2 * ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)


def recover_logits(outputs, head="logits"):
    """Logits of at least two classes behind a model's ``outputs``.

    ==========  ==================================  =======================================
    head        outputs                             result
    ==========  ==================================  =======================================
    "logits"    ``(..., classes)``, no activation   the outputs
    "softmax"   ``(..., classes)``, probabilities   ``log(p)``: the logits up to a constant
    "sigmoid"   ``(..., 1)``, a probability         ``[0, z]``, ``z = log(p) - log(1 - p)``
    "sigmoid"   ``(..., labels)``, independent      ``(..., labels, 2)``, ``[0, z]`` a label
    ==========  ==================================  =======================================

    A single output without activation is the logit ``z`` of a sigmoid: ``[0, z]``. Probabilities are clipped at 1e-12,
    where they have no gradient any more; what a softmax of Keras just returned still knows its logits, which are taken:
    a student that is sure and wrong can learn.

    >>> [round(float(v), 3) for v in recover_logits([[0.25, 0.75]], "softmax")[0]]
    [-1.386, -0.288]
    >>> [round(float(v), 3) for v in recover_logits([[0.75]], "sigmoid")[0]]
    [0.0, 1.099]
    """
    if head not in HEADS:
        raise ValueError(f"Unknown head: {head!r}. Known: {list(HEADS)}.")
    if head == "softmax":
        logits = getattr(outputs, "_keras_logits", None)            # Keras's own cross-entropy takes them, too
        return ops.log(ops.maximum(_wide(outputs), FLOOR)) if logits is None else _wide(logits)
    outputs = _wide(outputs)
    one = outputs.shape[-1] == 1
    if head == "logits" and not one:
        return outputs
    if head == "sigmoid":
        outputs = ops.log(ops.maximum(outputs, FLOOR)) - ops.log(ops.maximum(1.0 - outputs, FLOOR))
    outputs = outputs if one else outputs[..., None]
    return ops.concatenate([ops.zeros_like(outputs), outputs], axis=-1)


def head_of(model):
    """``"logits"``, ``"softmax"`` or ``"sigmoid"``: what the one output of a Keras model is.

    Read from the layer that makes the output, through wrappers, nested models and layers that keep values as they are.
    A model whose graph is not known (subclassed) gives ``None``.

    >>> import keras
    >>> head_of(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Softmax()]))
    'softmax'
    """
    outputs = model.outputs if getattr(model, "built", False) and hasattr(model, "outputs") else None
    return _head(outputs[0]) if outputs else None


def _head(tensor):
    history = tensor._keras_history
    operation = history.operation
    inner = getattr(operation, "layer", None)                       # Compressed, TimeDistributed
    operation = inner if isinstance(inner, keras.layers.Layer) else operation
    if isinstance(operation, keras.Model):
        return head_of(operation)
    activation = _activation(operation)
    if activation in ("softmax", "sigmoid"):
        return activation
    same = type(operation).__name__.startswith(PASS_THROUGH)
    if same or isinstance(operation, keras.layers.Activation) and activation == "linear":
        return _head(history.operation._inbound_nodes[history.node_index].input_tensors[0])
    return "logits"


def _activation(operation):
    """Name of the activation an operation ends with, or None."""
    name = type(operation).__name__.lower()
    if name in ("softmax", "sigmoid"):                              # keras.layers.Softmax, keras.ops.softmax
        return name
    activation = getattr(operation, "activation", None)
    return getattr(activation, "__name__", None)


def _wide(x):
    """``x`` as a tensor of float32, or float64 where it was."""
    x = ops.convert_to_tensor(x)
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")
