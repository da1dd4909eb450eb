"""A Keras model (3 or tf_keras) as a graph with named inputs and outputs: its SavedModel, and its own answers."""

import itertools
import re

import numpy as np

from tfcompress.conversion.interpreter import Tensor


def input_names(model):
    """Names of the inputs in the model's order; names that Keras made up become "input", or "input_1", "input_2", ...

    Made-up names count up in a process, so that a file would differ from run to run.
    """
    names = [_clean(tensor.name) for tensor in model.inputs]
    made_up = re.compile(r"(keras_tensor|input_layer|input)(_\d+)?")
    if len(names) == 1:
        return ["input"] if made_up.fullmatch(names[0]) else names
    return [f"input_{i}" if made_up.fullmatch(name) else name for i, name in enumerate(names, 1)]


def aliases(source):
    """``{other name: input name}``: Keras' own names of the inputs and their layers, which a user may know."""
    if source.kind != "keras":
        return {}
    known = {}
    for tensor, name in zip(source.value.inputs, source.input_names, strict=True):
        known.update({tensor.name: name, tensor.name.split(":")[0]: name, _maker(tensor): name})
    return known


def output_names(model):
    """Names of the outputs, in the model's order: those of the layers they come from, made unique.

    In a quantization-aware model that is the layer whose result is rounded: a file's outputs are called alike, however
    the model was quantized.
    """
    given = list(getattr(model, "output_names", None) or [_maker(tensor) for tensor in model.outputs])
    names = [_clean(name) for name in given]
    for i, tensor in enumerate(model.outputs):
        layer = getattr(getattr(tensor, "_keras_history", None), "operation", None)
        if type(layer).__name__ == "FakeQuant":
            names[i] = names[i].removesuffix("_quant")
    return names if len(set(names)) == len(names) else [f"{name}_{i}" for i, name in enumerate(names)]


def export(source, folder):
    """Write the SavedModel of a Keras source into ``folder``: one signature with named inputs and outputs."""
    import tensorflow as tf

    model, names = source.value, output_names(source.value)
    if source.aware:
        from tfcompress.quantization.aware import bake_aware

        model = bake_aware(model)

    def serve(*arrays):
        return _named(names, model(tf.nest.pack_sequence_as(structure(model), list(arrays)), training=False))

    function = tf.function(serve, autograph=False).get_concrete_function(*specifications(source))
    module = tf.Module()
    module.kept = list(function.graph.variables)
    tf.saved_model.save(module, folder, signatures={"serving_default": function})


def inputs(source):
    """``{name: Tensor}`` of a Keras model's inputs, in its order; ``None`` for files."""
    if source.kind != "keras":
        return None
    pairs = zip(source.value.inputs, source.input_names, strict=True)
    return {n: Tensor(n, (source.static_batch, *t.shape[1:]), _dtype(t), 0.0, 0) for t, n in pairs}


def specifications(source):
    """A TensorSpec an input, in the model's order."""
    import tensorflow as tf

    return [tf.TensorSpec(tensor.shape, tensor.dtype, name=name) for name, tensor in inputs(source).items()]


def reference(source, batches):
    """The Keras model's outputs by name, batch after batch (inference mode, float32)."""
    import tensorflow as tf

    model, names, results = source.value, output_names(source.value), []
    for group in _runs_together(batches, model.inputs[0].shape[0] is None):
        arrays = [tf.constant(np.concatenate([batch[name] for batch in group])) for name in source.input_names]
        named = _named(names, model(tf.nest.pack_sequence_as(structure(model), arrays), training=False))
        sizes = np.cumsum([len(next(iter(batch.values()))) for batch in group])[:-1]
        parts = {name: np.split(value.numpy(), sizes) for name, value in named.items()}
        results += [{name: part[i] for name, part in parts.items()} for i in range(len(group))]
    return results


def _runs_together(batches, free, size=32):
    """Group neighbouring batches of equal shapes: a recurrent net in batches of one is slow in Keras."""
    if not free:
        return [[batch] for batch in batches]
    shapes = itertools.groupby(batches, key=lambda batch: {name: array.shape for name, array in batch.items()})
    whole = [list(group) for _, group in shapes]
    steps = [max(1, size // len(next(iter(group[0].values())))) for group in whole]
    return [group[i : i + step] for group, step in zip(whole, steps, strict=True) for i in range(0, len(group), step)]


def _named(names, values):
    """A model's outputs by name: its own keys where it returns a dict, else ``names`` in order."""
    import tensorflow as tf

    if isinstance(values, dict):
        return {_clean(name): value for name, value in values.items()}
    return dict(zip(names, tf.nest.flatten(values), strict=True))


def structure(model):
    structure = getattr(model, "_inputs_struct", None)
    if structure is not None:
        return structure
    return model.inputs if len(model.inputs) > 1 else model.inputs[0]


def in_float32(model):
    """The same model with the same weights, all of whose layers compute in float32."""

    def change(value):
        if isinstance(value, dict):
            return {key: change(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(change(item) for item in value)
        return "float32" if value in ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16") else value

    copy = type(model).from_config(change(model.get_config()))
    copy.set_weights(model.get_weights())
    return copy


def _maker(tensor):
    history = tensor._keras_history
    return (getattr(history, "operation", None) or history.layer).name


def _dtype(tensor):
    dtype = tensor.dtype
    return dtype if isinstance(dtype, str) else dtype.name


def _clean(name):
    """A name TensorFlow keeps as it is in a signature."""
    text = "".join(c if c.isalnum() or c == "_" else "_" for c in name.split(":")[0])
    return text if text[:1].isalpha() else f"input_{text}"


def all_layers(model):
    """Every layer of a model: nested models and the layers inside Bidirectional and TimeDistributed included."""
    for layer in model.layers:
        yield layer
        for inner in ("layer", "forward_layer", "backward_layer"):
            if hasattr(layer, inner) and hasattr(getattr(layer, inner), "name"):
                yield getattr(layer, inner)
        if hasattr(layer, "layers"):
            yield from all_layers(layer)
