"""Cross-layer equalization of a float ``.tflite`` file: channels scaled between layers, so that int8 fits all of them.

``relu(x / s) = relu(x) / s``: what makes a channel can be divided by ``s`` where all that read it are multiplied. With
``s = sqrt(r / w)``, ``r`` the channel's range and ``w`` the largest weight that reads it, both become ``sqrt(r w)``
(Nagel et al., "Data-free quantization through weight equalization and bias correction", arXiv:1906.04721, who use the
range of weights for ``r``, too). Tensors that a sum ties share their scales. Outputs are the same up to rounding: what
is cut off at 6 stays as it is, since real inputs reach the 6 where synthetic ones don't (seen on EfficientNet-Lite0).
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfcompress.conversion.file import read, write
from tfcompress.data_free.adapt import store

MAKERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
THROUGH = ("ADD", "SUB", "RELU", "LEAKY_RELU", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "PAD")
_ACTIVATION = schema.ActivationFunctionType
FREE = (_ACTIVATION.NONE, _ACTIVATION.RELU)
MOST = 100.0  # ratio of the largest to the smallest scale within a group


class _Group:
    """Tensors whose channels have one scale: makers and readers as ``(operation, which constant)``."""

    def __init__(self):
        self.tensors, self.makers, self.readers, self.ties = set(), [], [], []


def equalize(content, graph, ranges):
    """The file with equalized channels, and how many groups of tensors were.

    Args:
        content: bytes of the float file.
        graph: its main ``flatbuffer.Graph``.
        ranges: ``{tensor: (low, high)}`` a channel, see ``moments.observe``.
    """
    model, done = read(content), 0
    for group in _groups(graph):
        scale = _scale(graph, group, ranges)
        if scale is not None:
            _rescale(model, graph, group, scale)
            done += 1
    return (write(model) if done else content), done


# ---- which tensors have one scale -------------------------------------------------------------------------------
def _groups(graph):
    parent = list(range(len(graph.tensors)))

    def root(index):
        while parent[index] != index:
            index = parent[index]
        return index

    ties = {}
    for number, op in enumerate(graph.ops):
        if op.name in THROUGH:
            moved = [index for index in op.inputs[:2] if index >= 0 and graph.tensors[index].data is None]
            moved = moved if op.name in ("ADD", "SUB") else moved[:1]
            for index in moved:
                parent[root(index)] = root(op.outputs[0])
            ties[number] = moved
    groups = {}
    for tensor in graph.tensors:
        if tensor.data is None and tensor.dtype == "float32":
            groups.setdefault(root(tensor.index), _Group()).tensors.add(tensor.index)
    for number, op in enumerate(graph.ops):
        _place(number, op, ties, groups, root)
    return [group for group in groups.values() if _may_scale(graph, group)]


def _place(number, op, ties, groups, root):
    for index in {*op.inputs, *op.outputs} - {-1}:
        group = groups.get(root(index))
        if group is None:
            continue
        if number in ties:
            group.ties.append(number)
        elif index in op.outputs:
            group.makers.append(number)
        else:
            group.readers.append(number)


def _may_scale(graph, group):
    """Whether all that makes and reads the tensors can take a scale."""
    if not group.makers or not group.readers or group.tensors & {*graph.inputs, *graph.outputs}:
        return False
    for number in {*group.makers, *group.readers}:
        op = graph.ops[number]
        if op.name not in MAKERS or graph.tensors[op.inputs[1]].data is None:
            return False
        uses = sum(op.inputs[1] in other.inputs for other in graph.ops)
        if uses > 1 or (number in group.readers and op.inputs[0] not in group.tensors):
            return False
    for number in group.makers:
        op = graph.ops[number]
        if op.options.fusedActivationFunction not in FREE:
            return False
        bias = op.inputs[2] if len(op.inputs) > 2 else -1
        if bias >= 0 and not _own_bias(graph, bias):
            return False
    return all(_tie_scales(graph, graph.ops[number]) for number in set(group.ties)) and _one_width(graph, group)


def _own_bias(graph, bias):
    """Whether a bias is a constant of this operation alone; zeros may be shared, as they stay zeros."""
    data = graph.tensors[bias].data
    return data is not None and (not data.any() or sum(bias in other.inputs for other in graph.ops) == 1)


def _tie_scales(graph, op):
    """An operation within a group that gives ``f(x / s) = f(x) / s`` channel by channel."""
    if getattr(op.options, "fusedActivationFunction", _ACTIVATION.NONE) not in FREE:
        return False
    last = len(graph.tensors[op.inputs[0]].shape) - 1
    if op.name == "MEAN":
        axes = graph.tensors[op.inputs[1]].data
        return axes is not None and all(axis % (last + 1) != last for axis in np.atleast_1d(axes))
    if op.name == "PAD":
        pads = graph.tensors[op.inputs[1]].data
        return pads is not None and not np.asarray(pads)[-1].any()
    if op.name in ("ADD", "SUB"):
        return all(graph.tensors[index].data is None for index in op.inputs[:2])
    return True


def _one_width(graph, group):
    shapes = {graph.tensors[index].shape[-1:] for index in group.tensors}
    if len(shapes) != 1 or shapes == {()}:
        return False
    channels = next(iter(shapes))[0]
    for number in {*group.makers, *group.readers}:
        op = graph.ops[number]
        kernel = graph.tensors[op.inputs[1]].shape
        whole = kernel[-1] == channels or op.name == "DEPTHWISE_CONV_2D"
        if number in group.readers and not whole:  # grouped, or a flattened picture
            return False
        if op.name == "DEPTHWISE_CONV_2D" and kernel[-1] != channels:
            return False
    return True


# ---- the scales ------------------------------------------------------------------------------------------------
def _scale(graph, group, ranges):
    """Scale of each channel, or None where the ranges are unknown or all alike."""
    known = [ranges[index] for index in group.tensors if index in ranges]
    if not known:
        return None
    reach = np.max([np.maximum(np.abs(low), np.abs(high)) for low, high in known], axis=0)
    weight = np.max([_by_input(graph, graph.ops[number]) for number in group.readers], axis=0)
    used = (reach > 0) & (weight > 0)
    if used.sum() < 2:
        return None
    scale = np.ones(len(reach))
    scale[used] = np.sqrt(reach[used] / weight[used])
    scale[used] /= np.sqrt(scale[used].min() * scale[used].max())
    scale = np.clip(scale, MOST**-0.5, MOST**0.5)
    scale[~used] = 1
    return None if np.allclose(scale, 1, rtol=0.05) else scale.astype("float32")


def _by_input(graph, op):
    """Largest weight that reads each channel."""
    kernel = np.abs(graph.tensors[op.inputs[1]].data)
    return kernel.reshape(-1, kernel.shape[-1]).max(axis=0)


def _rescale(model, graph, group, scale):
    main = model.subgraphs[0]
    for number in dict.fromkeys(group.makers):
        op = main.operators[number]
        depthwise = graph.ops[number].name == "DEPTHWISE_CONV_2D"
        _times(model, main.tensors[op.inputs[1]], 1 / scale, first=not depthwise)
        if len(op.inputs) > 2 and op.inputs[2] >= 0 and graph.tensors[op.inputs[2]].data.any():
            _times(model, main.tensors[op.inputs[2]], 1 / scale)
    for number in dict.fromkeys(group.readers):
        _times(model, main.tensors[main.operators[number].inputs[1]], scale)


def _times(model, tensor, factor, first=False):
    """Multiply a constant along its last axis, or its first."""
    values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), "<f4").reshape(tensor.shape)
    factor = factor.reshape([-1] + [1] * (values.ndim - 1)) if first else factor
    store(model, tensor, values * factor)
