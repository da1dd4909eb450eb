"""A precision a layer: files in which every layer with weights has its own, and what that does to the outputs.

For the child process. A layer is a constant of two or more dimensions and every operation that reads it, so that a
constant that several read is stored once, whatever is chosen.
"""

import re

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from litert_quantizer import qtyping, quantizer, recipe_manager
from litert_quantizer.utils import tfl_flatbuffer_utils

from tfcompress import flatbuffer
from tfcompress.conversion import biases, interpreter, names, recipe, rewrite
from tfcompress.conversion.file import read, write
from tfcompress.conversion.islands import operation
from tfcompress.weights import ELEMENTWISE

_OP = qtyping.TFLOperationName
_LEFT, _CASTING = quantizer.AlgorithmName.NO_QUANTIZE, quantizer.AlgorithmName.FLOAT_CASTING
_CLIPPING = quantizer.AlgorithmName.OCTAV
_SKIPPED = (*ELEMENTWISE, "WHILE")  # what a loop is handed counts where its body reads it
_STORED = {"float32": "float32", "float16": "float16", "int16x8": "int8"}  # other precisions are called as their codes
_SETTINGS = tuple((runtime, delegate) for runtime in interpreter.RUNTIMES for delegate in (True, False))
_WRONG = 0.5  # noise / signal of a kernel that does not compute what it should; int8 activations give about 0.001
_LEAST = 1e-7  # of a probability, in a KL divergence


def layers(content):
    """``[{name, op, kind, scopes, weights, outputs, elements, loop}, ...]`` of a float file, in running order.

    ``scopes`` are what litert-quantizer calls the operations, ``weights`` the names of the constant, ``outputs`` the
    tensors made with it, as ``names.shorten`` calls them; ``kind`` is litert-quantizer's name of the operation, None
    where it knows none; ``loop`` tells operations inside WHILE and IF.
    """
    model, short, found = read(content), read(content), {}
    names.shorten(short)
    for number, graph in enumerate(model.subgraphs):
        called = [tensor.name.decode() for tensor in short.subgraphs[number].tensors]
        for op in graph.operators:
            label = operation(model, op)
            for index in () if label in _SKIPPED else op.inputs:
                if index >= 0 and _is_weight(model, graph.tensors[index]):
                    tensor = graph.tensors[index]
                    made = called[op.outputs[0]]
                    name = made if called[index].startswith("arith.constant") else called[index]
                    row = found.setdefault(tensor.buffer, dict(
                        name=name, op=label, kind=_kind(model, op), scopes=[],
                        weights=[], outputs=[], elements=int(np.prod(tensor.shape)), loop=False))
                    row["scopes"].append(tfl_flatbuffer_utils.get_op_scope(op, graph.tensors))
                    row["weights"].append(tensor.name.decode())
                    row["outputs"].append(made)
                    row["loop"] |= number > 0
                    if row["op"] != label:
                        row["kind"] = None
    return list(found.values())


def _is_weight(model, tensor):
    data = model.buffers[tensor.buffer].data
    return tensor.type == schema.TensorType.FLOAT32 and data is not None and len(data) and len(tensor.shape) > 1


def _kind(model, op):
    code = model.operatorCodes[op.opcodeIndex].builtinCode
    kind = tfl_flatbuffer_utils.TFL_OP_CODE_TO_NAME.get(code)
    return kind.value if kind else None


def mixed(content, chosen, ranges=None, *, alone=False, short=True):
    """The float file with a precision a layer.

    Args:
        content: the float file.
        chosen: ``[(layer, precision), ...]``, layers as ``layers`` gives them; one that isn't named stays as the base.
        ranges: what ``recipe.calibrate`` wrote: activations are int8, by that; None: activations stay float between
            the layers (a layer in int8, int4 or int2 quantizes its input at run time).
        alone: the base is the float file, even with ranges.
        short: names as ``names.shorten`` makes them.
    """
    loops = recipe.loop_operations(content) if ranges else ()
    base = ranges and not alone
    patterns = [f"^{re.escape(name)}$" for name in loops]
    manager = recipe.rules("int8", loops=patterns) if base else recipe_manager.RecipeManager()
    for layer, precision in chosen:
        for scope in layer["scopes"]:
            _rule(manager, f"^{re.escape(scope)}$", layer, precision, bool(ranges) and not layer["loop"])
    rules = manager.get_quantization_recipe()
    if rules:
        engine = quantizer.Quantizer(bytes(content))
        engine.load_quantization_recipe(rules)
        wide = any(precision == "int16x8" for _, precision in chosen)
        known = recipe.calibration_ranges(ranges, "int16x8" if wide else "int8") if engine.need_calibration else None
        made = engine.quantize(known, enable_progress_bar=False, enable_progress_report=False).quantized_model
    model = read(bytes(made) if rules else content)
    if ranges:
        biases.restore(model, read(content))
        rewrite.fuse_islands(model)
        rewrite.widen_through_float(model)
    if short:
        names.shorten(model)
    return write(model)


def _rule(manager, pattern, layer, precision, static):
    """One layer's rule. A precision of integers is static where there are ranges, else quantizes at run time.

    ``layer["clipped"]``: precisions whose scales clip the largest weights where that makes the mean squared error less
    (OCTAV: Sakr C et al., "Optimal Clipping and Magnitude-aware Differentiation", ICML 2022); else none is clipped.
    """
    kind = _OP(layer["kind"])
    rounding = {"algorithm_key": _CLIPPING} if precision in layer.get("clipped", ()) else {}
    if precision == "float32":
        manager.add_quantization_config(pattern, kind, algorithm_key=_LEFT)
    elif precision == "float16":
        manager.add_weight_only_config(pattern, kind, 16, algorithm_key=_CASTING)
    elif precision == "int16x8":
        manager.add_static_config(pattern, kind, 16, 8)
    elif static and precision != "int2":  # no kernel takes int2 weights and int8 activations with a fixed range
        manager.add_static_config(pattern, kind, 8, int(precision.removeprefix("int")), **rounding)
    else:
        manager.add_dynamic_config(pattern, kind, int(precision.removeprefix("int")), **rounding)


def runs(content, layer, precision, ranges, batch):
    """Why a layer can't have a precision on today's run times, or "": its file is made and run in all settings.

    The float file with the layer's weights as the file stores them tells what has to come out.
    """
    try:
        made = mixed(content, [(layer, precision)], ranges, alone=True, short=False)
        expected = interpreter.Runner(_with_stored_weights(content, made, layer, precision))(batch)
    except (ValueError, NotImplementedError, RuntimeError, KeyError) as error:
        why = str(error).splitlines()[0][:120]
        return "litert-quantizer has no rule for it" + ("" if why.startswith("Unsupported op") else f" ({why})")
    for runtime, delegate in _SETTINGS:
        place = f"{runtime}, {'default delegate' if delegate else 'built-in kernels'}"
        try:
            got = interpreter.Runner(made, runtime=runtime, delegate=delegate)(batch)
        except (ValueError, RuntimeError) as error:
            return f"{place}: {str(error).splitlines()[0][:120]}"
        ratio = max(noise(got[name], expected[name]) for name in expected)
        if not ratio < _WRONG:
            return f"{place}: wrong results (noise / signal {ratio:.2g})"
    return ""


def _with_stored_weights(content, made, layer, precision):
    """The float file whose constant is what ``made`` stores for it; a ValueError where that is of another type."""
    wanted = _STORED.get(precision, precision)
    found = [tensor for graph in flatbuffer.read(made).graphs for tensor in graph.tensors
             if tensor.name in layer["weights"] and tensor.data is not None and len(tensor.shape) > 1]
    if not found or found[0].dtype != wanted:
        raise ValueError(f"stored as {found[0].dtype if found else 'nothing'}, not as {wanted}")
    model = read(content)
    index = next(tensor.buffer for graph in model.subgraphs for tensor in graph.tensors
                 if tensor.name.decode() in layer["weights"])
    model.buffers[index].data = np.frombuffer(real(found[0]).astype("<f4").tobytes(), "uint8")
    return write(model)


def real(tensor):
    """The values that a stored constant stands for."""
    if not tensor.quantized:
        return tensor.data.astype("float32")
    shape = [1] * len(tensor.shape)
    shape[tensor.axis if tensor.scale.size > 1 else 0] = tensor.scale.size
    return (tensor.data - tensor.zero_point.reshape(shape)) * tensor.scale.reshape(shape)


def noise(got, expected):
    """Sum of squared differences / sum of squares."""
    got, expected = np.asarray(got, "float64"), np.asarray(expected, "float64")
    return float(np.square(got - expected).sum() / max(np.square(expected).sum(), 1e-30))


def damage(got, expected):
    """How far outputs are from the float file's: mean KL divergence of the classes, in nats; else noise / signal.

    Args:
        got, expected: one output, (samples, classes) probabilities or logits; any other shape is compared by noise.

    >>> round(damage(np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])), 4)   # .9 log 1.8 + .1 log .2
    0.3681
    """
    expected, got = np.asarray(expected, "float64"), np.asarray(got, "float64")
    if not np.isfinite(got).all():
        return float("inf")
    if expected.ndim != 2 or expected.shape[1] < 2:
        return noise(got, expected)
    p, q = (np.maximum(_probabilities(scores), _LEAST) for scores in (expected, got))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    return float(np.mean(np.sum(p * np.log(p / q), axis=1)))


def _probabilities(scores):
    if scores.min() >= -1e-3 and np.abs(scores.sum(1) - 1).max() < 0.05:
        return scores
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def outputs(content, batches):
    """Outputs by name over all batches, samples first."""
    runner = interpreter.Runner(content, threads=1)
    parts = [runner(batch) for batch in batches]
    return {name: np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in parts[0]}


def judge(content, assignments, batches, ranges=None, *, alone=False):
    """``[(damage, bytes), ...]`` of the files of the assignments, as ``mixed`` takes them; damages are None without
    batches, else the mean over the outputs."""
    expected, found = outputs(content, batches) if batches else {}, []
    for chosen in assignments:
        made, hurt = mixed(content, chosen, ranges, alone=alone), None
        if batches:
            got = outputs(made, batches)
            hurt = float(np.mean([damage(got[name], expected[name]) for name in expected]))
        found.append((hurt, len(made)))
    return found
