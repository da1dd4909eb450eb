"""Rewriting a trained network into the layers an integer runtime runs: kernels with a bias, simple activations.

Batch normalization is folded into the kernel before it, for good: fold when the model is trained. What remains is
split until each node is one TFLite kernel: separable convolutions, activations inside layers, sums of many tensors.
"""

import keras
import numpy as np

from tfcompress.graph import Graph, Node, Value
from tfcompress.layout import kernels
from tfcompress.quantization.integer import ChannelAffine
from tfcompress.wrapper import read

L = keras.layers
KERNELS = (L.Dense, L.Conv1D, L.Conv2D, L.DepthwiseConv1D, L.DepthwiseConv2D, L.Conv1DTranspose, L.Conv2DTranspose)
SEPARABLE = {L.SeparableConv1D: (L.DepthwiseConv1D, L.Conv1D), L.SeparableConv2D: (L.DepthwiseConv2D, L.Conv2D)}
OPERATIONS = {"Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Silu": "silu", "HardSilu": "hard_silu",
              "HardSigmoid": "hard_sigmoid", "Tanh": "tanh", "Gelu": "gelu", "Softmax": "softmax"}


def fold_batch_norm(model):
    """A copy of a trained ``model`` without the batch normalizations that follow a Dense, Conv or DepthwiseConv layer.

    ``kernel' = kernel * g`` and ``bias' = (bias - mean) * g + beta`` with ``g = gamma / sqrt(variance + epsilon)``, per
    output channel: in inference the outputs are those of ``model`` up to float32 rounding.

    >>> import keras
    >>> layers = [keras.Input((8, 3)), keras.layers.Conv1D(4, 3), keras.layers.BatchNormalization()]
    >>> [layer.name for layer in fold_batch_norm(keras.Sequential(layers)).layers][1:]   # doctest: +ELLIPSIS
    ['conv1d...']
    """
    graph = Graph(model)
    fold_norms(graph)
    return graph.build()


def simplify(graph, spare=frozenset()):
    """Rewrite ``graph`` in place into nodes that are one TFLite kernel each. Paths in ``spare`` stay as they are."""
    parts = {}
    for node in list(graph.nodes):
        if node.path in spare:
            continue
        split = _split(graph, node, parts)
        if split:
            graph.chain(node, split)
        elif _of_applications(node.layer, "CustomScaleLayer"):
            _scaled_sum(graph, node)
    fold_norms(graph)
    for node in list(graph.nodes):
        if node.path not in spare:
            _rewrite(graph, node, parts)
    _merge_twins(graph, spare)


def activation(layer):
    """The name of the unary function a layer or operation computes, e.g. ``"relu6"``; ``None`` for anything else."""
    if isinstance(layer, L.ReLU) and not layer.negative_slope and not layer.threshold:
        return {None: "relu", 6.0: "relu6"}.get(layer.max_value)
    if type(layer) is L.Softmax:
        return "softmax"
    if type(layer) is L.LeakyReLU:
        return "leaky_relu"
    if type(layer) is L.Activation:
        name = _named(layer.activation)
        return name if isinstance(name, str) else None
    return OPERATIONS.get(type(layer).__name__) if type(layer).__module__.startswith("keras.src.ops") else None


def is_kernel(layer):
    """Whether TFLite has an int8 kernel with weights for the layer."""
    return type(layer) in KERNELS and getattr(layer, "data_format", "channels_last") == "channels_last"


# ---- batch normalization ----------------------------------------------------------------------------------------
def fold_norms(graph):
    """Fold every BatchNormalization, or other fixed scale, that alone reads the output of a kernel without activation.
    """
    for layer in {id(node.layer): node.layer for node in graph.nodes}.values():
        if not is_kernel(layer) or _activation_inside(layer):
            continue
        pairs = [(node, graph.consumers(node.outputs[0])) for node in graph.users(layer)]
        norms = [readers[0] for node, readers in pairs if len(readers) == 1 and not graph.is_output(node.outputs[0])]
        norm = norms[0].layer if len(norms) == len(pairs) and norms else None
        if norm is None or any(n.layer is not norm for n in norms) or len(graph.users(norm)) != len(norms):
            continue
        affine = scale_and_offset(norm, norms[0].inputs[0].shape)
        if affine is None:
            continue
        kernel = with_bias(layer, pairs[0][0].inputs[0].shape)
        variable, view = kernels(kernel)["kernel"]
        scale, offset = affine
        variable.assign(view.back(view.to(read(variable), np) * scale, np))
        kernel.bias.assign(read(kernel.bias) * scale + offset)
        for node, _ in pairs:
            node.layer = kernel
        for node in norms:
            graph.drop(node)


def scale_and_offset(layer, shape):
    """``(scale, offset)``, numbers or one a channel, of a layer that is no more than that in inference; or ``None``."""
    found = None
    if isinstance(layer, L.BatchNormalization) and _last_axis(layer, len(shape)):
        found = norm_affine(layer)
    elif type(layer) is L.Rescaling:
        found = np.asarray(layer.scale, "float64"), np.asarray(layer.offset, "float64")
    elif _of_applications(layer, "LayerScale"):
        found = read(layer.gamma).astype("float64"), np.zeros(())
    return None if found is None or any(np.size(v) not in (1, shape[-1]) for v in found) else found


def _of_applications(layer, name):
    """Whether ``layer`` is of the class ``name`` that ``keras.applications`` keeps to itself."""
    return type(layer).__name__ == name and type(layer).__module__.startswith("keras.src.applications.")


def norm_affine(norm):
    """``(scale, offset)`` of an inference-time BatchNormalization, in float64."""
    variance = read(norm.moving_variance).astype("float64")
    scale = 1.0 / np.sqrt(variance + norm.epsilon)
    scale = scale * read(norm.gamma) if norm.scale else scale
    offset = -read(norm.moving_mean) * scale
    return scale, offset + read(norm.beta) if norm.center else offset


def with_bias(layer, input_shape):
    """A float32 copy of a kernel layer that has a bias and no activation."""
    config = {**layer.get_config(), "use_bias": True, "activation": "linear", "dtype": "float32"}
    copy = type(layer).from_config(config)
    copy.build(input_shape)
    kernels(copy)["kernel"][0].assign(read(kernels(layer)["kernel"][0]))
    if layer.use_bias:
        copy.bias.assign(read(layer.bias))
    return copy


def _last_axis(layer, rank):
    axis = layer.axis if isinstance(layer.axis, int) else tuple(layer.axis or ())
    return axis in (-1, rank - 1, (-1,), (rank - 1,))


# ---- one node, one kernel ---------------------------------------------------------------------------------------
def _activation_inside(layer):
    """The activation a kernel layer applies itself: a name, a function, or ``None`` for linear."""
    function = getattr(layer, "activation", None)
    if function in (None, keras.activations.linear):
        return None
    return _named(function)


def _named(function):
    """The name of one of Keras's activations; any other function as it is, also one of the same name."""
    name = keras.activations.serialize(function)
    return name if isinstance(name, str) and keras.activations.get(name) is function else function


def _split(graph, node, parts):
    """The layers that ``node.layer`` is made of, or ``None`` where it is one kernel already."""
    layer = node.layer
    if not (is_kernel(layer) or type(layer) in SEPARABLE) or getattr(layer, "data_format", "") == "channels_first":
        return None
    if id(layer) not in parts:
        shape = node.inputs[0].shape
        inner, split = _activation_inside(layer), [layer]
        if type(layer) in SEPARABLE:
            split = _separate(layer, shape)
        elif inner:
            split = [with_bias(layer, shape)]
        if inner:
            split.append(L.Activation(inner, name=f"{layer.name}_activation"))
        parts[id(layer)] = split if len(split) > 1 else None
    return parts[id(layer)]


def _separate(layer, shape):
    """Depthwise, then pointwise."""
    config = layer.get_config()
    common = {"dtype": "float32", "trainable": layer.trainable}
    first, second = SEPARABLE[type(layer)]
    depthwise = first(config["kernel_size"], strides=config["strides"], padding=config["padding"],
                      depth_multiplier=config["depth_multiplier"], dilation_rate=config["dilation_rate"],
                      name=f"{layer.name}_depthwise", **common)
    pointwise = second(config["filters"], 1, name=f"{layer.name}_pointwise", **common)
    depthwise.build(shape)
    pointwise.build(depthwise.compute_output_shape(shape))
    depthwise.kernel.assign(read(layer.depthwise_kernel))
    kernels(pointwise)["kernel"][0].assign(read(layer.pointwise_kernel))
    if layer.use_bias:
        pointwise.bias.assign(read(layer.bias))
    return [depthwise, pointwise]


def _scaled_sum(graph, node):
    """InceptionResNetV2's ``a + scale * b`` as a Rescaling, which folds into the convolution before it, and an Add."""
    layer, (first, second) = node.layer, node.inputs
    scaled = Value(second.shape, "float32")
    graph.replace(node, [
        Node(node.path, L.Rescaling(layer.scale, name=f"{layer.name}_scale"), (second,), {}, [scaled]),
        Node(node.path, L.Add(name=layer.name), ([first, scaled],), {}, node.outputs)])


def _rewrite(graph, node, parts):
    """Sums of many tensors become sums of two; silu is x * sigmoid(x); affine layers become ``ChannelAffine``."""
    layer, inputs = node.layer, node.inputs
    if type(layer) in (L.Add, L.Multiply, L.Maximum, L.Minimum) and len(inputs) > 2:
        nodes, x = [], inputs[0]
        for i, other in enumerate(inputs[1:], 1):
            last = i == len(inputs) - 1
            pair = type(layer)(name=layer.name if last else f"{layer.name}_{i}")
            shape = node.outputs[0].shape if last else pair.compute_output_shape([x.shape, other.shape])
            out = node.outputs[0] if last else Value(tuple(shape), "float32")
            nodes.append(Node(node.path, pair, ([x, other],), {}, [out]))
            x = out
        graph.replace(node, nodes)
    elif activation(layer) in ("silu", "swish"):
        gate = Value(inputs[0].shape, "float32")
        graph.replace(node, [
            Node(node.path, L.Activation("sigmoid", name=f"{layer.name}_sigmoid"), (inputs[0],), {}, [gate]),
            Node(node.path, L.Multiply(name=layer.name), ([inputs[0], gate],), {}, node.outputs)])
    elif len(inputs) == 1 and len(inputs[0].shape) >= 2 and inputs[0].shape[-1] and inputs[0].dtype == "float32":
        if id(layer) not in parts:
            parts[id(layer)] = _affine(layer, node)
        if parts[id(layer)] is not None:
            node.layer, node.args, node.kwargs = parts[id(layer)], (inputs[0],), {}


def _merge_twins(graph, spare):
    """One ReLU in place of several that read the same tensor: so the converter does, and fuses that one."""
    first = {}
    for node in list(graph.nodes):
        name = activation(node.layer)
        if name in ("relu", "relu6") and node.path not in spare and not graph.is_output(node.outputs[0]):
            twin = first.setdefault((id(node.inputs[0]), name), node)
            if twin is not node:
                graph.drop(node, twin.outputs[0])


def _affine(layer, node):
    """The ``ChannelAffine`` that computes what ``layer`` computes in inference, or ``None``."""
    shape = node.inputs[0].shape
    found, clip = None, None
    if activation(layer) == "hard_sigmoid":
        found, clip = (1.0 / 6.0, 0.5), (0.0, 1.0)
    elif scale_and_offset(layer, shape):
        found = scale_and_offset(layer, shape)
    elif type(layer) is L.Normalization and len(shape) > 2 and _last_axis(layer, len(shape)) and not layer.invert:
        scale = 1.0 / np.maximum(np.sqrt(np.ravel(layer.variance)), 1e-7)
        found = (scale, -np.ravel(layer.mean) * scale)
    elif type(layer).__module__ == "keras.src.ops.numpy" and type(layer).__name__ in ("Add", "Subtract", "Multiply",
                                                                                     "TrueDivide", "Divide"):
        found = _arithmetic(type(layer).__name__, node)
    if found is None or any(np.size(v) not in (1, shape[-1]) for v in found):
        return None
    trainable = bool(getattr(layer, "trainable_variables", ()))
    affine = ChannelAffine(clip=clip, name=layer.name, trainable=trainable)
    affine.build(shape)
    for variable, value in zip((affine.scale, affine.offset), found, strict=True):
        variable.assign(np.broadcast_to(np.ravel(value), variable.shape).astype("float32"))
    return affine


def _arithmetic(name, node):
    """``(scale, offset)`` of ``x + 3.0``, ``2 * x``, ``x / 6``: an operation between a tensor and a number."""
    if node.kwargs or len(node.args) != 2 or isinstance(node.args[0], Value) == isinstance(node.args[1], Value):
        return None
    first = isinstance(node.args[0], Value)
    number = node.args[1] if first else node.args[0]
    if not isinstance(number, (int, float, np.ndarray)):
        return None
    number = np.asarray(number, "float64")
    if name == "Multiply":
        return number, np.zeros(())
    if name == "Add":
        return np.ones(()), number
    if name == "Subtract":
        return (np.ones(()), -number) if first else (-np.ones(()), number)
    return (1.0 / number, np.zeros(())) if first else None
