"""Factors as Keras layers: the last one keeps the name, bias and activation of the layer they replace."""

import keras
import numpy as np

from tfcompress.copies import from_own_config
from tfcompress.lowrank.cells import LowRankGRUCell, LowRankLSTMCell
from tfcompress.wrapper import read

L = keras.layers
CELLS = {L.LSTM: LowRankLSTMCell, L.GRU: LowRankGRUCell}


def chain(layer, kind, arrays, input_shape, taken=()):
    """Built layers that compute what ``layer`` (Dense, Conv1D or Conv2D) does with another kernel.

    ``kind`` and ``arrays`` are those of an option and its ``options.factors``, in running order; ``taken`` are names of
    layers that the model has.
    """
    made, shape = [], tuple(input_shape)
    bias = read(layer.bias) if layer.use_bias else None
    for i in range(len(arrays)):
        last = i == len(arrays) - 1
        name = layer.name if last else free(f"{layer.name}_factor{i + 1}", taken)
        own = (bias, layer.activation, layer.activity_regularizer) if last else ()
        made.append(factor(layer, kind, arrays, i, shape, name, *own))
        shape = made[-1].compute_output_shape(shape)
    return made


def free(name, taken):
    """``name``, or with a number behind it where a layer is called so: a layer that was factorised before."""
    numbers = (f"{name}_{i}" for i in range(2, len(taken) + 3))
    return next(one for one in (name, *numbers) if one not in taken)


def factor(layer, kind, arrays, i, shape, name, bias=None, activation=None, activity_regularizer=None):
    """One of the factors, a built layer of that name."""
    config = _config(layer, kind, arrays, i) | {"use_bias": bias is not None, "activation": activation, "name": name,
                                                "activity_regularizer": activity_regularizer}
    if bias is not None:
        config["bias_regularizer"] = layer.bias_regularizer
    if kind == "cp" and 0 < i < len(arrays) - 1:
        config["depthwise_regularizer"] = config.pop("kernel_regularizer")
        new = {L.Conv1D: L.DepthwiseConv1D, L.Conv2D: L.DepthwiseConv2D}[type(layer)](**config)
    else:
        new = type(layer)(arrays[i].shape[-1], **config)
    new.build(shape)
    new.set_weights([arrays[i].astype("float32")] + ([] if bias is None else [np.asarray(bias, "float32")]))
    return new


def _config(layer, kind, arrays, i):
    """Size, stride, padding and dilation of factor ``i``: a stride goes to the factor that sees its axis."""
    config = {"trainable": layer.trainable, "kernel_regularizer": layer.kernel_regularizer,
              "dtype": layer.dtype_policy}
    if isinstance(layer, L.Dense):
        return config
    size = arrays[i].shape[:-2]
    ones = (1,) * len(size)
    at = {"svd": 0, "tucker": 1, "cp": 1}.get(kind)
    strides = tuple(layer.strides) if i == at else ones
    if kind == "separable":
        strides = (layer.strides[0], 1) if i == 0 else (1, layer.strides[1])
    point = max(size) == 1
    return config | {"kernel_size": size, "strides": strides, "padding": "valid" if point else layer.padding,
                     "dilation_rate": ones if point else tuple(layer.dilation_rate)}


def recurrent(layer, pairs, shape):
    """A built ``keras.layers.RNN`` (or Bidirectional) that computes what ``layer`` does, its kernels being products.

    Args:
        layer: an LSTM or GRU, or a Bidirectional of two.
        pairs: ``{key of a kernel in the layer: (left, right)}``; other kernels stay whole.
        shape: of its sequences.
    """
    if isinstance(layer, L.Bidirectional):
        halves = []
        for name in ("forward_layer", "backward_layer"):
            half = getattr(layer, name)
            own = {key.removeprefix(f"{half.name}/"): pair for key, pair in pairs.items()
                   if key.startswith(f"{half.name}/")}
            halves.append(recurrent(half, own, shape) if own else from_own_config(half))
        merged = L.Bidirectional(halves[0], merge_mode=layer.merge_mode, backward_layer=halves[1], name=layer.name,
                                 dtype=layer.dtype_policy)
        merged.trainable = layer.trainable
        merged.build(shape)
        for half, old, name in zip(halves, (layer.forward_layer, layer.backward_layer), ("forward", "backward"),
                                   strict=True):
            new = getattr(merged, f"{name}_layer")
            new.set_weights(half.get_weights() if half.built else old.get_weights())
        return merged
    cell_config = layer.cell.get_config()
    found = {key.rpartition("/")[2]: pair for key, pair in pairs.items()}
    ranks = {name: found[kernel][0].shape[-1] if kernel in found else None
             for name, kernel in (("input_rank", "kernel"), ("recurrent_rank", "recurrent_kernel"))}
    cell = CELLS[type(layer)].from_config({**cell_config, **ranks})
    options = {name: getattr(layer, name) for name in ("return_sequences", "return_state", "go_backwards", "stateful",
                                                       "unroll", "zero_output_for_mask")}
    new = L.RNN(cell, **options, activity_regularizer=layer.activity_regularizer, name=layer.name,
                dtype=layer.dtype_policy)
    new.trainable = layer.trainable
    new.build(shape)
    values = {"input_factor": None, "recurrent_factor": None, "kernel": read(layer.cell.kernel),
              "recurrent_kernel": read(layer.cell.recurrent_kernel)}
    for kernel, factor in (("kernel", "input_factor"), ("recurrent_kernel", "recurrent_factor")):
        if kernel in found:
            values[factor], values[kernel] = found[kernel]
    for name, value in values.items():
        if value is not None:
            getattr(cell, name).assign(np.asarray(value, "float32"))
    if layer.cell.bias is not None:
        cell.bias.assign(read(layer.cell.bias))
    return new
