"""Gives back the biases that a static quantizer cut off: those of channels whose kernel is all but zero.

An int32 bias counts in steps of input scale x kernel scale, and the kernel scale is the channel's largest weight / 127.
Pruning makes channels of zeros; litert-quantizer 0.11 gives those a kernel scale of 8e-12, and a bias of 0.8 becomes
2 ** 31 - 1 steps = 7e-5. A residual net pruned to 90 % fell from 95.5 % to 81.2 % by it (five channels of its stem).
"""

import re
from collections import Counter

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfcompress.conversion.islands import operation

LIMIT = 2.0**30  # steps: as TFLiteConverter, room for the sum of the products
_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_INTEGERS = {schema.TensorType.INT32: "<i4", schema.TensorType.INT64: "<i8"}


def restore(model, original):
    """A larger kernel scale, in place, for every channel whose bias takes more than 2 ** 30 steps.

    Args:
        model: the file in int8 or int16x8, made from ``original``.
        original: the float file.
    """
    originals = _vectors(original)
    for graph in model.subgraphs:
        for kernel, readers in _kernels(model, graph, originals).items():
            _widen(model, graph, graph.tensors[kernel], readers)


def _kernels(model, graph, originals):
    """``{index of an int8 kernel: [(scale of the input, index of the bias, its float values)]}``, one a reader.

    A kernel that something else reads too is left out.
    """
    found, uses = {}, Counter(index for op in graph.operators for index in op.inputs)
    for op in graph.operators:
        inputs = [index for index in op.inputs if index >= 0]
        if operation(model, op) not in _LAYERS or len(inputs) < 3:
            continue
        kernel, bias = inputs[1], inputs[-1]
        source = graph.tensors[inputs[2] if len(inputs) > 3 else inputs[0]]  # TRANSPOSE_CONV starts with a shape
        exact = originals.get(_name(graph.tensors[bias]))
        is_constant = model.buffers[graph.tensors[kernel].buffer].data is not None
        kinds = graph.tensors[kernel].type, graph.tensors[bias].type
        if is_constant and kinds[0] == schema.TensorType.INT8 and kinds[1] in _INTEGERS and exact is not None:
            found.setdefault(kernel, []).append((float(source.quantization.scale[0]), bias, exact))
    return {kernel: readers for kernel, readers in found.items() if uses[kernel] == len(readers)}


def _widen(model, graph, kernel, readers):
    """Make the kernel's scales large enough for the biases of all its readers."""
    scale = np.asarray(kernel.quantization.scale, "float32")
    needed = np.max([np.abs(exact) / (step * LIMIT) for step, _, exact in readers], axis=0)
    wide = np.maximum(scale, needed if len(scale) > 1 else needed.max()).astype("float32")
    if (wide == scale).all():
        return
    axes = [1] * len(kernel.shape)
    axes[kernel.quantization.quantizedDimension if len(scale) > 1 else 0] = len(scale)
    codes = np.frombuffer(bytes(model.buffers[kernel.buffer].data), "int8").reshape(kernel.shape)
    _store(model, kernel, np.round(codes * (scale / wide).reshape(axes)).astype("int8"), wide)
    for step, index, exact in readers:
        bias, steps = graph.tensors[index], wide * np.float32(step)
        _store(model, bias, np.round(exact / steps.astype("float64")).astype(_INTEGERS[bias.type]), steps)


def _store(model, tensor, values, scale):
    """In the tensor's buffer, or in a new one where equal constants share it."""
    if sum(other.buffer == tensor.buffer for graph in model.subgraphs for other in graph.tensors) > 1:
        model.buffers.append(schema.BufferT())
        tensor.buffer = len(model.buffers) - 1
    model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), "uint8")
    tensor.quantization.scale = scale


def _vectors(model):
    """``{name: values}`` of the float vectors that the file holds."""
    found = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            if tensor.type == schema.TensorType.FLOAT32 and data is not None and len(data) and len(tensor.shape) == 1:
                found[_name(tensor)] = np.frombuffer(bytes(data), "float32")
    return found


def _name(tensor):
    """The name before litert-quantizer made copies of a tensor that several layers read."""
    return re.sub(r"(_duplicated_\d+)+$", "", tensor.name.decode())
