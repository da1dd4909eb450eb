"""`.tfcp`, a lossless container for `.tflite` files: weights near their entropy, the rest of the file small."""

import dataclasses
import lzma
import zlib

import numpy as np

from tfcompress import flatbuffer
from tfcompress.packing import ans, container, tensors, weight_model
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
        """The order-0 bound: the entropy of each tensor's stored symbols, and all else as it is packed.

        Symbols are the stored values of 2 to 8 bits, or the entries of a codebook where the tensor is stored by one. A
        tensor of more distinct values (floats that were not quantized) counts as packed; so do graph, names and scales.
        Context models can go below this bound, since they know more than how often each symbol comes.
        """
        bounded = [tensor for tensor in self.tensors if tensor.entropy_bytes is not None]
        return len(self.content) + sum(tensor.entropy_bytes - tensor.packed_bytes for tensor in bounded)

    def listing(self) -> str:
        """A line a tensor: its type, shape, bytes before and after, order-0 entropy, codec and name."""
        lines = [f"{'type':9}{'shape':18}{'bytes':>11}{'packed':>11}{'entropy':>11}  codec, name"]
        for each in self.tensors:
            bound = "" if each.entropy_bytes is None else f"{each.entropy_bytes:,.0f}"
            shape = "x".join(map(str, each.shape))
            lines.append(f"{each.dtype:9}{shape:18}{each.raw_bytes:>11,}{each.packed_bytes:>11,.0f}{bound:>11}  "
                         f"{each.codec}, {each.name[-40:]}")
        return "\n".join(lines)


def pack(model) -> bytes:
    """The `.tfcp` form of a `.tflite` file, from which `unpack` makes the identical file.

    Raises:
        ValueError: not a `.tflite` file, or a damaged one.

    >>> packed = pack(open("model.tflite", "rb").read())  # doctest: +SKIP
    """
    return packing(model).content


def packing(model, *, fast: bool = False) -> Packing:
    """`pack`, with how each tensor is stored and the entropy bound; `fast` leaves out what takes long for a few %."""
    content = flatbuffer.content_of(model)
    try:
        found = segments(content)
    except flatbuffer.DAMAGE as error:
        raise flatbuffer.damaged(content, error, model) from None
    plans, forms = _plans(content, found, fast)
    packed = _assemble(content, found, plans)
    return Packing(packed, len(content), tuple(map(_listed, found, plans, forms)))


def _listed(segment: Segment, plan: tensors.Plan, form) -> PackedTensor:
    form = form if form and (form.width <= 8 or plan.form) else None  # values as many as places have no useful bound
    bound = None if form is None else tensors.entropy_bits(form.counts) / 8
    return PackedTensor(segment.name, segment.dtype, segment.shape, segment.length, plan.name, plan.size, bound)


def _plans(content: bytes, found: list[Segment], fast: bool) -> tuple[list[tensors.Plan], list]:
    """For each tensor the plan that takes the fewest bytes, and its codes (None: too many values).

    Those with few codes are offered to the context model.
    """
    best, forms = [], []
    for segment in found:
        raw = np.frombuffer(content, np.uint8, segment.length, segment.start)
        plans = tensors.plans(raw, segment.bits, segment.shape, segment.dtype, repeated=not fast)
        best.append(min(plans, key=lambda plan: plan.size))
        forms.append(best[-1].form or next((plan.form for plan in plans if plan.form), None))
    budget, tried = 0 if fast else weight_model.MOST_DECISIONS, set()
    for i in sorted(range(len(best)), key=lambda i: found[i].length):
        form = forms[i]
        if form and 1 < len(form.alphabet) <= weight_model.MOST_KINDS:
            budget -= weight_model.decisions(form)
            tried |= {i} if budget >= 0 else set()
    model = weight_model.Codes() if tried else None
    for i in sorted(tried):
        learnt = model.copy()
        mixed = tensors.mixed(forms[i], found[i].shape, learnt)
        if mixed.size < best[i].size:
            best[i], model = mixed, learnt
    return best, forms


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
    coder, main = container.write(bytes(head), pieces)
    decisions = [plan.decisions for plan in plans if plan.decisions is not None]
    flags, guesses = map(np.concatenate, zip(*decisions, strict=True)) if decisions else ((), ())
    streams = [main, ans.write_bits(flags, guesses)]
    start = Fields()
    start.number(len(content))
    for number in (len(head), *map(len, streams)):
        start.number(number)
    if coder == container.LZMA:
        start.number(sum(len(piece) for _, piece in pieces))
    packed = b"".join([start, *streams, *payload])
    packed += bytes(max(0, len(content) // MOST_BYTES_A_BYTE + 1 - len(packed)))
    checksum = zlib.crc32(packed, zlib.crc32(content))  # of both: a byte changed where it does not matter is seen too
    return MAGIC + bytes([VERSION << 4 | coder]) + checksum.to_bytes(4, "little") + packed


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
    coder, checksum = reader.take(5)[4] - (VERSION << 4), int.from_bytes(reader.take(4), "little")
    if coder not in (container.MIXED, container.LZMA):
        raise ValueError("another version of the format")
    size = reader.number(len(reader.content) * MOST_BYTES_A_BYTE)
    head, main, mixed = (reader.number() for _ in range(3))
    rest = reader.number(size) if coder == container.LZMA else 0
    if head > 2 * size + 64:  # raw is the longest way to describe a tensor
        raise ValueError("a description that is longer than what it describes")
    parts = container.Parts(coder, reader.take(main), head, rest)
    codes, decisions = weight_model.Codes(), ans.Bits(reader.take(mixed))
    fields, ranges, found, end = parts.head, [], bytearray(), 0
    for _ in range(fields.number(size)):
        gap, length = fields.number(size - end), fields.number(size)
        found += parts.bytes(gap, end)
        if not length and gap >= 4:
            length = int.from_bytes(found[-4:], "little")
        end += gap + length
        if end > size or not length:
            raise ValueError("tensors that are longer than the file")
        ranges.append((len(found), length))
    found += parts.bytes(size - end, end)
    blocks, before = [], 0
    for place, length in ranges:
        blocks += [found[before:place], tensors.read(fields, reader, length, codes, decisions)]
        before = place
    content = b"".join([*blocks, found[before:]])
    if len(content) != size or zlib.crc32(reader.content[9:], zlib.crc32(content)) != checksum:
        raise ValueError("its checksum differs")
    return content
