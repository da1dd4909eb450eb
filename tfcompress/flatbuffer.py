"""A `.tflite` file as plain Python values: graphs, operations, tensors and the weights in them. Nothing is run."""

import dataclasses
import math
import os
import struct
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

_PLAIN = {
    "float32": "<f4", "float16": "<f2", "float64": "<f8", "int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2",
    "int32": "<i4", "uint32": "<u4", "int64": "<i8", "uint64": "<u8", "bool": "?",
}  # fmt: skip
DECODERS = {"DEQUANTIZE": 0, "DENSIFY": 0, "PRELU": 0, "CAST": 0, "GATHER": 1}  # operation: which input is decoded
DAMAGE = (  # what reading a damaged file raises
    struct.error, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError, RecursionError,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor. `shape` as stored (1 where dynamic), `signature` with -1 where dynamic, `dtype` as "int8", "int4".

    `data` holds the stored values of a constant (codes if quantized; the non-zeros only if `sparse`), else None.
    `scale`, `zero_point` are 1-D arrays, empty if not quantized; `axis` is the quantized dimension.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    dtype: str
    buffer: int
    data: np.ndarray | None
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int
    sparse: bool
    variable: bool

    @property
    def quantized(self) -> bool:
        return self.scale.size > 0 and not self.dtype.startswith("float")

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Op:
    """One operation: `name` as "CONV_2D" ("CUSTOM:x" for a custom one), tensors by index (-1 = left out)."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: object  # the schema's options object, or None


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """One subgraph; `ops` are in the order in which they run."""

    name: str
    tensors: list[Tensor]
    ops: list[Op]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def maker(self, index: int) -> Op | None:
        """The operation that gives a tensor; None for an input or a constant."""
        return next((op for op in self.ops if index in op.outputs), None)

    def origin(self, index: int) -> Tensor:
        """The tensor that another is only another form of, through DEQUANTIZE and DENSIFY, and for quantized constants
        through PRELU, CAST and a GATHER by them; else the tensor itself."""
        maker = self.maker(index)
        if maker is not None and maker.name in DECODERS:
            found = self.origin(maker.inputs[DECODERS[maker.name]])
            if maker.name in ("DEQUANTIZE", "DENSIFY") or (found.quantized and found.data is not None):
                return found
        return self.tensors[index]


@dataclasses.dataclass(frozen=True)
class Signature:
    """A named entry point: the names of its inputs and outputs, each with the tensor it stands for."""

    name: str
    inputs: dict[str, int]
    outputs: dict[str, int]
    graph: int


@dataclasses.dataclass(frozen=True, eq=False)
class File:
    """A whole file; `graphs[0]` is the main one."""

    content: bytes
    graphs: list[Graph]
    signatures: list[Signature]


def content_of(model) -> bytes:
    """The bytes of a `.tflite` given as a path, as bytes, or as an object with `.content` such as TFLiteModel.

    Raises:
        ValueError: no such file, an empty one, or one that is no `.tflite`.
    """
    content = getattr(model, "content", model)
    source = f"{len(content)} bytes" if isinstance(content, bytes | bytearray) else str(content)
    if isinstance(content, str | os.PathLike):
        path = Path(content)
        if not path.is_file():
            raise ValueError(f"Expected a .tflite file. Received: {source}, which is not a file; check the path.")
        content = path.read_bytes()
    elif not isinstance(content, bytes | bytearray):
        raise ValueError(f"Expected a path, bytes or a TFLiteModel. Received: {type(content).__name__}")
    if content[4:8] != b"TFL3":
        raise ValueError(
            f"Expected a .tflite file (TFL3 at byte 4). Received: {source} that begins with {bytes(content[:8])!r}; "
            "convert a Keras model with `tfcompress convert` first."
        )
    return bytes(content)


def read(model) -> File:
    """Read a `.tflite` file: a path, bytes, or an object with `.content`.

    Raises:
        ValueError: not a `.tflite` file, or a damaged one.
    """
    content, source = content_of(model), model
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        codes = [_op_name(code) for code in model.operatorCodes or []]
        graphs = [_graph(graph, model, codes, content) for graph in model.subgraphs]
        signatures = [_signature(entry) for entry in model.signatureDefs or []]
    except DAMAGE as error:
        raise damaged(content, error, source) from None
    return File(content, graphs, signatures)


def damaged(content: bytes, error: Exception, source=None) -> ValueError:
    """The error that says a file was cut off or changed; `source` is its path where it has one."""
    path = f"{source}, " if isinstance(source, str | os.PathLike) else ""
    return ValueError(
        f"Expected a whole .tflite file. Received: {path}{len(content)} bytes that can't be read "
        f"({type(error).__name__}: {error}); it was cut off or changed: copy or convert it again."
    )


def _graph(graph, model, codes, content) -> Graph:
    tensors = [_tensor(index, tensor, model, content) for index, tensor in enumerate(graph.tensors or [])]
    ops = [
        Op(codes[op.opcodeIndex], _ints(op.inputs), _ints(op.outputs), op.builtinOptions or op.builtinOptions2)
        for op in graph.operators or []
    ]
    found = Graph(_text(graph.name), tensors, ops, _ints(graph.inputs), _ints(graph.outputs))
    used = [*found.inputs, *found.outputs, *(index for op in ops for index in (*op.inputs, *op.outputs))]
    if used and not -1 <= min(used) <= max(used) < len(tensors):
        raise IndexError(f"tensor {min(used)}..{max(used)} of {len(tensors)}")
    return found


def _signature(entry) -> Signature:
    inputs, outputs = ({_text(t.name): t.tensorIndex for t in maps or []} for maps in (entry.inputs, entry.outputs))
    return Signature(_text(entry.signatureKey), inputs, outputs, entry.subgraphIndex)


def _tensor(index, tensor, model, content) -> Tensor:
    dtype = _TYPES[tensor.type]
    shape = _ints(tensor.shape)
    buffer = model.buffers[tensor.buffer]
    raw = buffer.data
    if raw is None and buffer.offset > 1:  # files above 2 GB keep their buffers behind the flatbuffer
        raw = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
    quantization = tensor.quantization
    found = [getattr(quantization, key, None) for key in ("scale", "zeroPoint")]
    scale, zero = (np.zeros(0) if values is None else np.atleast_1d(values) for values in found)
    sparse = tensor.sparsity is not None
    data = None
    if raw is not None and len(raw):
        data = _decode(np.asarray(raw), dtype, None if sparse else shape)
    signature = _ints(tensor.shapeSignature) or shape
    axis = quantization.quantizedDimension if quantization else 0
    return Tensor(
        index, _text(tensor.name), shape, signature, dtype, tensor.buffer, data, scale, zero, axis, sparse,
        bool(tensor.isVariable),
    )  # fmt: skip


def _decode(raw: np.ndarray, dtype: str, shape) -> np.ndarray | None:
    raw = np.ascontiguousarray(raw).view(np.uint8)
    if dtype in _PLAIN:
        values = raw.view(_PLAIN[dtype])
    elif dtype == "bfloat16":
        values = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    elif dtype in ("int4", "uint4", "int2"):
        bits = int(dtype[-1])
        codes = (raw[:, None] >> np.arange(0, 8, bits, dtype=np.uint8)) & (2**bits - 1)
        values = codes.reshape(-1).astype(np.int8)
        if dtype.startswith("int"):
            values[values >= 2 ** (bits - 1)] -= 2**bits
        values = values[: math.prod(shape)] if shape is not None else values
    else:
        return None
    return values if shape is None else values.reshape(shape)


def _op_name(code) -> str:
    name = _OPS[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return f"CUSTOM:{_text(code.customCode)}" if name == "CUSTOM" else name


def _text(value) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else (value or "")


def _ints(values) -> tuple[int, ...]:
    return () if values is None else tuple(int(value) for value in values)


def _names(enum) -> dict[int, str]:
    return {value: key for key, value in vars(enum).items() if isinstance(value, int)}


_TYPES = {number: name.lower() for number, name in _names(schema.TensorType).items()}
_OPS = _names(schema.BuiltinOperator)
