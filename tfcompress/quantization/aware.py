"""Quantization-aware training: the trained net computes what the int8 file will compute, up to rounding ties."""

import re

import numpy as np

from tfcompress.chain import Chain
from tfcompress.graph import Graph
from tfcompress.model import check_model, leaves
from tfcompress.quantization.bake import bake_aware
from tfcompress.quantization.fake_quant import FakeQuant, IntegerAverage
from tfcompress.quantization.float16 import Float16
from tfcompress.quantization.fold import fold_norms, simplify
from tfcompress.quantization.integer import IntegerKernel
from tfcompress.quantization.kinds import FLOAT, RELU, SAME, UNION, kind
from tfcompress.quantization.placement import Placement
from tfcompress.quantization.uniform import Uniform
from tfcompress.wrapper import Compressed

__all__ = ["bake_aware", "calibrate", "freeze_ranges", "is_aware", "quantize_aware", "skipped_layers"]


def quantize_aware(model, bits=8, *, keep_float=(), weights=None):
    """A copy of a trained ``model`` that trains with the integer arithmetic of its future ``.tflite`` file.

    Kernels are symmetric per output channel, biases whole multiples of ``s_in * s_w``, activations asymmetric per
    tensor with ranges learned by moving average; fake-quantization sits only where an integer kernel has its output
    (behind the fused activation; reshape, pad and max pool pass ranges on). Batch normalization is folded into the
    kernels here and now, so train the float model first. Layers TFLite can't run in int8 stay float: see
    ``skipped_layers``. Attention and other float layers still train with the 8-bit kernels they will have.

    Args:
        model: built Functional or Sequential model, nested models allowed; flattened in the result.
        bits: bits of the kernels, 2..8; 16 trains with 16-bit weights, which no TFLite kernel holds: the file keeps
            float16 or float32 there. Below 8 the file's kernels are int8 with at most ``2**bits - 1`` levels.
        keep_float: regexes, matched in full against layer paths (``"encoder/conv1"``), of layers that stay float.
        weights: a ``Method`` for the kernels in place of ``Uniform(bits)``; what it makes is rounded to int8.

    Returns:
        A Keras model: compile, fit, save and load as usual; ``compress`` may chain pruning onto its kernels. Ranges
        start at the first training batch, or at data given to ``calibrate``. Outputs are named ``"<layer>_quant"``
        while it trains (losses given by name), as in ``model`` once converted.

    Raises:
        ValueError: an unused ``keep_float`` rule, a subclassed or unbuilt model, unsupported bits.

    Jacob B et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
    2018, arXiv:1712.05877.

    >>> import keras
    >>> x = keras.Input((8, 8, 3))
    >>> y = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3, name="conv")(x))
    >>> y = keras.layers.Flatten(name="flat")(keras.layers.ReLU(name="relu")(y))
    >>> aware = quantize_aware(keras.Model(x, keras.layers.Dense(2, name="out")(y)))
    >>> [layer.name for layer in aware.layers][1:]
    ['input_quant', 'conv', 'relu', 'relu_quant', 'flat', 'out', 'out_quant']
    >>> skipped_layers(aware)
    []
    """
    check_model(model)
    if weights is not None and weights.needs_model:
        raise ValueError(f"{weights} has to look at a plain network, which a quantization-aware one is not. Train it "
                         "first: quantize_aware(strip(compress(model, method))).")
    if is_aware(model):
        raise ValueError(f"Model '{model.name}' is quantization-aware already.")
    wrapped = [path for path, layer in leaves(model) if isinstance(layer, Compressed)]
    if wrapped:
        raise ValueError(f"Model '{model.name}' still trains compressed layers: {wrapped[:5]}. Call strip(model) "
                         "first, or quantize_aware first and then compress what it returns.")
    if bits not in (*range(2, 9), 16):
        raise ValueError(f"`bits` is 2..8, or 16 for half-precision weights. Received: bits={bits!r}.")
    graph = Graph(model)
    spare = _matching(keep_float, [node.path for node in graph.nodes])
    if bits == 16:
        fold_norms(graph)
        return Placement(graph, spare, weights or Float16(), integer=False).run()
    simplify(graph, spare)
    method = weights or Uniform(bits)
    if weights is not None or bits < 8:
        method = Chain((method, Uniform(8)))
    return Placement(graph, spare, method).run()


def is_aware(model):
    """Whether ``model`` was made by ``quantize_aware``."""
    return any(isinstance(layer, FakeQuant) for _, layer in leaves(model))


def fake_quants(model):
    """The ``FakeQuant`` layers whose range is learned."""
    return [layer for _, layer in leaves(model) if isinstance(layer, FakeQuant) and not layer.fixed]


def calibrate(model, data):
    """Start the ranges of a quantization-aware model from data, before training, or instead of it.

    Args:
        data: an array (its first 1,024 rows, in batches of 128), or an iterable of batches: inputs, or tuples
            ``(inputs, labels)`` as ``fit`` takes them.

    >>> import keras
    >>> model = quantize_aware(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    >>> calibrate(model, np.array([[0.0, 3.0], [-1.0, 2.0]], "float32"))
    >>> model.get_layer("input_quant").limits
    (-1.0, 3.0)
    """
    batches = [data[i:i + 128] for i in range(0, min(len(data), 1024), 128)] if isinstance(data, np.ndarray) else data
    for layer in fake_quants(model):
        layer.observing = True
    try:
        for batch in batches:
            model(batch[0] if isinstance(batch, tuple) else batch, training=False)
    finally:
        for layer in fake_quants(model):
            layer.observing = False


def freeze_ranges(model, frozen=True):
    """Hold all activation ranges still, e.g. for the last steps. Call ``model.compile`` again after it."""
    for layer in fake_quants(model):
        layer.trainable = not frozen


def skipped_layers(model):
    """Names of the layers of a quantization-aware model that stay float in the int8 file, in graph order."""
    graph = Graph(model)

    def is_integer(value):
        readers = graph.consumers(value)
        return any((isinstance(n.layer, FakeQuant) and not n.layer.fence)
                   or (kind(n) == RELU and is_integer(n.outputs[0])) for n in readers)

    skipped = []
    for node in graph.nodes:
        on_grid = isinstance(node.layer, (FakeQuant, IntegerAverage, IntegerKernel)) or kind(node) in (SAME, UNION)
        if not on_grid and (kind(node) == FLOAT or not is_integer(node.outputs[0])):
            skipped.append(node.layer.name)
    return list(dict.fromkeys(skipped))


def _matching(rules, paths):
    """The ``paths`` that a rule matches in full; a rule that matches none is an error."""
    rules = [rules] if isinstance(rules, str) else list(rules)
    unused = [rule for rule in rules if not any(re.fullmatch(rule, path) for path in paths)]
    if unused:
        raise ValueError(f"These keep_float rules matched no layer: {unused}. Layers: {list(dict.fromkeys(paths))}.")
    return {path for path in paths if any(re.fullmatch(rule, path) for rule in rules)}
