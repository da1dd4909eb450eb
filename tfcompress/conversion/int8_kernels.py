"""Kernels of float islands that lie on an int8 grid already are stored as int8: exact, at a quarter of the bytes.

Quantization-aware training rounds the kernels of layers that TFLite runs in float (attention), too. TFLiteConverter
writes those as float32; here they become int8 constants with a DEQUANTIZE in front of their operation.
"""

import re

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from litert_quantizer import qtyping, quantizer, recipe_manager
from litert_quantizer.utils import tfl_flatbuffer_utils

LEVELS = 127


def on_grid(kernel, tolerance=1e-3):
    """Whether every row (output channel) is whole multiples of its largest magnitude / 127.

    >>> import numpy as np
    >>> on_grid(np.array([[127.0, -3.0], [0.0, 0.254]])), on_grid(np.array([[1.0, 0.5]]))
    (True, False)
    """
    rows = np.abs(kernel.reshape(len(kernel), -1)).max(axis=1)
    steps = np.where(rows > 0, rows, 1.0)[:, None] / LEVELS
    codes = kernel.reshape(len(kernel), -1) / steps
    return bool(rows.any() and np.abs(codes - np.round(codes)).max() < tolerance)


def pack(content):
    """``content`` with the float kernels of its matrix products stored as int8 where nothing is lost by that."""
    content = bytes(content)
    model = tfl_flatbuffer_utils.read_model(content)
    manager, found = recipe_manager.RecipeManager(), False
    for graph in model.subgraphs:
        for op in graph.operators:
            if model.operatorCodes[op.opcodeIndex].builtinCode != schema.BuiltinOperator.FULLY_CONNECTED:
                continue
            tensor = graph.tensors[op.inputs[1]]
            data = model.buffers[tensor.buffer].data
            if tensor.type != schema.TensorType.FLOAT32 or data is None or not len(data):
                continue
            kernel = np.frombuffer(bytes(data), "float32").reshape(tensor.shape)
            if on_grid(kernel):
                name = tfl_flatbuffer_utils.get_op_scope(op, graph.tensors)
                manager.add_weight_only_config(f"^{re.escape(name)}$", qtyping.TFLOperationName.FULLY_CONNECTED, 8)
                found = True
    if not found:
        return content
    engine = quantizer.Quantizer(content)
    engine.load_quantization_recipe(manager.get_quantization_recipe())
    return bytes(engine.quantize(None, enable_progress_bar=False, enable_progress_report=False).quantized_model)
