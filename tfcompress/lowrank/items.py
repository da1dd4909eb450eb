"""The kernels of a graph that can be factorised, and what every layer costs: multiply-accumulates and weights."""

import math
from dataclasses import dataclass

import keras
import numpy as np

from tfcompress.layout import TRANSPOSED, kernels
from tfcompress.wrapper import read

L = keras.layers
CONVOLUTIONS = (L.Conv1D, L.Conv2D)
RECURRENT = (L.LSTM, L.GRU)


@dataclass(eq=False)
class Item:
    """One kernel that can be replaced by factors.

    Attributes:
        path: of the layer; layer: the graph's own copy; key: of the kernel in it, ``"lstm_cell/recurrent_kernel"``.
        kernel: float64 (in, out), or (space..., in, out) of a convolution.
        inputs, columns, outputs: positions at which a matrix before it, a column of its height, and the kernel itself
            are applied, over all calls of the layer.
    """

    path: str
    layer: object
    key: str
    kernel: np.ndarray
    inputs: int
    columns: int
    outputs: int

    @property
    def name(self):
        return self.path if self.key == "kernel" else f"{self.path}/{self.key}"

    @property
    def macs(self):
        return self.outputs * self.kernel.size

    @property
    def parameters(self):
        return self.kernel.size

    @property
    def nonzeros(self):
        return int(np.count_nonzero(self.kernel))

    @property
    def biased(self):
        """Whether a bias could take up a mean change of what the kernel computes."""
        return type(self.layer) in (L.Dense, *CONVOLUTIONS) and self.layer.use_bias

    @property
    def strided(self):
        return any(step > 1 for step in getattr(self.layer, "strides", ()))


def found(graph):
    """``(items, skipped, macs, parameters)``: the latter two of all kernels of the graph, items or not.

    ``skipped`` is ``[(path, reason)]`` of layers with kernels that are no items.
    """
    items, skipped, macs, parameters = [], [], 0, 0
    for layer in {id(node.layer): node.layer for node in graph.nodes}.values():
        own = kernels(layer) if isinstance(layer, L.Layer) else {}
        if not own:
            continue
        nodes = graph.users(layer)
        for key, (variable, _) in own.items():
            size = math.prod(variable.shape)
            macs += size * sum(_positions(node, key) for node in nodes)
            parameters += size
        reason = _reason(layer)
        if reason:
            skipped.append((nodes[0].path, reason))
            continue
        for key, (variable, _) in own.items():
            items.append(Item(nodes[0].path, layer, key, read(variable).astype("float64"), *_counts(layer, nodes, key)))
    return items, skipped, macs, parameters


def _reason(layer):
    """Why a layer is no item; ``None`` where it is one."""
    if isinstance(layer, L.Bidirectional):
        return None if all(type(half) in RECURRENT for half in (layer.forward_layer, layer.backward_layer)) else (
            "its cells are neither LSTM nor GRU")
    if type(layer) in (L.Dense, *RECURRENT):
        return None
    if type(layer) not in CONVOLUTIONS:
        return f"no factors are known for a {type(layer).__name__}"
    if layer.groups > 1:
        return "a grouped convolution"
    return "channels first" if layer.data_format == "channels_first" else None


def _positions(node, key="kernel"):
    """How often each weight of one kernel of the node's layer is used in one run."""
    layer, first, out = node.layer, node.inputs[0].shape, node.outputs[0].shape
    if isinstance(layer, L.Embedding):
        return 0
    if isinstance(layer, (L.ConvLSTM1D, L.ConvLSTM2D, L.ConvLSTM3D)):
        maps = out[2:] if layer.return_sequences else out[1:]
        return _product((first[1], *(maps[:-1] if layer.data_format == "channels_last" else maps[1:])), node)
    if isinstance(layer, (L.RNN, L.Bidirectional)):
        return _product(first[1:2], node)
    if isinstance(layer, L.EinsumDense):                 # axes of the input that no weight has
        labels = layer.equation.replace(" ", "").replace("->", ",").split(",")
        own = (size for label, size in zip(labels[1], layer.kernel.shape, strict=True) if label in labels[0])
        return _product(first[1:], node) // math.prod(own)
    if isinstance(layer, L.MultiHeadAttention) and key.startswith(("key", "value")):
        given = [value for value in node.args if value is not None]          # query, value, key
        return _product(given[2 if key.startswith("key") and len(given) > 2 else 1].shape[1:-1], node)
    if isinstance(layer, (*TRANSPOSED, L.MultiHeadAttention)):
        return _product(first[1:-1], node)
    return _product(out[1:-1], node)


def _counts(layer, nodes, key):
    """Positions of the input, of columns and of the output, summed over the nodes."""
    outputs = sum(_positions(node) for node in nodes)
    if type(layer) not in CONVOLUTIONS:
        half = getattr(layer, "backward_layer" if key.startswith("backward") else "forward_layer", layer)
        twice = key.endswith("recurrent_kernel") and not getattr(half, "reset_after", True)
        return outputs * (2 if twice else 1), outputs, outputs   # a GRU that resets first reduces two states a step
    inputs = sum(_product(node.inputs[0].shape[1:-1], node) for node in nodes)
    columns = sum(_product((node.outputs[0].shape[1], *node.inputs[0].shape[2:-1]), node) for node in nodes)
    return inputs, columns, outputs


def _product(sizes, node):
    if None in sizes:
        raise ValueError(f"Layer '{node.path}' leaves sizes open: {tuple(node.inputs[0].shape)}. Build the model with "
                         "the sizes that the device will see: what factors save depends on them.")
    return math.prod(sizes)
