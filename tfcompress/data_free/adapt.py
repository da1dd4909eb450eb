"""Weights of a float ``.tflite`` file put on integer grids so that its outputs change least; their biases corrected."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from tfcompress.conversion import exact
from tfcompress.conversion.build import add_constant
from tfcompress.conversion.file import read, write
from tfcompress.conversion.forms import Codes
from tfcompress.data_free.moments import back, columns
from tfcompress.data_free.rounding import round_kernel, scales_of

WORK = 2e10  # multiply-accumulates that rounding may take; the layers that lose most come first, the rest is nearest
LARGE = 100_000  # weights of a kernel that is visited once instead of twice


@dataclass(frozen=True)
class Rounded:
    """A kernel on a grid.

    Attributes:
        kernel: the ``moments.Kernel``; bits: of a code; weights: how many.
        codes: whole numbers, (groups, inputs, columns); scales: (groups, columns).
        nearest, error: noise / signal of what the layer computes, with nearest codes and with these; the means of both
            are what the bias takes back.
        shift: (columns,) by which the mean output is too large.
    """

    kernel: object
    bits: int
    weights: int
    codes: np.ndarray
    scales: np.ndarray
    nearest: float
    error: float
    shift: np.ndarray


def nearest(kernels, bits=8):
    """A ``Rounded`` for every kernel, with the nearest codes of so many bits."""
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda kernel: _rounded(_exact(kernel), kernel, bits, sweeps=0), kernels))


def descended(found):
    """The same with better codes, by descent while ``WORK`` lasts; what loses most comes first.

    Args:
        found: ``Rounded`` ones, of any bits.
    """
    jobs = [(_exact(one.kernel), one.kernel, one.bits) for one in found]
    found = list(found)
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        order, left = np.argsort([-one.nearest for one in found], kind="stable"), WORK
        chosen = []
        for at in order:
            groups, inputs, count = jobs[at][0].shape
            left -= 4.0 * groups * inputs * inputs * count
            if jobs[at][1].samples and left >= 0:
                chosen.append(at)
        better = pool.map(lambda at: _rounded(*jobs[at], sweeps=2 if jobs[at][0].size <= LARGE else 1), chosen)
        for at, one in zip(chosen, better, strict=True):
            found[at] = one if one.error <= found[at].error else found[at]
    return found


def _exact(kernel):
    return columns(np.asarray(kernel.tensor.data, "float32"), kernel.op)


def _rounded(weights, kernel, bits, sweeps):
    importance = np.einsum("gkk->gk", kernel.second) if kernel.samples else None
    if kernel.op == "DEPTHWISE_CONV_2D":
        scales = scales_of(weights.transpose(2, 1, 0), bits, None if importance is None else importance[:1])[:, None]
    else:
        scales = np.repeat(scales_of(weights, bits, importance)[None], len(weights), axis=0)
    top = 2 ** (bits - 1) - 1
    plain = np.clip(np.rint(weights / scales[:, None]), -top, top).astype("float32")
    if not kernel.samples:
        shift = np.zeros(_outputs(weights, kernel), "float32")
        return Rounded(kernel, bits, weights.size, plain, scales, 0.0, 0.0, shift)
    codes = round_kernel(weights, kernel.second, scales, bits, sweeps) if sweeps else plain
    signal = max(_power(weights, kernel.second), 1e-30)
    centred = kernel.second - kernel.mean[:, :, None] * kernel.mean[:, None]
    noises = [_power(each * scales[:, None] - weights, centred) / signal for each in (plain, codes)]
    shift = ((codes * scales[:, None] - weights) * kernel.mean[:, :, None]).sum(axis=1)
    shift = shift[:, 0] if kernel.op == "DEPTHWISE_CONV_2D" else shift.sum(axis=0)
    return Rounded(kernel, bits, weights.size, codes, scales, *noises, shift)


def _outputs(weights, kernel):
    return len(weights) if kernel.op == "DEPTHWISE_CONV_2D" else weights.shape[2]


def _power(weights, second):
    """Mean square of ``inputs @ weights``, summed over columns and groups."""
    return float(np.einsum("gkm,gkm->", weights, second @ weights))


def apply(content, rounded):
    """The float file with these weights, each ``code * scale``, and biases that take the mean errors back."""
    model = read(content)
    _put(model, rounded)
    return write(model)


def stored(content, rounded):
    """The file of ``apply`` with the codes in place of the floats: DEQUANTIZE makes them floats when it runs."""
    model = read(content)
    _put(model, rounded)
    exact.store(model, {one.kernel.tensor.buffer: _codes(one) for one in rounded})
    return write(model)


def _put(model, rounded):
    uses = [index for op in model.subgraphs[0].operators for index in op.inputs]
    for one in rounded:
        values = back(one.codes * one.scales[:, None], one.kernel.op, one.kernel.tensor.shape)
        model.buffers[one.kernel.tensor.buffer].data = _bytes(values)
        for user in one.kernel.users:
            op = model.subgraphs[0].operators[user]
            if len(op.inputs) > 2 and op.inputs[2] >= 0 and np.abs(one.shift).max(initial=0):
                _correct(model, op, one.shift, uses.count(op.inputs[2]) > 1)


def _codes(one):
    shape, op = one.kernel.tensor.shape, one.kernel.op
    codes = back(one.codes, op, shape).astype("int32")
    scales = one.scales[:, 0] if op == "DEPTHWISE_CONV_2D" else one.scales[0]
    return Codes(codes, scales, len(shape) - 1 if op == "DEPTHWISE_CONV_2D" else 0, one.bits)


def _bytes(values):
    return np.frombuffer(np.ascontiguousarray(values, "<f4").tobytes(), np.uint8)


def store(model, tensor, values):
    """New values of a constant; where its buffer serves other tensors too, they keep theirs."""
    if sum(other.buffer == tensor.buffer for graph in model.subgraphs for other in graph.tensors) == 1:
        model.buffers[tensor.buffer].data = _bytes(values)
        return
    buffer = type(model.buffers[0])()
    buffer.data = _bytes(values)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1


def _correct(model, op, shift, shared):
    graph = model.subgraphs[0]
    bias = graph.tensors[op.inputs[2]]
    data = model.buffers[bias.buffer].data
    if data is None or not len(data):
        return
    values = np.frombuffer(bytes(data), "<f4") - shift
    if shared:
        name = bias.name + f"_{len(graph.tensors)}".encode()
        op.inputs[2] = add_constant(model, graph, values.astype("float32"), name)
    else:
        store(model, bias, values)
