"""Small rewrites of a flatbuffer, in place: before quantization into known operations, after it to fuse islands."""

import copy

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfcompress.conversion.build import add_constant, array, opcode
from tfcompress.conversion.islands import operation

# Operations that only compute sizes: removed when nobody reads them any more.
_SIZES = ("SHAPE", "STRIDED_SLICE", "PACK", "GATHER", "CAST", "REDUCE_PROD", "CONCATENATION", "DEQUANTIZE", "RESHAPE")
# Element-wise operations with integer kernels that litert-quantizer does not know, by the types of those kernels.
_ELEMENTWISE = {"LEAKY_RELU": ("INT8", "INT16"), "RELU6": ("INT8", "INT16"), "ELU": ("INT8",), "EXP": ("INT8",)}
# Operations that move or select values, with an int8 kernel of the same scale on both sides.
_MOVING = (
    "REDUCE_MAX", "REDUCE_MIN", "REVERSE_V2", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "DEPTH_TO_SPACE", "SQUEEZE",
)  # fmt: skip
_TYPES = {value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")}


def simplify(model):
    """Before quantization: every reshaping whose only free size is the batch becomes a RESHAPE to a constant.

    The quantizer leaves EXPAND_DIMS float, and Conv1D is full of it; a Reshape layer with a free batch becomes SHAPE,
    STRIDED_SLICE, PACK and RESHAPE, which cuts a delegate's graph in two. A Dense layer on an image does, too.
    """
    for graph in model.subgraphs:
        for op in graph.operators:
            label = operation(model, op)
            computed = label == "RESHAPE" and len(op.inputs) > 1 and not _is_constant(model, graph, op.inputs[1])
            sizes = _sizes(graph.tensors[op.outputs[0]]) if label == "EXPAND_DIMS" or computed else None
            if sizes is not None and sum(size < 0 for size in sizes) == len(sizes) == 2:
                sizes = _rows(model, graph, op)
            if sizes is not None and sum(size < 0 for size in sizes) <= 1:
                _make_reshape(model, graph, op, sizes)
        _remove_unread(model, graph)


def _rows(model, graph, op):
    """``[-1, inputs]`` where the RESHAPE ``op`` makes the rows of a matrix product alone, and their number known."""
    made = op.outputs[0]
    readers = [other for other in graph.operators if made in other.inputs]
    if len(readers) != 1 or operation(model, readers[0]) != "FULLY_CONNECTED" or readers[0].inputs[0] != made:
        return None
    outputs, width = graph.tensors[readers[0].inputs[1]].shape
    rows = int(np.prod(graph.tensors[op.inputs[0]].shape)) // width
    for index, size in ((made, width), (readers[0].outputs[0], outputs)):
        graph.tensors[index].shape = np.array([rows, size], dtype=np.int32)
        graph.tensors[index].shapeSignature = np.array([-1, size], dtype=np.int32)
    return graph.tensors[made].shapeSignature


def fuse_islands(model):
    """After static quantization: integer kernels for what the quantizer left between DEQUANTIZE and QUANTIZE.

    What only moves or selects values takes the integers as they are, and DEQUANTIZE comes behind it. An element-wise
    operation whose result is quantized anyway reads and writes integers. SHAPE reads integers.
    """
    graph, operators = model.subgraphs[0], []
    integers = {}  # float tensor -> the integer tensor it was dequantized from
    readers = {}
    for op in graph.operators:
        for index in op.inputs:
            readers.setdefault(index, []).append(op)
    for op in graph.operators:
        label = operation(model, op)
        source = integers.get(op.inputs[0]) if len(op.inputs) else None
        kind = _TYPES[graph.tensors[source].type] if source is not None else None
        operators.append(op)
        if label == "DEQUANTIZE" and _TYPES[graph.tensors[op.inputs[0]].type] in ("INT8", "INT16"):
            integers[op.outputs[0]] = op.inputs[0]
        elif source is None:
            continue
        elif label in ("SHAPE", "QUANTIZE"):
            op.inputs = array(source)
        elif label in _MOVING and kind == "INT8":
            result = _like(graph, op.outputs[0], source)
            operators.append(_dequantize(model, result, op.outputs[0]))
            integers[op.outputs[0]] = result
            op.inputs, op.outputs = array(source, *op.inputs[1:]), array(result)
        elif kind in _ELEMENTWISE.get(label, ()):
            behind = readers.get(op.outputs[0], [])
            if len(behind) == 1 and operation(model, behind[0]) == "QUANTIZE" and op.outputs[0] not in graph.outputs:
                op.inputs, op.outputs = array(source), behind[0].outputs
                behind[0].outputs = array()
                model.operatorCodes[op.opcodeIndex].version = max(2, model.operatorCodes[op.opcodeIndex].version)
    graph.operators = [op for op in operators if len(op.outputs)]
    _remove_unread(model, graph)


def widen_through_float(model):
    """After static quantization: a QUANTIZE from int8 to int16 becomes DEQUANTIZE and QUANTIZE, in all graphs.

    ai_edge_litert has that kernel, TensorFlow 2.21's interpreter has not ("output->type == kTfLiteInt8 ...").
    """
    for graph in model.subgraphs:
        operators, floats = [], {}
        for op in graph.operators:
            source = op.inputs[0] if len(op.inputs) else -1
            kinds = [_TYPES[graph.tensors[index].type] for index in (source, *op.outputs[:1]) if index >= 0]
            if operation(model, op) == "QUANTIZE" and kinds == ["INT8", "INT16"]:
                if source not in floats:
                    floats[source] = _as_float(graph, source)
                    operators.append(_dequantize(model, source, floats[source]))
                op.inputs = array(floats[source])
            operators.append(op)
        graph.operators = operators


def _as_float(graph, source):
    """Index of a new float tensor with the shape of ``source``."""
    tensor = copy.copy(graph.tensors[source])
    tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None
    tensor.name = tensor.name + b"_float"
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _like(graph, index, source):
    """Index of a new tensor with the shape of ``index`` and the integers of ``source``."""
    tensor = copy.copy(graph.tensors[index])
    tensor.type, tensor.quantization = graph.tensors[source].type, graph.tensors[source].quantization
    tensor.name = tensor.name + b"_integer"
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _dequantize(model, source, target):
    op = schema.OperatorT()
    op.opcodeIndex = opcode(model, schema.BuiltinOperator.DEQUANTIZE)
    op.inputs, op.outputs = array(source), array(target)
    return op


def _remove_unread(model, graph):
    """Drop operations that compute sizes for nobody, until none is left."""
    while True:
        read = {index for op in graph.operators for index in op.inputs} | set(graph.outputs)
        kept = [op for op in graph.operators if operation(model, op) not in _SIZES or read & set(op.outputs)]
        if len(kept) == len(graph.operators):
            return
        graph.operators = kept


def _make_reshape(model, graph, op, sizes):
    op.opcodeIndex = opcode(model, schema.BuiltinOperator.RESHAPE)
    label = f"tfcompress/shape_{len(graph.tensors)}".encode()
    op.inputs = array(op.inputs[0], add_constant(model, graph, sizes, label))
    op.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    op.builtinOptions = schema.ReshapeOptionsT()
    op.builtinOptions.newShape = sizes


def _sizes(tensor):
    sizes = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    return None if sizes is None or len(sizes) == 0 else np.asarray(sizes, dtype=np.int32)


def _is_constant(model, graph, index):
    data = model.buffers[graph.tensors[index].buffer].data
    return data is not None and len(data) > 0
