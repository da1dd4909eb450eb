"""Multiply-accumulates of a `.tflite` file, from its shapes. What no weight multiplies (ADD, MUL, pooling) counts 0."""

import math

from tfcompress.flatbuffer import File, Graph, Op, read

_LSTM_WEIGHTS = range(1, 9)  # inputs 1..8 of the fused LSTM: four gates from the input, four from the state


def file_macs(model) -> int:
    """Multiply-accumulates of one run of a `.tflite` file: a path, bytes, or a TFLiteModel; a batch of one."""
    file = read(model)
    return sum(times * op_macs(op, graph)
               for graph, times in zip(file.graphs, executions(file), strict=True) for op in graph.ops)


def executions(file: File) -> list[int]:
    """How often each graph runs in one run of the first: 1 for that one, the rounds of a loop for the loop's body."""
    runs = [0] * len(file.graphs)

    def visit(number: int, times: int) -> None:
        runs[number] += times
        for op in file.graphs[number].ops:
            if op.name == "WHILE":
                visit(op.options.bodySubgraphIndex, times * (rounds(file.graphs[op.options.condSubgraphIndex]) or 1))

    visit(0, 1)
    return runs


def rounds(condition: Graph) -> int | None:
    """How often a loop runs that counts from 0: the smallest constant its counter is compared with; None if unknown."""
    limits = [condition.tensors[op.inputs[1]].data for op in condition.ops if op.name == "LESS"]
    return min((int(limit.reshape(-1)[0]) for limit in limits if limit is not None), default=None)


def op_macs(op: Op, graph: Graph) -> int:
    """Multiply-accumulates of one operation for the shapes as stored (a batch of one where it is dynamic)."""

    def shape(index: int) -> tuple[int, ...]:
        return graph.tensors[op.inputs[index]].shape

    output = math.prod(graph.tensors[op.outputs[0]].shape) * _hidden_batch(op, graph) if op.outputs else 0
    if op.name in ("CONV_2D", "FULLY_CONNECTED"):  # weights: (out, ...)
        return output * math.prod(shape(1)[1:])
    if op.name == "DEPTHWISE_CONV_2D":  # (1, height, width, out)
        return output * math.prod(shape(1)[1:3])
    if op.name == "CONV_3D":  # (depth, height, width, in, out)
        return output * math.prod(shape(1)[:4])
    if op.name in ("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE"):  # every input value meets every weight of its channel
        return math.prod(shape(2)) * math.prod(shape(1)) // shape(2)[-1]
    if op.name == "BATCH_MATMUL":
        return output * (shape(0)[-2] if op.options.adjX else shape(0)[-1])
    if op.name == "UNIDIRECTIONAL_SEQUENCE_LSTM":  # per step and sample: each weight once
        steps = math.prod(shape(0)[:-1])
        return steps * sum(math.prod(shape(k)) for k in _LSTM_WEIGHTS if op.inputs[k] >= 0)
    if op.name == "UNIDIRECTIONAL_SEQUENCE_RNN":
        return math.prod(shape(0)[:-1]) * (math.prod(shape(1)) + math.prod(shape(2)))
    return 0


def _hidden_batch(op: Op, graph: Graph) -> int:
    """Times that a dynamic batch, stored as 1, really has: a dilated convolution sees one map for each of its steps."""
    if op.name not in ("CONV_2D", "DEPTHWISE_CONV_2D") or graph.tensors[op.inputs[0]].shape[0] != 1:
        return 1
    before = graph.maker(op.inputs[0])
    while before is not None and before.name in ("RESHAPE", "EXPAND_DIMS"):  # a 1-D convolution is one of height 1
        before = graph.maker(before.inputs[0])
    if before is None or before.name != "SPACE_TO_BATCH_ND":
        return 1
    block = graph.tensors[before.inputs[1]].data
    return 1 if block is None else math.prod(int(n) for n in block.reshape(-1))
