"""Whether a tf_keras model and its translation give the same outputs on random input of the kind they expect."""

import keras
import numpy as np
import tensorflow as tf

SIZES = {1: (32, 256, 12000), 2: (32, 96, 224), 3: (16, 32)}      # tried in turn for sizes that a model leaves open


def compare(old, new, steps=()):
    """Raise ValueError, naming the first layer that differs, unless both give the same outputs.

    Args:
        old, new: tf_keras model and its Keras 3 translation.
        steps: ``(layer name, old tensors, new tensors)`` in order, to find the layer.
    """
    half = any("16" in layer.compute_dtype for layer in old.layers if layer.compute_dtype)
    limit = 1e-2 if half else 1e-5
    arrays, outputs = _random_input(old)
    gap = _gap(outputs, _run(new, _structured(old._nested_inputs, arrays)))
    if gap <= limit:
        return
    for name, before, after in steps:
        here = _gap(_run(_part(old, before), arrays), _run(keras.Model(new.inputs, list(after)), arrays))
        if not here <= limit:
            raise ValueError(
                f"Layer '{name}' gives other outputs in Keras 3: they differ by {here:.1e} of the largest, allowed is "
                f"{limit:.0e}. Replace this layer before from_tf_keras, or accept it with check=False.")
    raise ValueError(f"The outputs differ by {gap:.1e} of the largest in Keras 3, allowed is {limit:.0e}. "
                     "Accept it with check=False.")


def _run(model, inputs):
    """Outputs in a graph: an RNN of a thousand steps takes 10 s when run eagerly."""
    return tf.function(lambda x: model(x, training=False))(tf.nest.map_structure(tf.constant, inputs))


def _part(old, tensors):
    import tf_keras

    return tf_keras.Model(old.inputs, list(tensors))


def _structured(reference, arrays):
    return tf.nest.pack_sequence_as(tf.nest.map_structure(lambda _: 0, _plain(reference)), arrays)


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _gap(first, second):
    """Largest difference, as a share of the largest output (at least 1). NaN in the same place is no difference."""
    worst = 0.0
    for a, b in zip(tf.nest.flatten(first), keras.tree.flatten(second), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape:
            return float("inf")
        a, b = a.astype("float64"), b.astype("float64")
        both = np.isnan(a) & np.isnan(b)
        difference = np.where(both | (a == b), 0.0, np.abs(a - b))
        finite = np.abs(a[np.isfinite(a)])
        worst = max(worst, float(difference.max(initial=0.0)) / max(1.0, float(finite.max(initial=0.0))))
    return worst


def _random_input(model):
    """A batch the model runs on, as a flat list of one array an input, open sizes filled; and its outputs."""
    error = None
    for attempt in range(3):
        arrays = [_array(tensor, model, attempt) for tensor in model.inputs]
        try:
            return arrays, _run(model, _structured(model._nested_inputs, arrays))
        except (ValueError, tf.errors.InvalidArgumentError) as failure:
            error = failure
        if all(size is not None for tensor in model.inputs for size in tensor.shape[1:]):
            break
    raise ValueError(
        f"Model '{model.name}' ran on no random input of shape {[tuple(a.shape) for a in arrays]}: {error} Translate "
        "it with check=False, and compare the two models on an input of your own.") from error


def _array(tensor, model, attempt):
    sizes = SIZES[min(max(len(tensor.shape) - 2, 1), 3)]
    fill = sizes[min(attempt, len(sizes) - 1)]
    batch, *rest = tensor.shape
    shape = (batch or 2, *(size or fill for size in rest))
    rng = np.random.default_rng(0)
    layers = [layer for layer in model._flatten_layers()]
    kinds = {type(layer).__name__ for layer in layers}
    indexed = [layer.input_dim for layer in layers if type(layer).__name__ == "Embedding"]
    if indexed or tensor.dtype.is_integer:
        return rng.integers(0, min(indexed, default=2), shape).astype(tensor.dtype.name)
    x = rng.uniform(0, 255, shape) if "Rescaling" in kinds else rng.standard_normal(shape)
    return x.astype(tensor.dtype.name)
