"""Small rewrites of a flatbuffer that give the quantizer operations it knows."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

_EXPAND_DIMS, _RESHAPE = schema.BuiltinOperator.EXPAND_DIMS, schema.BuiltinOperator.RESHAPE


def expand_dims_to_reshape(content):
    """Every EXPAND_DIMS as the RESHAPE it is: the quantizer leaves EXPAND_DIMS float, and Conv1D is full of it.

    One with two or more free sizes in its output stays: RESHAPE can infer only one.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    places = {index for index, code in enumerate(model.operatorCodes) if _code(code) == _EXPAND_DIMS}
    if not places:
        return bytes(content)
    for graph in model.subgraphs:
        for op in graph.operators:
            output = graph.tensors[op.outputs[0]] if op.opcodeIndex in places else None
            sizes = None if output is None else _sizes(output)
            if sizes is not None and sum(size < 0 for size in sizes) <= 1:
                _make_reshape(model, graph, op, sizes)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _make_reshape(model, graph, op, sizes):
    op.opcodeIndex = _opcode(model, _RESHAPE)
    op.inputs = np.array([op.inputs[0], _constant(model, graph, sizes)], dtype=np.int32)
    op.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    op.builtinOptions = schema.ReshapeOptionsT()
    op.builtinOptions.newShape = sizes


def _sizes(tensor):
    sizes = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    return None if sizes is None else np.asarray(sizes, dtype=np.int32)


def _constant(model, graph, values):
    """Index of a new constant int32 tensor."""
    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data = np.frombuffer(values.astype("<i4").tobytes(), dtype=np.uint8)
    model.buffers.append(buffer)
    tensor.shape, tensor.type = np.array([len(values)], dtype=np.int32), schema.TensorType.INT32
    tensor.buffer, tensor.name = len(model.buffers) - 1, f"tfcompress/shape_{len(graph.tensors)}".encode()
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _opcode(model, builtin):
    for index, code in enumerate(model.operatorCodes):
        if _code(code) == builtin:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _code(code):
    return max(code.builtinCode, code.deprecatedBuiltinCode)
