"""`.tfcp`, a lossless container for `.tflite` files: weights near their entropy, the rest of the file small."""

import dataclasses
import lzma
import zlib

import numpy as np

from tfcompress import flatbuffer
from tfcompress.packing import container, tensors, weight_model
from tfcompress.packing.fields import Fields, Reader
from tfcompress.packing.segments import Segment, segments

MAGIC, VERSION = b"TFCP", 1
MOST_BYTES_A_BYTE = 2**14  # no packed byte stands for more: so a short file can't ask for a huge one


@dataclasses.dataclass(frozen=True)
class PackedTensor:
    """A line of the listing: how one tensor is stored. `entropy_bytes` is None where no order-0 bound is taken."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    raw_bytes: int
    codec: str
    packed_bytes: float
    entropy_bytes: float | None


@dataclasses.dataclass(frozen=True)
class Packing:
    """A packed file and what it is made of."""

    content: bytes
    raw_bytes: int
    tensors: tuple[PackedTensor, ...]

    @property
    def entropy_bytes(self) -> float:
        """The order-0 bound: the entropy of each tensor's stored symbols, and all else as it is packed."""
        bounded = [tensor for tensor in self.tensors if tensor.entropy_bytes is not None]
        return len(self.content) + sum(tensor.entropy_bytes - tensor.packed_bytes for tensor in bounded)


def pack(model) -> bytes:
    """The `.tfcp` form of a `.tflite` file, from which `unpack` makes the identical file.

    Raises:
        ValueError: not a `.tflite` file, or a damaged one.

    >>> packed = pack(open("model.tflite", "rb").read())  # doctest: +SKIP
    """
    return packing(model).content


def packing(model) -> Packing:
    """`pack`, with how each tensor is stored and the entropy bound."""
    content = flatbuffer.content_of(model)
    try:
        found = segments(content)
    except flatbuffer.DAMAGE as error:
        raise flatbuffer.damaged(content, error, model) from None
    budget, listed, chosen = weight_model.MOST_DECISIONS, {}, {}
    for segment in sorted(found, key=lambda each: each.length):
        raw = np.frombuffer(content, np.uint8, segment.length, segment.start)
        plan, budget = _best(segment, raw, budget)
        bound = None if plan.form is None else tensors.entropy_bits(plan.form.counts) / 8
        chosen[segment.start] = plan
        listed[segment.start] = PackedTensor(
            segment.name, segment.dtype, segment.shape, segment.length, plan.name, plan.size, bound
        )
    packed = _assemble(content, found, [chosen[segment.start] for segment in found])
    return Packing(packed, len(content), tuple(listed[segment.start] for segment in found))


def _best(segment: Segment, raw: np.ndarray, budget: int):
    """The plan that takes the fewest bytes, and what is then left of the bits that may be mixed."""
    plans = tensors.plans(raw, segment.bits, segment.shape, segment.dtype)
    for form in {id(plan.form): plan.form for plan in plans if plan.form is not None}.values():
        if weight_model.worth_trying(form) and weight_model.decisions(form) <= budget:
            plans.append(tensors.mixed(form, segment.shape))
    best = min(plans, key=lambda plan: plan.size)
    return best, budget - (weight_model.decisions(best.form) if best.place else 0)


def _assemble(content: bytes, found: list[Segment], plans: list[tensors.Plan]) -> bytes:
    head, payload, pieces, end = Fields(), [], [], 0
    head.number(len(found))
    for segment in found:
        pieces.append((end, content[end : segment.start]))
        implied = pieces[-1][1][-4:] == segment.length.to_bytes(4, "little")
        head.number(segment.start - end)
        head.number(0 if implied else segment.length)
        end = segment.start + segment.length
    pieces.append((end, content[end:]))
    for plan in plans:
        plan.write(head, payload)
    mixed = [(plan.form.codes, len(plan.form.counts), plan.place) for plan in plans if plan.place]
    coder, streams = container.write(bytes(head), pieces, mixed)
    start = Fields(MAGIC)
    start.append(VERSION << 4 | coder)
    start.number(len(content))
    start += zlib.crc32(content).to_bytes(4, "little")
    for number in (len(head), *map(len, streams)):
        start.number(number)
    packed = b"".join([start, *streams, *payload])
    return packed + bytes(max(0, len(content) // MOST_BYTES_A_BYTE + 1 - len(packed)))


def unpack(packed: bytes) -> bytes:
    """The `.tflite` file of which `pack` made these bytes, identical to it.

    Raises:
        ValueError: not a `.tfcp` file, or a damaged one.
    """
    if not isinstance(packed, bytes | bytearray) or packed[:4] != MAGIC:
        kind = f"{packed[:8]!r}..." if isinstance(packed, bytes | bytearray) else type(packed).__name__
        raise ValueError(f"Expected the bytes of a .tfcp file (TFCP first). Received: {kind}; make it by pack(model).")
    try:
        return _unpack(Reader(bytes(packed)))
    except (*flatbuffer.DAMAGE, EOFError, lzma.LZMAError) as error:
        raise ValueError(
            f"Expected a whole .tfcp file. Received: {len(packed)} bytes that can't be unpacked "
            f"({error or type(error).__name__}); it was cut off or changed: copy or pack it again."
        ) from None


def _unpack(reader: Reader) -> bytes:
    coder = reader.take(5)[4] - (VERSION << 4)
    if coder not in (container.MIXED, container.LZMA):
        raise ValueError("another version of the format")
    size = reader.number(len(reader.content) * MOST_BYTES_A_BYTE)
    checksum = int.from_bytes(reader.take(4), "little")
    head, *lengths = (reader.number() for _ in range(2 + coder))
    parts = container.Parts(coder, [reader.take(length) for length in lengths], head, size)
    fields, ranges, found, end = parts.head, [], bytearray(), 0
    for _ in range(fields.number(size)):
        gap, length = fields.number(size - end), fields.number(size)
        found += parts.bytes(gap, end)
        length = length or int.from_bytes(found[-4:], "little")
        end += gap + length
        if end > size or gap > size:
            raise ValueError("tensors that are longer than the file")
        ranges.append((len(found), length))
    found += parts.bytes(size - end, end)
    blocks, before = [], 0
    for place, length in ranges:
        blocks += [found[before:place], tensors.read(fields, reader, length, parts.codes)]
        before = place
    content = b"".join([*blocks, found[before:]])
    if len(content) != size or zlib.crc32(content) != checksum:
        raise ValueError("its checksum differs")
    return content
