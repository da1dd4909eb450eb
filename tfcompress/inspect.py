"""What is in a `.tflite` file: operations, data types, sizes, zeros, levels, multiply-accumulates. Nothing is run."""

import dataclasses
import io
import math
from collections import Counter

from rich.console import Console
from rich.table import Table

from tfcompress import flatbuffer
from tfcompress.flatbuffer import File, Graph, Op
from tfcompress.gpu import gpu_refusals
from tfcompress.macs import executions, op_macs
from tfcompress.measure import Storage, sizes
from tfcompress.weights import weights

_NARROW = ("int8", "uint8", "int16")


@dataclasses.dataclass(frozen=True)
class OpCount:
    """Operations of one type that work on one type of data. `macs`: of all of them in one run, loops included."""

    name: str
    dtype: str  # of the activation, with the weights' after a "*" where it differs: "float32 * int8"
    count: int  # in the file; a loop's body counts once
    macs: int


@dataclasses.dataclass(frozen=True)
class WeightInfo:
    """One weight tensor as it lies in the file."""

    name: str
    op: str
    dtype: str
    shape: tuple[int, ...]
    zeros: int
    levels: int | None  # most distinct values in one output channel; None for a type that isn't decoded

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The report of `inspect`; `str(report)` or `report.text()` shows it."""

    raw_bytes: int
    gzip_bytes: int
    inputs: tuple[str, ...]  # "name dtype (shape)"
    outputs: tuple[str, ...]
    ops: tuple[OpCount, ...]
    macs: int
    tensors: dict[str, int]  # dtype -> count, constants and activations
    weights: tuple[WeightInfo, ...]
    parameters: int  # weights, without biases
    sparsity: float  # exact zeros / parameters
    levels: int  # most distinct values in one output channel of any weight tensor
    float_islands: tuple[str, ...]  # "TYPE name" of operations left float in a file that has integer ones
    gpu_refusals: tuple[str, ...]  # see tfcompress/gpu.py

    def text(self, width: int = 100, each_weight: bool = False, storage: Storage | None = None) -> str:
        """The report as text of `width` columns; `each_weight` adds a line for every weight tensor.

        `storage`, from `measure.storage` (which takes seconds), adds the bytes by xz, packed, and their bound.
        """
        console = Console(file=io.StringIO(), width=width)
        for part in _render(self, each_weight, storage):
            console.print(part, highlight=False, markup=False)
        return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"

    def __str__(self) -> str:
        return self.text()


def inspect(model) -> Inspection:
    """Read a `.tflite` file, given as a path, bytes, or a TFLiteModel.

    Zeros, levels and parameters count weights only: constants of two or more dimensions that feed an operation other
    than an elementwise one; biases are not weights. MACs hold for the shapes in the file, a batch of one.

    Raises:
        ValueError: not a `.tflite` file, or a damaged one.
    """
    file = flatbuffer.read(model)
    try:
        return _inspect(file)
    except flatbuffer.DAMAGE as error:  # readable, yet it makes no sense
        raise flatbuffer.damaged(file.content, error, model) from error


def _inspect(file: File) -> Inspection:
    graph = file.graphs[0]
    raw, packed = sizes(file.content)
    found = tuple(
        WeightInfo(weight.tensor.name, weight.op, weight.tensor.dtype, weight.tensor.shape, weight.zeros, weight.levels)
        for weight in weights(file)
    )
    parameters = sum(weight.size for weight in found)
    ops = _count(file)
    return Inspection(
        raw_bytes=raw,
        gzip_bytes=packed,
        inputs=tuple(_label(graph, index) for index in graph.inputs),
        outputs=tuple(_label(graph, index) for index in graph.outputs),
        ops=ops,
        macs=sum(op.macs for op in ops),
        tensors=dict(Counter(tensor.dtype for part in file.graphs for tensor in part.tensors).most_common()),
        weights=found,
        parameters=parameters,
        sparsity=sum(weight.zeros for weight in found) / parameters if parameters else 0.0,
        levels=max((weight.levels or 0 for weight in found), default=0),
        float_islands=tuple(_islands(file)),
        gpu_refusals=tuple(gpu_refusals(file)),
    )


def _label(graph: Graph, index: int) -> str:
    tensor = graph.tensors[index]
    return f"{tensor.name} {tensor.dtype} {tensor.signature}"


def _count(file: File) -> tuple[OpCount, ...]:
    counts, macs = Counter(), Counter()
    for graph, times in zip(file.graphs, executions(file), strict=True):
        for op in graph.ops:
            key = (op.name, _dtype(op, graph))
            counts[key] += 1
            macs[key] += times * op_macs(op, graph)
    return tuple(OpCount(*key, count, macs[key]) for key, count in counts.most_common())


def _dtype(op: Op, graph: Graph) -> str:
    """The type of what flows out, and that of the weights where it differs."""
    if not op.outputs:
        return ""
    activation = graph.tensors[op.outputs[0]].dtype
    sources = [graph.origin(index) for index in op.inputs if index >= 0]
    stored = {t.dtype for t in sources if t.data is not None and len(t.shape) > 1} - {activation, "int32", "int64"}
    if op.name in ("DEQUANTIZE", "DENSIFY") or not stored:
        return activation
    return f"{activation} * {sorted(stored)[0]}"


def _islands(file: File) -> list[str]:
    ops = [(op, graph) for graph in file.graphs for op in graph.ops if op.outputs]
    ops = [(op, graph) for op, graph in ops if op.name not in ("QUANTIZE", "DEQUANTIZE", "DENSIFY")]
    made = [graph.tensors[op.outputs[0]] for op, graph in ops]
    if not any(tensor.dtype in _NARROW for tensor in made):
        return []
    return [
        f"{op.name} {tensor.name.split(';')[0]}"
        for (op, _), tensor in zip(ops, made, strict=True)
        if tensor.dtype == "float32"
    ]


def _render(report: Inspection, each_weight: bool, storage: Storage | None):
    share = report.gzip_bytes / report.raw_bytes
    yield f"Size       {report.raw_bytes:,} bytes, {report.gzip_bytes:,} after gzip ({share:.0%})"
    if storage is not None:
        yield (
            f"Packed     {storage.packed:,} bytes, {storage.raw / storage.packed:.1f}x smaller; xz {storage.xz:,}; "
            f"entropy bound {storage.entropy:,}"
        )
    yield (
        f"Weights    {report.parameters:,}, {report.sparsity:.1%} of them zero, "
        f"at most {report.levels} distinct values in a channel"
    )
    yield f"MACs       {report.macs:,} in one run"
    yield f"Tensors    {', '.join(f'{count} {dtype}' for dtype, count in report.tensors.items())}"
    for title, labels in (("Inputs", report.inputs), ("Outputs", report.outputs)):
        yield from (
            f"{title if first else '':10} {label}" for first, label in zip([1] + [0] * 99, labels, strict=False)
        )
    table = Table("operation", "type", "count", "MACs", box=None, header_style="")
    for op in report.ops:
        table.add_row(op.name, op.dtype, str(op.count), f"{op.macs:,}" if op.macs else "")
    yield table
    if each_weight:
        table = Table("weights of", "type", "shape", "zero", "levels", "name", box=None, header_style="")
        for info in report.weights:
            zero = f"{info.zeros / max(1, info.size):.1%}"
            table.add_row(info.op, info.dtype, "x".join(map(str, info.shape)), zero, str(info.levels), info.name[-40:])
        yield table
    if report.float_islands:
        yield f"Left float ({len(report.float_islands)} operations in a file with integer ones):"
        yield from (f"  {name}" for name in report.float_islands)
    yield "A GPU delegate would refuse:" if report.gpu_refusals else "A GPU delegate would refuse nothing known here."
    yield from (f"  {reason}" for reason in report.gpu_refusals)
