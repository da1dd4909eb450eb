"""What the GPU delegate of LiteRT would refuse in a `.tflite` file, by written-down rules: nothing is run.

The rules follow TensorFlow Lite's `gpu_compatibility.cc`, with what else its documentation asks for:

1. The operation is one of `SUPPORTED`.
2. Shapes are known before the run: no control flow, no -1 beyond the batch.
3. Tensors that flow are float32, float16, int8 or uint8, of at most four dimensions. int32 and int64 are for indices
   and shapes only; int16 activations have no kernel.
4. Padding covers 3 or 4 dimensions; SLICE and STRIDED_SLICE cut 3 or 4 dimensions without masks that change the rank;
   SOFTMAX has beta 1; the axes of a reduction, and paddings, are constants.

A file without a finding may still be refused by a phone's driver: only a run on the phone tells.
"""

from tfcompress.flatbuffer import File, Graph, Op, Tensor

SUPPORTED = frozenset(
    """ABS ADD ADD_N AVERAGE_POOL_2D BATCH_MATMUL CAST CONCATENATION CONV_2D COS CUMSUM DENSIFY DEPTHWISE_CONV_2D
    DEPTH_TO_SPACE DEQUANTIZE DIV ELU EQUAL EXP FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GELU GREATER
    GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM
    MIRROR_PAD MUL NEG NOT_EQUAL ONE_HOT PACK PAD PADV2 POW PRELU QUANTIZE REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6
    RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SELECT SELECT_V2 SIGN SIN SLICE SOFTMAX
    SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE
    TRANSPOSE_CONV""".split()
)
_FLOWS = ("float32", "float16", "int8", "uint8", "bool")
_CONSTANTS = {
    "MEAN": 1,
    "SUM": 1,
    "REDUCE_MAX": 1,
    "REDUCE_MIN": 1,
    "REDUCE_PROD": 1,
    "PAD": 1,
    "PADV2": 1,
    "MIRROR_PAD": 1,
}


def gpu_refusals(file: File) -> list[str]:
    """One sentence for each kind of thing that a GPU delegate would leave to the CPU, most frequent first."""
    counts: dict[str, int] = {}
    for tensor in (file.graphs[0].tensors[index] for index in file.graphs[0].inputs):
        if -1 in tensor.signature[1:]:
            key = f"input {tensor.name} has a dynamic size {tensor.signature}: give it a fixed one"
            counts[key] = counts.get(key, 0) + 1
    for graph in file.graphs:
        for op in graph.ops:
            reason = _reason(op, graph)
            if reason:
                key = f"{op.name} {reason}"
                counts[key] = counts.get(key, 0) + 1
    return [f"{count} x {key}" for key, count in sorted(counts.items(), key=lambda item: -item[1])]


def _reason(op: Op, graph: Graph) -> str | None:
    if op.name in ("WHILE", "IF", "CALL", "CALL_ONCE"):
        return "is control flow"
    if op.name not in SUPPORTED:
        return "has no GPU kernel"
    inputs = [graph.tensors[index] for index in op.inputs if index >= 0]
    outputs = [graph.tensors[index] for index in op.outputs]
    flows = [t for t in (*inputs, *outputs) if t.data is None]
    if op.name == "GATHER":
        if inputs[1].dtype != "int32" or len(inputs[1].shape) != 1:
            return f"takes int32 indices in one dimension, here {inputs[1].dtype} in {len(inputs[1].shape)}"
        flows = [t for t in flows if t is not inputs[1]]
    if op.name not in ("CAST", "ONE_HOT"):
        for tensor in flows:
            if tensor.dtype not in _FLOWS:
                return f"works on {tensor.dtype}"
    if any(len(tensor.shape) > 4 for tensor in flows):
        return "works on more than four dimensions"
    if op.name in _CONSTANTS and inputs[_CONSTANTS[op.name]].data is None:
        return "needs constant axes or paddings"
    return _option_reason(op, inputs)


def _option_reason(op: Op, inputs: list[Tensor]) -> str | None:
    rank = len(inputs[0].shape) if inputs else 0
    if op.name in ("PAD", "PADV2", "MIRROR_PAD") and inputs[1].shape not in ((3, 2), (4, 2)):
        return f"pads {inputs[1].shape[0]} dimensions, not 3 or 4"
    if op.name in ("SLICE", "STRIDED_SLICE") and rank not in (3, 4):
        return f"cuts {rank} dimensions, not 3 or 4"
    if op.name == "STRIDED_SLICE" and (op.options.ellipsisMask or op.options.newAxisMask or op.options.shrinkAxisMask):
        return "has a mask that changes the rank"
    if op.name == "SOFTMAX" and op.options.beta != 1:
        return "has a beta other than 1"
    if op.name == "DEQUANTIZE" and inputs[0].dtype == "int16":
        return "works on int16"
    if op.name == "FULLY_CONNECTED" and op.options.weightsFormat:
        return "has shuffled weights"
    if op.name == "FULLY_CONNECTED" and inputs[0].data is not None:
        return "has a constant input"
    if op.name in ("DEPTH_TO_SPACE", "SPACE_TO_DEPTH") and op.options.blockSize <= 1:
        return "has a block size of 1"
    return None
