"""A tf_keras (Keras 2) model as a Keras 3 model: layers by their configs, the graph by replaying its nodes."""

import importlib
import inspect

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfcompress.keras2_ops import call_op
from tfcompress.method import serializable

RENAMED = {"LeakyReLU": {"alpha": "negative_slope"}, "ThresholdedReLU": {"theta": "threshold"}}
CLASSES = {"ThresholdedReLU": "ReLU", "SyncBatchNormalization": "BatchNormalization"}
ACTIVATIONS = ("activation", "recurrent_activation")
LAYERS = ("layer", "backward_layer", "cell", "cells")    # config entries that hold layers
HARMLESS = {                                             # change nothing, or are seen to elsewhere
    "noise_shape", "trainable", "dynamic", "time_major", "groups", "input_length", "sparse", "ragged", "implementation",
    "fused", "robust_masking", "softmax_robust_masking", "query_shape", "key_shape", "value_shape", "batch_input_shape"}


@serializable
def keras2_hard_sigmoid(x):
    """Keras 2's ``clip(0.2 x + 0.5, 0, 1)``. Keras 3 gave the name to another function: ``clip(x / 6 + 0.5, 0, 1)``.

    >>> [round(float(v), 6) for v in keras2_hard_sigmoid(ops.array([-3.0, 0.0, 1.0]))]
    [0.0, 0.5, 0.7]
    """
    return ops.clip(0.2 * x + 0.5, 0.0, 1.0)


def is_tf_keras(model):
    """Whether ``model`` is a tf_keras (Keras 2) model. Imports nothing.

    >>> import keras
    >>> is_tf_keras(keras.Sequential())
    False
    """
    return any(cls.__module__.split(".")[0] == "tf_keras" for cls in type(model).__mro__)


def check_graph(model):
    """Raise one clear error for anything that is not a built tf_keras Functional or Sequential model."""
    if not is_tf_keras(model):
        raise ValueError(f"Expected a tf_keras (Keras 2) model. Received: {type(model).__name__} of "
                         f"{type(model).__module__}. Keras 3 models go to tfcompress.compress and quantize_aware.")
    if not getattr(model, "_is_graph_network", False):
        raise ValueError(
            f"Model '{model.name}' ({type(model).__name__}) has no graph: it is subclassed, or a Sequential without an "
            "input shape. Build it with the functional API, or call model.build(input_shape) on the Sequential.")


def flat(model):
    """The layers of a tf_keras model, nested models opened."""
    for layer in model.layers:
        if hasattr(layer, "_nodes_by_depth"):
            yield from flat(layer)
        else:
            yield layer


class Translator:
    """Translates one model; remembers what became of each layer, so that shared layers stay shared."""

    def __init__(self, custom_objects=None):
        self.custom = dict(custom_objects or {})
        self.made = {}                                   # id of an old layer -> new layer
        self.pairs = []                                  # (old, new) layers that own weights
        self.tensors = {}                                # id of an old tensor -> new tensor
        self.steps = []                                  # (layer name, old tensors, new tensors) of the outer graph

    # ---- graph --------------------------------------------------------------------------------------------------
    def model(self, old, outer=False):
        """The Keras 3 model with the graph of ``old``, without its weights."""
        check_graph(old)
        outside, self.tensors = self.tensors, {}         # an inner model may share its input with the outer one
        try:
            return self._graph(old, outer)
        finally:
            self.tensors = outside

    def _graph(self, old, outer):
        inputs = [self._input(tensor) for tensor in old.inputs]
        self.tensors.update(zip(map(id, old.inputs), inputs, strict=True))
        for depth in sorted(old._nodes_by_depth, reverse=True):
            for node in old._nodes_by_depth[depth]:
                if not node.is_input:
                    self._replay(node, outer)
        if type(old).__name__ == "Sequential" and all(self._is_plain(layer) for layer in old.layers):
            return keras.Sequential([inputs[0], *(self.made[id(layer)] for layer in old.layers)], name=_name(old.name))
        return keras.Model(self._map(old._nested_inputs), self._map(old._nested_outputs), name=_name(old.name))

    def _is_plain(self, layer):
        return id(layer) in self.made and not _time_major(layer)

    def _input(self, tensor):
        layer = tensor._keras_history.layer
        if getattr(layer, "sparse", False) or getattr(layer, "ragged", False):
            raise ValueError(f"Input '{layer.name}' is sparse or ragged: no .tflite takes that. Use a dense Input.")
        shape = tuple(tensor.shape)
        return keras.Input(batch_shape=shape, dtype=tensor.dtype.name, name=_name(layer.name))

    def _replay(self, node, outer):
        args, kwargs = self._map(list(node.call_args)), self._map(dict(node.call_kwargs))
        if type(node.layer).__name__ in ("TFOpLambda", "SlicingOpLambda"):
            outputs = call_op(node.layer, args, kwargs)
            self._rename(outputs, _name(node.layer.name))
        else:
            outputs = self._call(node.layer, args, kwargs)
        old, new = tf.nest.flatten(node.outputs), keras.tree.flatten(outputs)
        self.tensors.update(zip(map(id, old), new, strict=True))
        if outer:
            self.steps.append((node.layer.name, old, new))

    def _call(self, old, args, kwargs):
        layer = self.layer(old)
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional) and isinstance(args[0], list):
            args, kwargs = args[0][:1], {**kwargs, "initial_state": args[0][1:]}
        if not _time_major(old):
            return layer(*args, **kwargs)
        outputs = keras.tree.flatten(layer(_swap(args[0]), *args[1:], **kwargs))
        sequences = getattr(old, "return_sequences", False)
        return [_swap(x) if i == 0 and sequences else x for i, x in enumerate(outputs)]

    def _rename(self, outputs, name):
        """Give the operations behind ``outputs`` the old layer's name: automatic ones collide with the user's."""
        known = {id(tensor) for tensor in self.tensors.values()}
        stack, count = keras.tree.flatten(outputs), 0
        while stack:
            tensor = stack.pop()
            if id(tensor) in known or not isinstance(tensor, keras.KerasTensor):
                continue
            known.add(id(tensor))
            operation = tensor._keras_history.operation
            operation.name = name if count == 0 else f"{name}_part{count}"
            count += 1
            stack += [t for node in operation._inbound_nodes for t in node.input_tensors]

    def _map(self, value):
        """``value`` with old tensors replaced by new ones, constants as numpy, containers as plain ones."""
        if id(value) in self.tensors:
            return self.tensors[id(value)]
        if isinstance(value, dict):
            return {key: self._map(v) for key, v in value.items()}
        if isinstance(value, list | tuple) and not isinstance(value, tf.TensorShape):
            return [self._map(v) for v in value]
        return value.numpy() if isinstance(value, tf.Tensor | tf.Variable) else value

    # ---- layers -------------------------------------------------------------------------------------------------
    def layer(self, old):
        """The Keras 3 layer of ``old``, made once."""
        if id(old) not in self.made:
            nested = hasattr(old, "_nodes_by_depth")
            self.made[id(old)] = self.model(old) if nested else self._layer(old)
        return self.made[id(old)]

    def _layer(self, old):
        kind = type(old).__name__
        known = type(old).__module__.startswith("tf_keras.")
        cls = self.custom.get(kind) or (known and getattr(_home(old), CLASSES.get(kind, kind), None))
        if not cls:
            raise ValueError(
                f"Layer '{old.name}' ({kind}) has no counterpart in Keras 3. Replace it before calling from_tf_keras, "
                f"or pass custom_objects={{'{kind}': YourKeras3Layer}}, a class with the same config and weights.")
        try:
            new = _lambda(old) if kind == "Lambda" else cls(**self._config(old, cls))
        except (TypeError, ValueError) as error:
            raise ValueError(f"Layer '{old.name}' ({kind}) could not be made in Keras 3: {error}") from error
        self._pair(old, new)
        return new

    def _pair(self, old, new):
        """Remember whose weights go where. A wrapper's inner layers were paired when they were made, or are here."""
        if isinstance(new, keras.layers.Bidirectional):
            self.pairs += [(old.forward_layer, new.forward_layer), (old.backward_layer, new.backward_layer)]
        elif not isinstance(new, keras.layers.TimeDistributed):
            self.pairs.append((old, new))

    def _config(self, old, cls):
        kind = type(old).__name__
        accepted = _parameters(cls)
        config = {}
        for key, value in old.get_config().items():
            key = RENAMED.get(kind, {}).get(key, key)
            if key == "dtype":
                value = old.dtype_policy.name if hasattr(old, "dtype_policy") else old._dtype_policy.name
            elif key == "name":
                value = _name(value)
            elif key in ACTIVATIONS and hasattr(old, key):
                value = self._activation(getattr(old, key))
            elif key in LAYERS and isinstance(value, dict | list):
                value = self._inner(old, key)
            elif key == "axis" and isinstance(value, list | tuple) and len(value) == 1:
                value = value[0]
            if key in accepted:
                config[key] = _plain(value)
            elif value and key not in HARMLESS and not key.startswith("kernel_") and kind not in self.custom:
                raise ValueError(f"Keras 3 has no argument {key}={value!r} for it.")
        if kind == "Normalization":
            config["axis"] = config["axis"] or None
            config |= {key: np.ravel(getattr(old, key)) for key in ("mean", "variance")}
            if config["axis"] is None:
                config |= {key: config[key].item() for key in ("mean", "variance")}
        return config

    def _inner(self, old, key):
        """The layers inside a wrapper or an RNN."""
        if type(old).__name__ == "Bidirectional":        # which makes layers of its own; paired by `_pair`
            return Translator(self.custom)._layer(old.forward_layer if key == "layer" else old.backward_layer)
        inner = getattr(old, key)
        return [self.layer(x) for x in inner] if isinstance(inner, list | tuple) else self.layer(inner)

    def _activation(self, function):
        if isinstance(function, tf.Module):              # a layer used as activation
            return self.layer(function)
        name = getattr(function, "__name__", None)
        if name == "hard_sigmoid":
            return keras2_hard_sigmoid
        name = {"swish_impl": "silu", "_relu6": "relu6"}.get(name, name)
        public = getattr(function, "__module__", "").startswith(("tf_keras.", "tensorflow.")) or name == "relu6"
        return name if public and name and hasattr(keras.activations, name) else function

    # ---- weights ------------------------------------------------------------------------------------------------
    def copy_weights(self):
        for old, new in self.pairs:
            if isinstance(new, keras.layers.Normalization):
                continue                                 # in its config
            values = old.get_weights()
            shapes, wanted = [v.shape for v in values], [tuple(v.shape) for v in new.weights]
            if shapes != wanted:
                raise ValueError(f"Layer '{old.name}' ({type(old).__name__}): its weights {shapes} do not fit the "
                                 f"Keras 3 layer's {wanted}. Rebuild this layer in Keras 3 by hand.")
            new.set_weights(values)


def _home(old):
    """The Keras 3 module with the class of ``old``: ``keras.applications`` has layers of its own (LayerScale ...)."""
    module = type(old).__module__
    return importlib.import_module(module[3:]) if module.startswith("tf_keras.src.applications.") else keras.layers


def _lambda(old):
    return keras.layers.Lambda(old.function, arguments=dict(old.arguments), name=_name(old.name))


def _parameters(cls):
    """Names of the constructor's arguments, those of the base classes included."""
    names = set()
    for base in cls.__mro__:
        if "__init__" in vars(base):
            names |= set(inspect.signature(base.__init__).parameters)
            if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(base.__init__).parameters.values()):
                break
    return names - {"self", "args", "kwargs"}


def _plain(value):
    """Tracked containers and numpy scalars of a Keras 2 config as plain Python."""
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value)) if type(value) in (list, tuple) else [_plain(v) for v in value]
    if isinstance(value, np.generic) or isinstance(value, np.ndarray) and value.ndim == 0:
        return value.item()
    return value


def _name(name):
    return name.replace("/", "_")                        # Keras 3 keeps "/" for paths


def _swap(x):
    return ops.swapaxes(x, 0, 1)


def _time_major(layer):
    return bool(getattr(layer, "time_major", False) or getattr(getattr(layer, "layer", None), "time_major", False))
