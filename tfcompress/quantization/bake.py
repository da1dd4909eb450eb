"""From the trained quantization-aware model to the model that TFLiteConverter reads."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfcompress.graph import Graph, call, fill
from tfcompress.method import serializable
from tfcompress.model import bake, copy_layer
from tfcompress.quantization.fake_quant import FakeQuant, Fence, FixedQuant, IntegerAverage
from tfcompress.quantization.integer import LEVELS, ChannelAffine, IntegerKernel
from tfcompress.quantization.uniform import Uniform
from tfcompress.wrapper import Compressed, read

L = keras.layers


def bake_aware(model):
    """A plain Keras model of a trained quantization-aware ``model``, for ``TFLiteConverter`` with ``Optimize.DEFAULT``.

    Kernels and biases hold their rounded values; activation ranges are constants in fake-quant ops. It computes what
    ``model`` computes in inference, up to float32 rounding.

    Raises:
        ValueError: ``model`` has never seen data: fit it, or ``calibrate`` it.
    """
    graph = Graph(model)
    empty = [node.layer.name for node in graph.nodes if isinstance(node.layer, FakeQuant) and not node.layer.limits[1]]
    if empty:
        raise ValueError(f"The ranges of {empty} are not known yet: call fit, or calibrate(model, inputs) from "
                         "tfcompress.quantization.aware.")
    ends = {_plain_name(n) for n in graph.nodes if isinstance(n.layer, FakeQuant) and graph.is_output(n.outputs[0])}
    for layer in {id(n.layer): n.layer for n in graph.nodes if n.layer.name in ends}.values():
        layer.name += "_raw"                             # outputs bear the names they have in the float model
    inputs, tensors = graph.symbolic_inputs()
    grids, made = {}, {}
    for node in graph.nodes:
        layer, x = node.layer, tensors.get(node.inputs[0])
        if isinstance(layer, FakeQuant):
            grids[node.outputs[1]] = (*layer.limits, layer.bits)
            name = layer.name + (f"_{node.kwargs['member']}" if node.kwargs.get("member") else "")
            x = Fence(name=f"{name}_fence")(x) if layer.fence else x
            name = _plain_name(node) if graph.is_output(node.outputs[0]) else name
            tensors[node.outputs[0]] = FixedQuant(*layer.limits, layer.bits, name=name)(x)
        elif isinstance(layer, IntegerAverage):
            x = layer.layer(x)
            tensors[node.outputs[0]] = FixedQuant(*grids[node.inputs[1]], name=f"{layer.name}_quant")(x)
        elif isinstance(layer, (IntegerKernel, ChannelAffine)):
            versions = made.setdefault(id(layer), {})    # a shared layer has one bias for each grid it reads
            grid = grids[node.inputs[1]]
            if grid not in versions:
                versions[grid] = _integer(node, grid, f"_grid{len(versions)}" if versions else "")
            for part in versions[grid]:
                x = part(x)
            tensors[node.outputs[0]] = x
        elif isinstance(layer, Compressed):
            if id(layer) not in made:
                made[id(layer)] = copy_layer(layer.layer)
                bake(layer, made[id(layer)])
            call(node, tensors, made[id(layer)])
        elif type(layer) is L.UpSampling2D and layer.interpolation == "nearest":
            tensors[node.outputs[0]] = NearestUpSampling2D(layer.size, name=layer.name)(x)
        else:
            call(node, tensors)
    return keras.Model(inputs, fill(graph.outputs, tensors), name=graph.name)


def _plain_name(node):
    """The name of the layer whose result the ``FakeQuant`` of ``node`` rounds."""
    return node.layer.name.removesuffix("_quant")


def _integer(node, grid, suffix):
    """The plain layers that compute what ``node`` computes, on inputs of ``grid = (low, high, bits)``."""
    layer, shape = node.layer, node.inputs[0].shape
    low, high, bits = grid
    step = np.float32((high - low) / (2**bits - 1))      # as the model in inference: another order, another bias code
    if isinstance(layer, ChannelAffine):
        return _depthwise(layer, shape, step, suffix)
    inner, view = layer.layer, layer.slots["kernel"].view
    replacement = type(inner)
    if type(inner) in DILATED and np.max(inner.dilation_rate) > 1:
        replacement = DILATED[type(inner)]
    elif type(inner) is L.Dense and len(shape) > 2:
        replacement = FlatDense
    plain = replacement.from_config({**inner.get_config(), "name": layer.name + suffix})
    plain.build(shape)
    kernel = layer.baked("kernel", canonical=True)
    scale = step * (np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1))) / np.float32(LEVELS))
    kernel = np.asarray(Uniform(8).bake(kernel, {}))     # methods behind Uniform may have moved it
    plain.set_weights([view.back(kernel, np), _rounded(read(inner.bias), scale)])
    return [plain]


def _rounded(bias, step):
    safe = np.where(step > 0, step, 1)
    return np.where(step > 0, np.round(bias / safe) * safe, bias).astype("float32")


def _depthwise(layer, shape, step, suffix):
    """A depthwise convolution of size 1, between two reshapes where the tensor has no image axes."""
    scale, offset = layer.values()
    name = layer.name + suffix
    depthwise = L.DepthwiseConv2D(1, name=name)
    depthwise.build((None, 1, 1, shape[-1]))
    depthwise.set_weights([scale.reshape(1, 1, -1, 1), _rounded(offset, step * (np.abs(scale) / np.float32(LEVELS)))])
    if len(shape) == 4:
        return [depthwise]
    inside = {2: (1, 1, shape[-1])}.get(len(shape), (-1, 1, shape[-1]))
    outside = tuple(-1 if size is None else size for size in shape[1:])
    return [L.Reshape(inside, name=f"{name}_in"), depthwise, L.Reshape(outside, name=f"{name}_out")]


# ---- Keras layers whose own form the converter breaks into float pieces or ops that don't run in int8 --------------
@serializable
class DilatedConv2D(L.Conv2D):
    """``Conv2D`` as one dilated op, not space-to-batch, convolution, batch-to-space."""

    def convolution_op(self, inputs, kernel):
        return tf.nn.conv2d(inputs, kernel, list(self.strides), self.padding.upper(),
                            dilations=list(self.dilation_rate))


@serializable
class DilatedConv1D(L.Conv1D):
    """``Conv1D`` as one dilated op, padding "causal" included."""

    def call(self, inputs):
        causal = self.padding == "causal"
        x = ops.pad(inputs, self._compute_causal_padding()) if causal else inputs
        padding = "VALID" if causal else self.padding.upper()
        x = tf.nn.conv2d(x[:, None], self.kernel[None], [1, *self.strides], padding, dilations=[1, *self.dilation_rate])
        return tf.squeeze(tf.nn.bias_add(x, self.bias), 1)


DILATED = {L.Conv1D: DilatedConv1D, L.Conv2D: DilatedConv2D}


@serializable
class FlatDense(L.Dense):
    """``Dense`` on a sequence as one matrix product with its bias, between two reshapes."""

    def call(self, inputs):
        x = tf.matmul(tf.reshape(inputs, (-1, inputs.shape[-1])), self.kernel) + self.bias
        sizes = [-1 if size is None else size for size in inputs.shape[1:-1]]
        return tf.reshape(x, [-1 if -1 not in sizes else tf.shape(inputs)[0], *sizes, self.units])


@serializable
class NearestUpSampling2D(L.UpSampling2D):
    """Nearest ``UpSampling2D`` as one resize: TILE has no int8 kernel here."""

    def call(self, inputs):
        size = [inputs.shape[1] * self.size[0], inputs.shape[2] * self.size[1]]
        return tf.compat.v1.image.resize_nearest_neighbor(inputs, size)
