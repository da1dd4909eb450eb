"""Where the weights lie inside a `.tflite` file: the byte ranges of its tensors' buffers."""

import dataclasses

from ai_edge_litert import schema_py_generated as schema

SMALLEST = 64  # bytes; shorter constants stay where they are,
SMALLEST_WIDE = 2048  # and so do those of 32 or 64 bits a value (biases, indices), which are like what is around them
_TYPES = {number: name.lower() for name, number in vars(schema.TensorType).items() if isinstance(number, int)}
BITS = {
    "int2": 2, "int4": 4, "uint4": 4, "int8": 8, "uint8": 8, "bool": 8, "string": 8, "int16": 16, "uint16": 16,
    "float16": 16, "bfloat16": 16, "int32": 32, "uint32": 32, "float32": 32, "int64": 64, "uint64": 64, "float64": 64,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Segment:
    """The buffer of one tensor: bytes `start` to `start + length` of the file; `axis` of its scales."""

    start: int
    length: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    axis: int

    @property
    def bits(self) -> int:
        """Of one stored symbol; 8 where the bytes are no whole number of symbols, or of an unknown type."""
        bits = BITS.get(self.dtype, 8)
        return bits if self.length * 8 % bits == 0 else 8


def segments(content: bytes) -> list[Segment]:
    """Buffers of tensors of at least 64 bytes, in file order, none inside another.

    Raises:
        struct.error, IndexError, ...: a damaged file (`flatbuffer.DAMAGE`).
    """
    model = schema.Model.GetRootAs(content, 0)
    ranges = [_range(model.Buffers(i), len(content)) for i in range(model.BuffersLength())]
    found = {}
    for g in range(model.SubgraphsLength()):
        graph = model.Subgraphs(g)
        for t in range(graph.TensorsLength()):
            tensor = graph.Tensors(t)
            start, length = ranges[tensor.Buffer()]
            kind = _TYPES.get(tensor.Type(), "unknown")
            if length >= (SMALLEST_WIDE if BITS.get(kind, 8) >= 32 else SMALLEST) and start not in found:
                shape = tuple(tensor.Shape(i) for i in range(tensor.ShapeLength()))
                quantization = tensor.Quantization()
                axis = quantization.QuantizedDimension() if quantization else 0
                name = (tensor.Name() or b"").decode("utf-8", "replace")
                found[start] = Segment(start, length, name, kind, shape, axis)
    kept, end = [], 0
    for start in sorted(found):
        if start >= end:
            kept.append(found[start])
            end = start + found[start].length
    return kept


def _range(buffer, size) -> tuple[int, int]:
    """Of the bytes a buffer holds, inside the flatbuffer or (files above 2 GB) behind it; (0, 0) if none."""
    start, length = buffer.Offset(), buffer.Size()
    if start <= 1:
        place = buffer._tab.Offset(4)  # field 0, `data`
        start, length = (buffer._tab.Vector(place), buffer._tab.VectorLen(place)) if place else (0, 0)
    if start < 0 or start + length > size:
        raise IndexError(f"a buffer of {length} bytes at {start} of {size}")
    return start, length
