"""A ``.tflite`` file whose weights are float16 or stored sparsely, with plain float32 weights."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfcompress import flatbuffer
from tfcompress.conversion.file import read, write
from tfcompress.measure import load

UNPACKERS = ("DEQUANTIZE", "DENSIFY")


def expand(content):
    """The file without operations that only unpack constants: what they give is the constant now.

    The run time unpacks them, so that nothing of its sparse formats has to be known. Constants of equal bytes share a
    buffer in the file that comes back, as ``conversion.file.read`` wants them to.

    Args:
        content: bytes of a ``.tflite`` file.
    """
    graph = flatbuffer.read(content).graphs[0]
    constant, found = {tensor.index for tensor in graph.tensors if tensor.data is not None}, []
    for number, op in enumerate(graph.ops):
        if op.name in UNPACKERS and op.inputs[0] in constant:
            constant |= set(op.outputs)
            found.append(number)
    if not found:
        return write(read(content))
    runner = load(content, xnnpack=False, keep_all=True)
    runner.allocate_tensors()
    runner.invoke()
    model = read(content)
    main = model.subgraphs[0]
    for number in found:
        tensor = main.tensors[main.operators[number].outputs[0]]
        values = runner.get_tensor(graph.ops[number].outputs[0])
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
    dropped = set(found)
    main.operators = [op for number, op in enumerate(main.operators) if number not in dropped]
    _empty_unread(model)
    return write(read(write(model)))


def _empty_unread(model):
    """Constants that no operation reads any more lose their bytes."""
    needed = {0}
    for graph in model.subgraphs:
        read_here = {index for op in graph.operators for index in (*op.inputs, *op.outputs)}
        read_here |= {*graph.inputs, *graph.outputs}
        needed |= {tensor.buffer for index, tensor in enumerate(graph.tensors) if index in read_here}
    metadata = {entry.buffer for entry in model.metadata or []}
    for number, buffer in enumerate(model.buffers):
        if number not in needed | metadata:
            buffer.data = None
