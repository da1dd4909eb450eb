"""New constants and operations in a flatbuffer, in place."""

import copy

import numpy as np
from ai_edge_litert import schema_py_generated as schema

_TYPES = {"float32": "FLOAT32", "float16": "FLOAT16", "int32": "INT32"}


def array(*indices):
    """An int32 vector, as the schema holds indices and sizes."""
    return np.array(indices, dtype=np.int32)


def opcode(model, builtin, version=1):
    """Index of an operator code; added if it is missing, of a later version if the one there is older."""
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
            code.version = max(code.version, version)
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def add_constant(model, graph, values, name, *, bits=None, quantization=None, buffer=None):
    """Index of a new constant.

    Args:
        values: an array; float32, float16 or int32 are stored as they are.
        bits: stores integers of 2, 4, 8 or 16 bits instead.
        quantization: the schema's object, for such integers.
        buffer: index of a buffer that holds these values already.
    """
    kind = f"INT{bits}" if bits else _TYPES[values.dtype.name]
    if buffer is None:
        stored = schema.BufferT()
        data = pack(values, bits) if bits else np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        stored.data = data
        model.buffers.append(stored)
        buffer = len(model.buffers) - 1
    tensor = schema.TensorT()
    tensor.shape, tensor.type, tensor.name = array(*values.shape), getattr(schema.TensorType, kind), name
    tensor.buffer, tensor.quantization = buffer, quantization
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def add_result(graph, like, kind):
    """Index of a new tensor for the result of an operation, of the shape and name of the tensor ``like``."""
    tensor = copy.copy(graph.tensors[like])
    tensor.buffer, tensor.quantization, tensor.type = 0, None, getattr(schema.TensorType, kind)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def make_operation(model, name, inputs, output, *, version=1, options=None):
    """An operation, to be put into a graph; ``options`` is the schema's object, such as ``CastOptionsT()``."""
    op = schema.OperatorT()
    op.opcodeIndex = opcode(model, getattr(schema.BuiltinOperator, name), version)
    op.inputs, op.outputs = array(*inputs), array(output)
    if options is not None:
        op.builtinOptions = options
        op.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    return op


def scaled(scales, axis=0, zero=0):
    """The schema's ``scale * (code - zero)``; one scale, or one for each index of ``axis``."""
    quantization = schema.QuantizationParametersT()
    quantization.scale = np.asarray(scales, np.float32)
    quantization.zeroPoint = np.full(len(quantization.scale), zero, np.int64)
    quantization.quantizedDimension = axis
    return quantization


def pack(codes, bits):
    """Integers in two's complement as TFLite packs them: the first one in the lowest bits of a byte.

    >>> [f"{byte:08b}" for byte in pack(np.array([1, -1, 0, -2, 1]), 2)]
    ['10001101', '00000001']
    """
    codes = np.asarray(codes).reshape(-1)
    if bits >= 8:
        return np.frombuffer(codes.astype(f"<i{bits // 8}").tobytes(), np.uint8)
    each = 8 // bits
    fields = np.append(codes, np.zeros(-codes.size % each, codes.dtype)).astype(np.uint8) & (2**bits - 1)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return np.bitwise_or.reduce(fields.reshape(-1, each) << shifts, axis=1).astype(np.uint8)
