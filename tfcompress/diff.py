"""Where two `.tflite` files of one model part ways: signal and noise of every layer, run on the same inputs."""

import dataclasses
import difflib
import io
import math
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.table import Table

from tfcompress import flatbuffer
from tfcompress.flatbuffer import File, Graph
from tfcompress.measure import feed, fixed_batch, load

_MOVES = ("QUANTIZE", "DEQUANTIZE", "DENSIFY")  # change the type of a value, not the value
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class LayerDifference:
    """One tensor that both files compute. The first file's values are the signal, the difference is the noise.

    `snr_db` is 10 log10(sum a^2 / sum (a-b)^2), infinite where they are equal; `cosine` is a.b / |a||b|;
    `added_noise` is by how much noise / signal is above that of the noisiest of its inputs, 0 where it is not: what
    this layer itself lost.
    """

    name: str
    op: str
    dtype: str  # in the first file -> in the second
    shape: tuple[int, ...]
    snr_db: float
    cosine: float
    max_difference: float
    added_noise: float


@dataclasses.dataclass(frozen=True)
class Difference:
    """The report of `diff`, layers in the order in which they run; `str(report)` shows it."""

    layers: tuple[LayerDifference, ...]
    only_first: tuple[str, ...]  # "TYPE name" of operations of the first file that have no counterpart
    only_second: tuple[str, ...]
    samples: int

    @property
    def worst(self) -> LayerDifference:
        """The layer that added most noise: keep it float, or give it more bits, first."""
        return max(self.layers, key=lambda layer: layer.added_noise)

    def text(self, width: int = 120) -> str:
        """The report as text of `width` columns."""
        table = Table(
            "operation", "type", "SNR dB", "added %", "cosine", "max diff.", "name", box=None, header_style=""
        )
        for layer in self.layers:
            mark = " <- worst" if layer is self.worst and layer.added_noise else ""
            numbers = (
                f"{layer.snr_db:.1f}",
                f"{100 * layer.added_noise:.2g}",
                f"{layer.cosine:.5f}",
                f"{layer.max_difference:.3g}",
            )
            table.add_row(layer.op, layer.dtype, *numbers, layer.name.split(";")[0][-36:] + mark)
        console = Console(file=io.StringIO(), width=width)
        console.print(table, highlight=False, markup=False)
        for title, names in (("first", self.only_first), ("second", self.only_second)):
            for name in names:
                console.print(f"only in the {title} file: {name}", highlight=False, markup=False)
        return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"

    def __str__(self) -> str:
        return self.text()


def diff(first, second, x=None, *, threads: int = 1) -> Difference:
    """Run two files, say float and int8, on the same inputs and compare every tensor that both compute.

    Tensors are matched by name, operation and shape, the rest by their place in the order of operations. Values are
    those of the built-in kernels (a delegate keeps no tensors in between), at most one step off XNNPACK's.

    Args:
        first: the reference: a path, bytes, or a TFLiteModel.
        second: the file to judge.
        x: inputs as `measure.run` takes them; a few dozen samples are enough. By default 16 random ones, in the range
            that the second file was calibrated for, or 0..1.

    Raises:
        ValueError: not a `.tflite` file, inputs that don't fit, files of different models, fixed batches that differ.
    """
    files = [flatbuffer.read(first), flatbuffer.read(second)]
    pairs, alone = _match(*(file.graphs[0] for file in files))
    if not pairs:
        raise ValueError("The two files have no layer in common: expected two conversions of one model.")
    x = _made_up(files[1]) if x is None else x
    runners = [load(file.content, threads=threads, xnnpack=False, keep_all=True) for file in files]
    batches = {fixed_batch(runner) for runner in runners} - {None}
    if len(batches) > 1:
        raise ValueError(f"The two files take different batches: {sorted(batches)}. Convert both with the same one.")
    step = batches.pop() if batches else _BATCH
    sums, samples = {pair: np.zeros(5) for pair in pairs}, 0
    runs = [feed(runner, x, file.content, step) for runner, file in zip(runners, files, strict=True)]
    for count, _ in zip(*runs, strict=True):
        samples += count
        for pair in pairs:
            values = [_value(*entry) for entry in zip(runners, files, pair, strict=True)]
            _add(sums[pair], *values)
    return Difference(tuple(_layers(files, pairs, sums)), *alone, samples)


def _match(first: Graph, second: Graph):
    """Pairs of tensor indices in running order, and what is left over in each."""
    sides = [list(_made(graph)) for graph in (first, second)]
    named = dict(sides[1])
    pairs = {index: named[key] for key, index in sides[0] if key in named}
    taken = set(pairs.values())
    rest = [[entry for entry in side if entry[1] not in skip] for side, skip in zip(sides, (pairs, taken), strict=True)]
    kinds = [[key[1:] for key, _ in side] for side in rest]
    for block in difflib.SequenceMatcher(None, *kinds, autojunk=False).get_matching_blocks():
        for k in range(block.size):
            pairs[rest[0][block.a + k][1]] = rest[1][block.b + k][1]
    taken = set(pairs.values())
    alone = tuple(
        tuple(f"{key[2][0]} {key[0]}" for key, index in side if index not in skip)
        for side, skip in zip(sides, (pairs, taken), strict=True)
    )
    return [(index, pairs[index]) for _, index in sides[0] if index in pairs], alone


def _made(graph: Graph) -> Iterator[tuple[tuple, int]]:
    """((name, shape without batch, (operation, which output)), tensor) of the real values that are computed and used,
    in running order. What a loop leaves in a tensor that nobody reads is left out."""
    read = {index for op in graph.ops for index in op.inputs} | set(graph.outputs)
    for op in graph.ops:
        if op.name not in _MOVES:
            for place, index in enumerate(op.outputs):
                tensor = graph.tensors[index]
                if index in read and (tensor.dtype.startswith("float") or tensor.quantized):
                    yield (tensor.name, tensor.signature[1:], (op.name, place)), index


def _value(runner, file: File, index: int) -> np.ndarray:
    tensor = file.graphs[0].tensors[index]
    values = runner.get_tensor(index).astype(np.float64)
    return (values - tensor.zero_point[0]) * tensor.scale[0] if tensor.quantized else values


def _add(sums: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Add to [a.a, b.b, a.b, |a-b|^2, largest |a-b|] in place."""
    if a.shape != b.shape:
        raise ValueError(f"Matched tensors have the shapes {a.shape} and {b.shape}: these are not files of one model.")
    noise = np.abs(a - b)
    sums[:4] += (a * a).sum(), (b * b).sum(), (a * b).sum(), (noise * noise).sum()
    sums[4] = max(sums[4], noise.max(initial=0))


def _layers(files: list[File], pairs, sums) -> Iterator[LayerDifference]:
    graphs = [file.graphs[0] for file in files]
    makers = {index: op for op in graphs[0].ops for index in op.outputs}
    noise = {pair[0]: _ratio(sums[pair][3], sums[pair][0]) for pair in pairs}

    def came_with(index: int) -> float:
        """Noise / signal with which a value arrives: its own if compared, else the worst of what it is made from."""
        if index in noise:
            return noise[index]
        return inputs_of(makers[index]) if index in makers else 0.0

    def inputs_of(op) -> float:
        return max((came_with(index) for index in op.inputs if index >= 0), default=0.0)

    for pair in pairs:
        first, second = (graph.tensors[index] for graph, index in zip(graphs, pair, strict=True))
        power_a, power_b, product, _, largest = sums[pair].tolist()
        ratio, op = noise[pair[0]], makers[pair[0]]
        arrived = inputs_of(op)
        yield LayerDifference(
            name=first.name,
            op=op.name,
            dtype=first.dtype if first.dtype == second.dtype else f"{first.dtype} -> {second.dtype}",
            shape=first.shape,
            snr_db=-10 * math.log10(ratio) if ratio else math.inf,
            cosine=product / math.sqrt(power_a * power_b) if power_a and power_b else float(power_a == power_b),
            max_difference=largest,
            added_noise=ratio - arrived if ratio > arrived else 0.0,
        )


def _ratio(noise: float, signal: float) -> float:
    if not noise:
        return 0.0
    return noise / signal if signal else math.inf


def _made_up(file: File) -> list[np.ndarray]:
    """Sixteen random samples of every input, in the range that the file was calibrated for, or 0..1."""
    graph, random = file.graphs[0], np.random.default_rng(0)
    readers = {op.inputs[0]: op.outputs[0] for op in graph.ops if op.name == "QUANTIZE"}
    arrays = []
    for index in graph.inputs:
        tensor = graph.tensors[index]
        if -1 in tensor.signature[1:]:
            raise ValueError(
                f"Input {tensor.name} has a dynamic size {tensor.signature}: give inputs of the size you use."
            )
        shape = (_BATCH, *tensor.shape[1:])
        coded = graph.tensors[readers.get(index, index)]
        if coded.quantized:
            limits = np.array([np.iinfo(coded.dtype).min, np.iinfo(coded.dtype).max])
            arrays.append(random.uniform(*((limits - coded.zero_point[0]) * coded.scale[0]), shape).astype(np.float32))
        else:
            zeros = not tensor.dtype.startswith("float")
            arrays.append(np.zeros(shape, tensor.dtype) if zeros else random.random(shape, np.float32))
    return arrays
