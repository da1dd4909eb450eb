"""Where a filter's output is: behind the normalization and the activation that belong to its kernel.

Removing a filter removes all of that: ``relu(beta)`` as well. So it is there that criteria look, or put a mask.
"""

import math
import weakref

import keras
import numpy as np
import tensorflow as tf

from tfcompress.graph import Graph, call, fill
from tfcompress.layout import kernels
from tfcompress.model import leaves
from tfcompress.quantization.fold import activation
from tfcompress.wrapper import read

L = keras.layers
ONE_KERNEL = (L.Dense, L.EinsumDense, L.Embedding, L.Conv1D, L.Conv2D, L.Conv3D, L.DepthwiseConv1D, L.DepthwiseConv2D,
              L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)
SEPARABLE = (L.SeparableConv1D, L.SeparableConv2D)
UNARY = (L.ReLU, L.LeakyReLU, L.PReLU, L.ELU, L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D,
         L.GaussianNoise, L.GaussianDropout, L.ActivityRegularization, L.Identity)
_known = weakref.WeakKeyDictionary()


def outputs_of(model):
    """The ``Outputs`` of ``model``, made once, holding the model's weights of now."""
    loss = getattr(model, "_compile_loss", None)
    if model not in _known or _known[model].loss is not loss:
        _known[model] = Outputs(model)
        _known[model].loss = loss
    found = _known[model]
    for original, copy in found.graph._copies.values():
        for old, new in zip(getattr(original, "variables", ()), getattr(copy, "variables", ()), strict=True):
            new.assign(read(old))
    return found


class Outputs:
    """The flat float32 graph of a model, and the tensors in it that are its filters' outputs.

    Attributes:
        ends: ``{tensor path: [Value]}``, one for each use of the layer. Tensors whose channels aren't those of their
            layer's output (LSTM and attention kernels, channels first) are not in it.
        norms: ``{tensor path: layer}``, the BatchNormalization that alone reads the kernel's output.
        kernels: ``{tensor path: (variable, View)}`` of the graph's own, float32, copies.
    """

    def __init__(self, model):
        self.graph, self.ends, self.norms, self.kernels = Graph(model), {}, {}, {}
        self._functions = {}
        for path, layer in leaves(model):
            copy = self.graph._copies.get(id(layer), (None, None))[1]
            nodes = self.graph.users(copy) if copy is not None else []
            for key, (variable, view) in (kernels(copy).items() if nodes else ()):
                self.kernels[f"{path}/{key}"] = (variable, view)
                if key == output_key(copy):
                    self._follow(f"{path}/{key}", nodes, view.canonical[-1])

    def _follow(self, path, nodes, channels):
        chains = [self._chain(node) for node in nodes]
        if all(trailing(chain[-1].outputs[0].shape, channels) for chain in chains):
            self.ends[path] = [chain[-1].outputs[0] for chain in chains]
            norm = chains[0][1].layer if len(chains[0]) > 1 else None
            if isinstance(norm, L.BatchNormalization):
                self.norms[path] = norm

    def _chain(self, node):
        """The node and those behind it that work channel by channel, each the only reader of the one before."""
        chain = [node]
        while True:
            readers = self.graph.consumers(chain[-1].outputs[0])
            if len(readers) != 1 or self.graph.is_output(chain[-1].outputs[0]) or not _own_channel(readers[0]):
                return chain
            chain.append(readers[0])

    def lost(self, paths):
        """Those of ``paths`` that have no output to look at."""
        return [path for path in paths if path not in self.ends]

    def forward(self, x, masks=None):
        """All tensors, ``{Value: tensor}``, the filters' outputs multiplied by ``masks``, ``(batch, channels)``."""
        tensors = self.graph.feed(x)
        marks = {value: path for path in masks or () for value in self.ends[path]}
        for node in self.graph.nodes:
            call(node, tensors)
            for value in (v for v in node.outputs if v in marks):
                mask, k = masks[marks[value]], trailing(value.shape, masks[marks[value]].shape[-1])
                ones = (1,) * (len(value.shape) - 1 - k)
                tensors[value] = tensors[value] * tf.reshape(mask, (-1, *ones, *value.shape[len(value.shape) - k:]))
        return tensors

    def maps(self, paths, x):
        """``{path: [tensor]}``, the filters' outputs for ``x``, one for each use of the layer."""
        def run(x):
            tensors = self.forward(x)
            return {path: [tensors[value] for value in self.ends[path]] for path in paths}

        return self._function(("maps", *paths), run)(x)

    def _function(self, key, function):
        if key not in self._functions:
            self._functions[key] = tf.function(function, autograph=False)
        return self._functions[key]

    def gradients(self, name, target, paths, x, extra):
        """Gradients of the sum ``target(model outputs, extra)``, one forward and one backward pass.

        Returns:
            The model's outputs; ``{path: (batch, channels)}`` by each sample's masks; where there is no output to mask
            ``{path: (channels,)}`` by the batch's mask on the weights, ``<w_i, dt/dw_i>``. ``name`` tells targets apart
            (each is compiled once).
        """
        outputs, masks, inner = self._function((name, *paths), self._make(target, tuple(paths)))(x, extra)
        found = {}
        for path, g in inner.items():
            variable, view = self.kernels[path]
            product = view.to(read(variable) * g.numpy(), np)
            found[path] = product.reshape(-1, product.shape[-1]).sum(0, dtype="float64")
        return outputs, {path: g.numpy().astype("float64") for path, g in masks.items()}, found

    def _make(self, target, paths):
        def run(x, extra):
            count = tf.shape(keras.tree.flatten(x)[0])[0]
            masks = {path: tf.ones((count, self.kernels[path][1].canonical[-1])) for path in paths if path in self.ends}
            inner = {path: self.kernels[path][0].value for path in self.lost(paths)}
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch((masks, inner))
                outputs = fill(self.graph.outputs, self.forward(x, masks))
                value = target(outputs, extra)
            masks, inner = tape.gradient(value, (masks, inner), unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return outputs, masks, {path: tf.convert_to_tensor(g) for path, g in inner.items()}
        return run


def output_key(layer):
    """The key of the kernel whose output channels are the layer's own, or ``None``."""
    inner = layer.layer if isinstance(layer, L.TimeDistributed) else layer
    keys = list(kernels(layer))
    if getattr(inner, "data_format", "channels_last") != "channels_last":
        return None
    if isinstance(inner, SEPARABLE):
        return keys[-1]
    return keys[0] if isinstance(inner, ONE_KERNEL) and len(keys) == 1 else None


def trailing(shape, channels):
    """How many axes at the end of ``shape`` make ``channels``; ``None`` where they don't.

    >>> trailing((None, 5, 2, 3), 6), trailing((None, 6), 6), trailing((None, 5), 6)
    (2, 1, None)
    """
    for k in range(1, len(shape)):
        if None not in shape[-k:] and math.prod(shape[-k:]) == channels:
            return k
    return None


def _own_channel(node):
    layer = node.layer
    if len(node.inputs) != 1 or len(node.outputs) != 1:
        return False
    if isinstance(layer, L.BatchNormalization):
        return layer.axis in (-1, len(node.inputs[0].shape) - 1)
    return isinstance(layer, UNARY) or activation(layer) not in (None, "softmax", "log_softmax")
