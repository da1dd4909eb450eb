"""TensorFlow functions that Keras 2 let a functional model call (``x + y``, ``tf.reduce_mean(x)``) in Keras 3."""

import inspect

import keras
from keras import ops

MERGE = {"add": keras.layers.Add, "multiply": keras.layers.Multiply, "subtract": keras.layers.Subtract,
         "maximum": keras.layers.Maximum, "minimum": keras.layers.Minimum}


def _binary(name):
    def merge(x, y):
        tensors = keras.tree.flatten([x, y])
        if all(isinstance(t, keras.KerasTensor) for t in tensors) and len(x.shape) == len(y.shape):
            return MERGE[name]()([x, y])                 # a layer: quantize_aware knows what it is
        return getattr(ops, name)(x, y)
    return merge


def _getitem(x, spec, variable=None):
    return x[tuple(_slice(s) for s in spec) if isinstance(spec, list | tuple) else _slice(spec)]


def _slice(spec):
    return slice(spec["start"], spec["stop"], spec["step"]) if isinstance(spec, dict) else spec


def _reduce(function):
    return lambda x, axis=None, keepdims=False, *rest: function(x, axis=axis, keepdims=keepdims)


def _split(x, sizes, axis=0, count=None):
    if isinstance(sizes, int):
        return ops.split(x, sizes, axis=axis)
    return ops.split(x, [sum(sizes[:i]) for i in range(1, len(sizes))], axis=axis)


def _pad(x, paddings, mode="CONSTANT", value=0, *rest):
    return ops.pad(x, paddings, mode=mode.lower(), **({"constant_values": value} if mode == "CONSTANT" else {}))


def _matmul(a, b, transpose_a=False, transpose_b=False, *rest):
    return ops.matmul(ops.swapaxes(a, -1, -2) if transpose_a else a, ops.swapaxes(b, -1, -2) if transpose_b else b)


def _resize(images, size, method="bilinear", preserve_aspect_ratio=False, antialias=False):
    if preserve_aspect_ratio:
        raise ValueError("preserve_aspect_ratio=True has no counterpart.")
    return ops.image.resize(images, tuple(int(s) for s in size), interpolation=str(getattr(method, "value", method)),
                            antialias=antialias)


def _concat(values, axis):
    return keras.layers.Concatenate(axis=int(axis))(values)


def _one(function):
    return lambda x, *rest: function(x)


_UNARY = ("abs", "square", "sqrt", "rsqrt", "exp", "log", "log1p", "tanh", "sigmoid", "sin", "cos", "floor", "ceil",
          "round", "negative", "erf", "sign")
_COMPARE = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "logical_and", "logical_or")

OPS = {
    **{f"math.{name}": _one(getattr(ops, name)) for name in _UNARY},
    **{f"math.{name}": getattr(ops, name) for name in _COMPARE},
    **{f"math.{name}": _binary(name) for name in MERGE},
    **{f"math.reduce_{name}": _reduce(getattr(ops, name)) for name in ("mean", "sum", "max", "min", "prod", "std")},
    "__operators__.add": _binary("add"), "__operators__.getitem": _getitem,
    "math.truediv": ops.divide, "math.divide": ops.divide, "math.pow": ops.power,
    "math.argmax": lambda x, axis=None, *rest: ops.argmax(x, axis=axis or 0),
    "math.l2_normalize": lambda x, axis=None, epsilon=1e-12, *r: x * ops.rsqrt(
        ops.maximum(ops.sum(x * x, axis=axis, keepdims=True), epsilon)),
    "math.softplus": _one(ops.softplus), "linalg.matmul": _matmul,
    "linalg.l2_normalize": lambda x, axis=None, epsilon=1e-12, *r: OPS["math.l2_normalize"](x, axis, epsilon),
    "nn.relu": _one(ops.relu), "nn.relu6": _one(ops.relu6), "nn.elu": _one(ops.elu), "nn.selu": _one(ops.selu),
    "nn.silu": _one(ops.silu), "nn.swish": _one(ops.silu), "nn.softplus": _one(ops.softplus),
    "nn.tanh": _one(ops.tanh), "nn.sigmoid": _one(ops.sigmoid),
    "nn.gelu": lambda x, approximate=False: ops.gelu(x, approximate=approximate),
    "nn.leaky_relu": lambda x, alpha=0.2: ops.leaky_relu(x, negative_slope=alpha),
    "nn.softmax": lambda x, axis=None, *rest: ops.softmax(x, axis=-1 if axis is None else axis),
    "nn.log_softmax": lambda x, axis=None, *rest: ops.log_softmax(x, axis=-1 if axis is None else axis),
    "clip_by_value": ops.clip, "cast": lambda x, dtype: ops.cast(x, getattr(dtype, "name", dtype)),
    "reshape": lambda x, shape: ops.reshape(x, tuple(int(s) for s in shape)),
    "transpose": lambda x, perm=None, *rest: ops.transpose(x, perm),
    "expand_dims": lambda x, axis, *rest: ops.expand_dims(x, axis),
    "squeeze": lambda x, axis=None, *rest: ops.squeeze(x, axis), "tile": ops.tile,
    "concat": _concat, "pad": _pad,
    "stack": lambda values, axis=0: ops.stack(values, axis=axis), "split": _split,
    "unstack": lambda x, count=None, axis=0: ops.unstack(x, count, axis=axis), "repeat": ops.repeat,
    "identity": _one(lambda x: x), "where": ops.where, "image.resize": _resize, "zeros_like": _one(ops.zeros_like),
    "ones_like": _one(ops.ones_like), "einsum": None,
}


def call_op(layer, args, kwargs):
    """The outputs in Keras 3 of ``layer``, a TFOpLambda of tf_keras, on already translated arguments.

    Raises:
        ValueError: naming the layer, where the function is not in ``OPS``.
    """
    symbol = str(layer.symbol).removeprefix("compat.v1.")
    if symbol not in OPS:
        raise ValueError(
            f"Layer '{layer.name}' calls tf.{layer.symbol}, which from_tf_keras can't translate. Put it into a layer "
            "of your own and pass custom_objects={its class name: a Keras 3 class}, or replace it.")
    if symbol == "einsum":
        return ops.einsum(*args)
    bound = inspect.signature(layer.function).bind(*args, **kwargs)
    bound.apply_defaults()
    values = [value for name, value in bound.arguments.items() if name not in ("name", "batch_dims")]
    try:
        return OPS[symbol](*values)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Layer '{layer.name}' calls tf.{layer.symbol} in a way that Keras 3 has not: {error}") from error
