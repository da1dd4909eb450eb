"""What a flatbuffer tells without being run: operations left float, and the steps of its quantized outputs."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfcompress.conversion.file import read

_OPS = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_TYPES = {value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")}


def output_scales(content):
    """``{output: (scale, zero point, lowest, highest level)}``, of the outputs or of what is dequantized last."""
    model = read(content)
    graph, scales = model.subgraphs[0], {}
    makers = {index: op for op in graph.operators for index in op.outputs}
    for entry in model.signatureDefs[0].outputs if model.signatureDefs else ():
        index = entry.tensorIndex
        if index in makers and operation(model, makers[index]) == "DEQUANTIZE":
            index = makers[index].inputs[0]
        tensor = graph.tensors[index]
        kind = _TYPES[tensor.type]
        if (
            kind in ("INT8", "INT16", "UINT8")
            and tensor.quantization is not None
            and tensor.quantization.scale is not None
        ):
            limits = np.iinfo(kind.lower())
            zero = int(tensor.quantization.zeroPoint[0])
            scales[entry.name.decode()] = (float(tensor.quantization.scale[0]), zero, limits.min, limits.max)
    return scales


def float_operations(content):
    """Two lists of "TYPE name": float operations inside a quantized file; operations with large float weights."""
    model = read(content)
    islands, weights, quantized = [], [], False
    for graph in model.subgraphs:
        for op in graph.operators:
            label = operation(model, op)
            kinds = [_TYPES[graph.tensors[i].type] for i in (*op.inputs, *op.outputs) if i >= 0]
            quantized |= label not in ("QUANTIZE", "DEQUANTIZE") and any(
                kind in ("INT8", "INT16") for kind in kinds[-1:]
            )
            if label in ("QUANTIZE", "DEQUANTIZE"):
                continue
            name = f"{label} {graph.tensors[op.outputs[0]].name.decode().split(';')[0]}" if len(op.outputs) else label
            if any(_TYPES[graph.tensors[i].type] == "FLOAT32" for i in op.outputs):
                islands.append(name)
            if any(_is_large(model, graph.tensors[i]) for i in op.inputs if i >= 0):
                weights.append(name)
    return (tuple(islands) if quantized else ()), tuple(weights)


def notes(content, precision):
    """Sentences about a file: int4 weights that had to stay int8, and kernels that keep state between runs."""
    model = read(content)
    found, wide, stateful = [], set(), False
    for graph in model.subgraphs:
        for op in graph.operators:
            label = operation(model, op)
            stateful |= label.startswith("UNIDIRECTIONAL_SEQUENCE")
            kinds = {_TYPES[graph.tensors[i].type] for i in op.inputs if i >= 0 and _has_data(model, graph.tensors[i])}
            if "INT8" in kinds:
                wide.add(label)
    if precision == "int4" and wide:
        found.append(f"int4: 8-bit weights where the run time has no 4-bit kernel: {', '.join(sorted(wide))}")
    if stateful:
        found.append("a fused LSTM keeps its state: call interpreter.reset_all_variables() before every new sequence")
    return found


def _has_data(model, tensor):
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _is_large(model, tensor, elements=1024):
    data = model.buffers[tensor.buffer].data
    several = tensor.shape is not None and len(tensor.shape) > 1  # a vector is a bias
    return _TYPES[tensor.type] == "FLOAT32" and several and data is not None and len(data) >= 4 * elements


def operation(model, op):
    """Name of an operator, e.g. "CONV_2D"."""
    code = model.operatorCodes[op.opcodeIndex]
    return _OPS[max(code.builtinCode, code.deprecatedBuiltinCode)]
