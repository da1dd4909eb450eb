"""Run a ``.tflite`` file: arrays by input name in, float arrays by output name out."""

import os
from dataclasses import dataclass, replace

import numpy as np

RUNTIMES = ("ai_edge_litert", "tf.lite")


@dataclass(frozen=True)
class Tensor:
    """An input or output of a file: ``shape`` has ``None`` where the size is free; ``scale`` is 0.0 for floats."""

    name: str
    shape: tuple
    dtype: str
    scale: float
    zero_point: int


class Runner:
    """A file held by an interpreter.

    Args:
        content: bytes of the ``.tflite`` file.
        runtime: ``"ai_edge_litert"`` or ``"tf.lite"``.
        delegate: use the default delegate (XNNPACK); ``False`` for the built-in kernels, ``"reference"`` for the
            reference ones.
        threads: number of threads.
    """

    def __init__(self, content, *, runtime="ai_edge_litert", delegate=True, threads=None):
        interpreter, resolver = _runtime(runtime)
        kind = {True: "BUILTIN", False: "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}[delegate]
        self._interpreter = interpreter(
            model_content=bytes(content), num_threads=threads or os.cpu_count() or 1,
            experimental_op_resolver_type=getattr(resolver, kind),
        )  # fmt: skip
        names = self._interpreter._get_full_signature_list().get("serving_default")
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.inputs = _tensors(inputs, names and names["inputs"])
        self.outputs = _tensors(outputs, names and names["outputs"])
        self._shapes = None

    def accepts(self):
        """``{input name: Tensor}`` as a caller sees it: quantized inputs take floats."""
        return {
            name: replace(tensor, dtype="float32") if tensor.scale else tensor
            for name, (_, tensor) in self.inputs.items()
        }

    def __call__(self, feed):
        """Outputs by name for one batch of inputs by name, both in floats where the file is quantized."""
        shapes = {name: np.shape(value) for name, value in feed.items()}
        if shapes != self._shapes:
            for name, (index, tensor) in self.inputs.items():
                if tensor.shape != shapes[name]:
                    self._interpreter.resize_tensor_input(index, shapes[name])
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for name, (index, tensor) in self.inputs.items():
            self._interpreter.set_tensor(index, quantize(feed[name], tensor))
        self._interpreter.reset_all_variables()  # a fused LSTM keeps its state from one run to the next; Keras does not
        self._interpreter.invoke()
        return {
            name: dequantize(self._interpreter.get_tensor(index), tensor)
            for name, (index, tensor) in self.outputs.items()
        }


def quantize(values, tensor):
    """``values`` in the tensor's own type; where it is quantized, q = round(x / scale) + zero_point, clipped."""
    values = np.asarray(values)
    if not tensor.scale or not np.issubdtype(np.dtype(tensor.dtype), np.integer):
        return np.ascontiguousarray(values, dtype=tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    levels = np.round(values.astype(np.float32) / np.float32(tensor.scale)) + tensor.zero_point
    return np.clip(levels, limits.min, limits.max).astype(tensor.dtype)


def dequantize(values, tensor):
    """x = (q - zero_point) * scale, where the tensor is quantized."""
    if not tensor.scale or not np.issubdtype(values.dtype, np.integer):
        return values
    return (values.astype(np.float32) - np.float32(tensor.zero_point)) * np.float32(tensor.scale)


def _runtime(name):
    if name == "ai_edge_litert":
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        return Interpreter, OpResolverType
    if name == "tf.lite":
        import tensorflow as tf

        return tf.lite.Interpreter, tf.lite.experimental.OpResolverType
    raise ValueError(f"Unknown runtime: {name!r}. Known: {RUNTIMES}.")


def _tensors(details, names):
    """``{name: (tensor index, Tensor)}``, named by the signature where the file has one."""
    by_index = {detail["index"]: detail for detail in details}
    names = names or {detail["name"]: detail["index"] for detail in details}
    return {name: (index, _tensor(name, by_index[index])) for name, index in names.items()}


def _tensor(name, detail):
    shape = tuple(int(size) for size in detail["shape"])
    signature = detail.get("shape_signature")
    if signature is not None and len(signature) == len(shape):
        shape = tuple(None if size < 0 else int(size) for size in signature)
    scale, zero_point = detail["quantization"]
    return Tensor(name, shape, np.dtype(detail["dtype"]).name, float(scale), int(zero_point))
