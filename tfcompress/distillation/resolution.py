"""Resolution-aware distillation: the teacher sees the full input, the student a smaller one, at a share of the MACs."""

import keras
from keras import ops

from tfcompress.distillation.distiller import Distiller
from tfcompress.graph import Graph
from tfcompress.model import leaves

POOLED = (keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D)


def downsample(x, factor):
    """Means of ``factor`` positions along each axis between the batch and the channels; what is over is cut off.

    >>> downsample([[[[1.0], [3.0]], [[5.0], [7.0]]]], 2).numpy().tolist()
    [[[[4.0]]]]
    """
    _check(factor)
    x = ops.cast(ops.convert_to_tensor(x), "float32")
    return ops.average_pool(x, factor, strides=factor, padding="valid") if factor > 1 else x


def at_resolution(model, factor):
    """A copy of ``model``, weights and all, that takes inputs ``factor`` times smaller along each axis of positions.

    For nets that end in a global average: convolutions cost ``1 / factor**axes`` then, exactly so where sizes divide.

    Raises:
        ValueError: an input that is not ``(batch, positions..., channels)`` of known sizes, or one that gets too small;
            a net whose weights depend on the resolution (Flatten).

    >>> import keras
    >>> net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, padding="same"),
    ...                         keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    >>> at_resolution(net, 2).input_shape
    (None, 4, 4, 3)
    """
    _check(factor)
    graph = Graph(model)
    for _, value in graph.inputs:
        if len(value.shape) < 3 or None in value.shape[1:-1]:
            raise ValueError(f"Resolution is that of inputs (batch, positions..., channels). Received: {value.shape}.")
        small = tuple(size // factor for size in value.shape[1:-1])
        if 0 in small:
            raise ValueError(f"{value.shape[1:-1]} positions can't be {factor} times fewer.")
        value.shape = (value.shape[0], *small, value.shape[-1])
    try:
        return graph.build()
    except ValueError as error:
        raise ValueError(f"'{model.name}' depends on the resolution: {str(error).splitlines()[0]} Put a global average "
                         "in the place of Flatten.") from error


def resolution_aware(student, teacher, factor, *, layers=None, weights=(1.0, 1.0, 1.0, 0.1), temperature=4.0):
    """A ``Distiller`` whose student sees the batch ``factor`` times smaller: give ``fit`` and ``evaluate`` full inputs.

    ``CE + w1 (T**2 KL + ||n(f_s) - n(f_t)||**2) + w2 relation + w3 MMD + w4 adversarial``, all divided by ``1 + w1``,
    between the features f in front of the heads; each step trains the student and the discriminator at once. What is
    exported, ``distiller.student``, takes the small input.

    Args:
        student: takes inputs ``factor`` times smaller: ``at_resolution(net, factor)``, often of the teacher itself.
        teacher: trained at full resolution.
        layers: ``(teacher's, student's)`` features, by path; default: the global average of each.
        weights: ``(w1, w2, w3, w4)``.

    Raises:
        ValueError: a factor or weight out of range, a student of another input, no global average where ``layers``
            are not given; see ``Distiller``.

    Feng Z, Lai J, Xie X, "Resolution-Aware Knowledge Distillation for Efficient Inference", IEEE TIP 30, 2021; the
    weights are ours, the paper's are not known to us.
    """
    _check(factor)
    if not all(weight >= 0 for weight in weights):
        raise ValueError(f"Weights are 0 or above. Received: weights={weights}.")
    wanted = tuple(size // factor for size in teacher.input_shape[1:-1])
    if tuple(student.input_shape[1:-1]) != wanted:
        raise ValueError(f"A student at 1/{factor} of {tuple(teacher.input_shape[1:-1])} positions takes {wanted}. "
                         f"Received: {tuple(student.input_shape[1:-1])}. Make one with at_resolution(model, {factor}).")
    theirs, ours = layers or (_pooled(teacher), _pooled(student))
    first, relation, mmd, adversarial = weights
    each = 1 / (1 + first)
    named = {"representation": first, "relation": relation, "mmd": mmd, "adversarial": adversarial}
    features = [(theirs, ours, name, weight * each) for name, weight in named.items() if weight]
    return Distiller(student, teacher, temperature, first * each, features=features,
                     view=lambda x: downsample(x, factor), name="resolution_aware")


def _check(factor):
    if not isinstance(factor, int) or factor < 1:
        raise ValueError(f"`factor` is an int >= 1: so many positions become one. Received: {factor!r}.")


def _pooled(model):
    found = [path for path, layer in leaves(model) if isinstance(layer, POOLED)]
    if not found:
        raise ValueError(f"'{model.name}' has no global average: name the features, layers=(teacher's, student's).")
    return found[-1]
