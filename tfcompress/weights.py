"""The weight tensors of a `.tflite` file, with their zeros and levels: what pruning and quantization leave in it."""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from tfcompress.flatbuffer import DECODERS, File, Graph, Op, Tensor

ELEMENTWISE = frozenset("ADD SUB MUL DIV MAXIMUM MINIMUM SQUARED_DIFFERENCE PRELU POW SELECT SELECT_V2".split())


@dataclasses.dataclass(frozen=True, eq=False)
class Weight:
    """One weight tensor, counted once however many operations share it.

    `channels` holds the stored values, (output channels, n); of indices into a table, what they stand for; of a tensor
    stored sparsely, its non-zeros and a zero as one channel; None for a type that isn't decoded.
    """

    tensor: Tensor
    op: str  # the first operation that uses it
    zeros: int
    channels: np.ndarray | None

    @functools.cached_property
    def levels(self) -> int | None:
        """The largest number of distinct values in one output channel."""
        if self.channels is None or not self.channels.size:
            return None
        ordered = np.sort(self.channels, axis=1)
        return int((ordered[:, 1:] != ordered[:, :-1]).sum(axis=1).max(initial=0)) + 1


def weights(file: File) -> Iterator[Weight]:
    """The weight tensors: constants of two or more dimensions, float or narrower than 32 bits, that feed an operation
    other than an elementwise one. So biases, shapes, normalization constants and the first state of a loop are left
    out, and float16 or integer constants behind a DEQUANTIZE count as what is stored."""
    seen = set()
    for graph in file.graphs:
        made = {out: graph.origin(out) for op in graph.ops if op.name in DECODERS for out in op.outputs}
        decoded = {out for out, origin in made.items() if origin.index != out}
        for op in graph.ops:
            if op.name in ELEMENTWISE or op.name == "QUANTIZE" or decoded & set(op.outputs):
                continue
            for index in _unchanged(op, file) if op.name == "WHILE" else op.inputs:
                if index < 0:
                    continue
                tensor = made.get(index, graph.tensors[index])
                if tensor.data is None or tensor.buffer in seen or len(tensor.shape) < 2:
                    continue
                if tensor.dtype in ("int32", "int64", "uint32", "uint64", "bool", "string"):
                    continue
                seen.add(tensor.buffer)
                yield _weight(tensor, op.name, _table(graph, index) if index in decoded else None)


def _unchanged(op: Op, file: File) -> list[int]:
    """The inputs of a loop that its body hands on as they are: weights, not states."""
    body = file.graphs[op.options.bodySubgraphIndex]
    return [index for index, came, left in zip(op.inputs, body.inputs, body.outputs, strict=True) if came == left]


def _table(graph: Graph, index: int) -> np.ndarray | None:
    """What a tensor is looked up in, if it is made by a GATHER."""
    maker = next(op for op in graph.ops if index in op.outputs)
    return graph.tensors[maker.inputs[0]].data if maker.name == "GATHER" else None


def _weight(tensor: Tensor, op: str, table: np.ndarray | None = None) -> Weight:
    values = tensor.data
    if table is not None:
        places = (values.astype(np.int64) - tensor.zero_point[0]).reshape(len(values) if table.ndim > 1 else 1, -1)
        values = np.take_along_axis(np.atleast_2d(table), places, axis=1).reshape(values.shape)
    if tensor.sparse:
        stored = np.count_nonzero(values)
        channels = np.append(values.reshape(-1), np.zeros(1, values.dtype)).reshape(1, -1)
        return Weight(tensor, op, tensor.size - int(stored), channels)
    axis = tensor.axis if tensor.scale.size > 1 else {"DEPTHWISE_CONV_2D": 3, "CONV_3D": 4}.get(op, 0)
    axis = min(axis, values.ndim - 1)
    zero = 0
    if tensor.zero_point.any() and table is None:
        zero = tensor.zero_point.reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    zeros = int(np.count_nonzero(values == zero))
    return Weight(tensor, op, zeros, np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1))
