"""Float weights that are low-bit numbers become integers in the file, and those floats again, to 5e-7, when it runs."""

import re
from collections import Counter

from ai_edge_litert import schema_py_generated as schema

from tfcompress import flatbuffer
from tfcompress.conversion.build import add_constant, add_result, make_operation, scaled
from tfcompress.conversion.forms import Codes, Half, Table, forms
from tfcompress.weights import weights

PRECISIONS = ("exact", "exact8")
BOUND = 1e-4  # of outputs up to 1; larger ones in proportion
_VERSIONS = {2: 7, 4: 6, 8: 2, 16: 3}  # of DEQUANTIZE, by bits: an older runtime refuses the file by its number
_PER_CHANNEL = 5
_LISTED = 8
_SLOW = 0.003  # us a look-up: CAST and GATHER of a million weights took 2.8 to 5.9 ms (scripts/bench_lowbit_latency.py)


def choices(content, *, fast=False, keep_float=()):
    """What the weights of a float file may become.

    Args:
        content: the file, bytes.
        fast: see ``forms``.
        keep_float: regular expressions on op names: the weights of these ops stay as they are.

    Returns:
        ``{buffer: (name for notes, forms, best first)}``; no forms for a tensor that none is smaller for.
    """
    file, found = flatbuffer.read(content), {}
    for weight in weights(file):
        tensor = weight.tensor
        if tensor.dtype != "float32" or tensor.sparse or not may_change(file, tensor, keep_float):
            continue
        found[tensor.buffer] = f"{weight.op} {tensor.name.split(';')[-1]}", forms(tensor.data, fast)
    return found


def may_change(file, tensor, keep_float):
    """No input or output of a graph, always of one shape, and read by no operation that must stay float."""
    for graph in file.graphs:
        same = [other.index for other in graph.tensors if other.buffer == tensor.buffer]
        if any(graph.tensors[index].shape != tensor.shape for index in same):
            return False
        if set(same) & {*graph.inputs, *graph.outputs}:
            return False
        for op in graph.ops if keep_float else ():
            name = ";".join(graph.tensors[index].name for index in op.outputs) + ";"
            if set(same) & set(op.inputs) and any(re.search(pattern, name) for pattern in keep_float):
                return False
    return True


def store(model, chosen):
    """Put the chosen forms into the file, in place: ``chosen`` is ``{buffer: form}``.

    The float tensor stays, as the result of a DEQUANTIZE of the codes (and what follows it) in front of its first
    reader; so no operation quantizes its activations, as it would with integer weights of its own.
    """
    written = {}
    for graph in model.subgraphs:
        for index in [i for i, tensor in enumerate(graph.tensors) if tensor.buffer in chosen]:
            form = chosen[graph.tensors[index].buffer]
            readers = [k for k, op in enumerate(graph.operators) if index in op.inputs]
            if readers:
                site = _Site(model, graph, index, form, written)
                graph.tensors[index].buffer = 0
                _WRITERS[type(form)](site)
                graph.operators[readers[0] : readers[0]] = site.operations
    for buffer in chosen:
        model.buffers[buffer].data = None


class _Site:
    """A float tensor of a graph and the operations that will make it."""

    def __init__(self, model, graph, index, form, written):
        self.model, self.graph, self.index, self.form, self.written = model, graph, index, form, written
        self.shape, self.name = tuple(graph.tensors[index].shape), graph.tensors[index].name
        graph.tensors[index].name += b"_float"
        self.operations = []

    def constant(self, part, values, **options):
        """A constant under the weights' own name; one buffer for all the graphs that use it."""
        name, key = self.name if part == "codes" else self.name + b"_" + part.encode(), (id(self.form), part)
        buffer = self.written.get(key)
        index = add_constant(self.model, self.graph, values, name, buffer=buffer, **options)
        self.written[key] = self.graph.tensors[index].buffer
        return index

    def step(self, operator, inputs, kind="FLOAT32", last=False, **options):
        """One operation; its result is the tensor itself where it is the last one."""
        result = self.index if last else add_result(self.graph, self.index, kind)
        self.operations.append(make_operation(self.model, operator, inputs, result, **options))
        return result


def _scale(site):
    form = site.form
    several = len(form.scales) > 1
    quantization = scaled(form.scales, form.axis if several else 0)
    codes = site.constant("codes", form.codes, bits=form.bits, quantization=quantization)
    version = max(_VERSIONS[form.bits], _PER_CHANNEL if several else 1)
    real = site.step("DEQUANTIZE", [codes], last=form.slopes is None, version=version)
    if form.slopes is not None:
        shape = [1] * len(site.shape)
        shape[form.axis] = len(form.slopes)
        site.step("PRELU", [real, site.constant("slopes", form.slopes.reshape(shape))], last=True)


def _look_up(site):
    form = site.form
    by_row, half = int(len(form.table) > 1), 2 ** (form.bits - 1)
    codes = site.constant("codes", form.indices - half, bits=form.bits, quantization=scaled([1.0], zero=-half))
    real = site.step("DEQUANTIZE", [codes], version=_VERSIONS[form.bits])
    cast = schema.CastOptionsT()
    cast.inDataType, cast.outDataType = schema.TensorType.FLOAT32, schema.TensorType.INT32
    whole = site.step("CAST", [real], "INT32", options=cast)
    gather = schema.GatherOptionsT()
    gather.axis = gather.batchDims = by_row
    table = site.constant("table", form.table if by_row else form.table[0])
    site.step("GATHER", [table, whole], last=True, options=gather, version=5 if by_row else 1)


def _halve(site):
    site.step("DEQUANTIZE", [site.constant("codes", site.form.values)], last=True, version=3)


_WRITERS = {Codes: _scale, Table: _look_up, Half: _halve}


def settle(counts, passes):
    """Which form each tensor takes, by place, where the best ones together failed the gate.

    Args:
        counts: how many forms each tensor has; that place stands for float32.
        passes: ``passes(places)`` says whether a file with these forms passes.

    Returns:
        The places: of each tensor the first form that passes with all others float32. Float32 for all where that
        fails, or where what passes alone does not pass together.

    >>> settle([2, 3], lambda places: places[1] > 0)  # the second tensor's best form crashes the run time
    [0, 1]
    """
    places = list(counts)
    if not passes(places):
        return places
    for tensor, count in enumerate(counts):
        alone = ([*counts[:tensor], place, *counts[tensor + 1 :]] for place in range(count))
        places[tensor] = next((place for place, trial in enumerate(alone) if passes(trial)), count)
    return places if passes(places) else list(counts)


def notes(found, chosen):
    """Sentences: how many tensors took which form, what stayed float32, and what narrower form did not run."""
    taken = Counter(str(form) for form in chosen.values())
    lines = [f"exact: {', '.join(f'{count} x {form}' for form, count in taken.most_common())}"] if taken else []
    looked_up = sum(form.indices.size for form in chosen.values() if isinstance(form, Table))
    if looked_up:
        lines.append(
            f"exact: {looked_up:,} weights are looked up in tables at every run, some {_SLOW * looked_up:,.0f} us on a "
            "PC: where time counts more than bytes, use exact8"
        )
    for buffer, form in chosen.items():
        name, possible = found[buffer]
        if form is not possible[0]:
            lines.append(f"exact: {possible[0]} do not run here in {name}: {form}")
    floats = [name for buffer, (name, _) in found.items() if buffer not in chosen]
    if floats:
        shown = ", ".join(floats[:_LISTED]) + (" ..." if len(floats) > _LISTED else "")
        lines.append(f"exact: {len(floats)} stay float32, as no smaller form is exact: {shown}")
    return lines
