"""Every precision but float32 is derived from the float flatbuffer by litert-quantizer: the rules are here."""

import json
import math
import re

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from litert_quantizer import calibrator, qtyping, quantizer, recipe_manager
from litert_quantizer.utils import qsv_utils, tfl_flatbuffer_utils

from tfcompress.conversion.batches import save_ranges
from tfcompress.conversion.worker import InputError

SIGNATURE = "serving_default"
_OP = qtyping.TFLOperationName
_WEIGHTS_BITS4 = (_OP.FULLY_CONNECTED, _OP.CONV_2D, _OP.EMBEDDING_LOOKUP)
_SMALLEST_RANGE = {
    "int8": 1e-6,
    "int16x8": 1e-4,
}  # below it 6 / scale (ReLU6) overflows an int32 and the file won't load
_FLOAT16 = (_OP.FULLY_CONNECTED, _OP.CONV_2D, _OP.DEPTHWISE_CONV_2D, _OP.CONV_2D_TRANSPOSE, _OP.EMBEDDING_LOOKUP)


def rules(precision, io="float", keep_float=(), loops=()):
    """litert-quantizer's rules for one precision; later rules win.

    Args:
        precision: float16, dynamic, int8, int16x8 or int4.
        io: "float" leaves inputs and outputs float; "int8" (int16 for int16x8) quantizes them.
        keep_float: regular expressions on op names (the names of their outputs): these ops stay float.
        loops: the same for the bodies of loops, which static precisions leave dynamic.
    """
    manager = recipe_manager.RecipeManager()
    if precision == "float16":
        for op in _FLOAT16:
            manager.add_weight_only_config(".*", op, 16, algorithm_key=quantizer.AlgorithmName.FLOAT_CASTING)
    elif precision in ("dynamic", "int4"):
        manager.add_dynamic_config(".*", _OP.ALL_SUPPORTED, 8)
        if precision == "int4":  # what has no 4-bit kernel keeps its 8 bits
            for op in _WEIGHTS_BITS4:
                manager.add_dynamic_config(".*", op, 4)
    else:
        manager.add_static_config(".*", _OP.ALL_SUPPORTED, {"int8": 8, "int16x8": 16}[precision], 8)
        # A comparison on rounded values finds other values equal: masks (Masking, padding) must see the float input.
        ends = (_OP.INPUT, _OP.OUTPUT) if io == "float" else ()
        for op in (_OP.EQUAL, _OP.NOT_EQUAL, *ends):
            manager.add_quantization_config(".*", op, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
    for pattern in loops:  # the body of a WHILE keeps float activations: its state has no fixed range
        manager.add_quantization_config(pattern, _OP.ALL_SUPPORTED, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
        for op in (_OP.FULLY_CONNECTED, _OP.CONV_2D):
            manager.add_dynamic_config(pattern, op, 8)
    for pattern in keep_float:
        manager.add_quantization_config(pattern, _OP.ALL_SUPPORTED, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
    return manager


def quantize(content, precision, ranges=None, *, io="float", keep_float=()):
    """A float flatbuffer in another precision, and notes on what fell back.

    ``ranges`` is the file that ``calibrate`` wrote (int8 and int16x8).
    """
    check_patterns(content, keep_float)
    loops, notes = (), []
    if precision in _SMALLEST_RANGE:
        loops = loop_operations(content)
        if loops:
            notes.append(f"{precision}: {len(loops)} operations inside loops keep float activations and int8 weights")
    engine = quantizer.Quantizer(bytes(content))
    patterns = [f"^{re.escape(name)}$" for name in loops]
    engine.load_quantization_recipe(rules(precision, io, keep_float, patterns).get_quantization_recipe())
    statistics = calibration_ranges(ranges, precision) if engine.need_calibration else None
    result = engine.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model), notes


def loop_operations(content):
    """Names of all operations outside the main graph: the conditions and bodies of WHILE and IF."""
    model = tfl_flatbuffer_utils.read_model(bytes(content))
    scope = tfl_flatbuffer_utils.get_op_scope
    return sorted({scope(op, graph.tensors) for graph in model.subgraphs[1:] for op in graph.operators})


def calibrate(content, batches, output):
    """Min and max of every activation over all samples, as JSON ``{tensor name: [min, max]}``."""
    manager = rules("int8")
    engine = calibrator.Calibrator(
        bytes(content),
        mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
        qsv_update_func=qsv_utils.min_max_update,
    )
    engine.calibrate({SIGNATURE: batches}, manager)
    ranges = {
        name: [float(np.min(v["min"])), float(np.max(v["max"]))] for name, v in engine.get_model_qsvs().items() if v
    }
    save_ranges(output, ranges)


def calibration_ranges(path, precision):
    """What ``calibrate`` wrote, in litert-quantizer's form; ranges of dead activations are widened."""
    with open(path) as file:
        ranges = json.load(file)
    for name, (low, high) in ranges.items():
        high = max(high, low + _SMALLEST_RANGE[precision])
        grown = beside_powers_of_two(max(abs(low), abs(high))) if precision == "int16x8" else 1.0
        ranges[name] = {"min": np.array([low * grown]), "max": np.array([high * grown])}
    return ranges


def beside_powers_of_two(largest):
    """A factor for a 16-bit range: 1, or 1.003 where its step is within .2 % of a power of two.

    TFLite's 16-bit ADD and SUB shift where all three steps are within .1 % of one, and then won't load if an input's is
    the largest: Rescaling(1 / 127.5, -1) of pixels 0..255 is 0..2 - 1 = -1..1, in steps of 2**-14, 2**-15 and 2**-15.

    >>> beside_powers_of_two(1.0), beside_powers_of_two(1.5), beside_powers_of_two(2.0)
    (1.003, 1.0, 1.003)
    """
    exponent = math.log2(largest / 32767)
    return 1.003 if abs(exponent - round(exponent)) < 0.003 else 1.0


def check_patterns(content, patterns):
    """Raise ValueError for a ``keep_float`` pattern that matches no op."""
    if not patterns:
        return
    model = tfl_flatbuffer_utils.read_model(bytes(content))
    names = [
        tfl_flatbuffer_utils.get_op_scope(op, graph.tensors) for graph in model.subgraphs for op in graph.operators
    ]
    unused = [pattern for pattern in patterns if not any(re.search(pattern, name) for name in names)]
    if unused:
        known = sorted({name.split(";")[0] for name in names})[:40]
        raise InputError(
            f"These keep_float patterns matched no operation: {unused}. Operations of this model: {known}."
        )


def add_signature(model):
    """A signature, in place, so that inputs and outputs have names (files from elsewhere may have none)."""
    if any(tensor.type == schema.TensorType.INT8 for graph in model.subgraphs for tensor in graph.tensors):
        raise InputError("Expected a float .tflite file to start from. Received one that is quantized already.")
    if model.signatureDefs:
        return
    graph, entry = model.subgraphs[0], schema.SignatureDefT()
    entry.signatureKey, entry.subgraphIndex = SIGNATURE.encode(), 0
    entry.inputs = [_named(graph.tensors[index], index) for index in graph.inputs]
    entry.outputs = [_named(graph.tensors[index], index) for index in graph.outputs]
    model.signatureDefs = [entry]


def _named(tensor, index):
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = tensor.name, index
    return entry
