"""One tensor's bytes in the form that takes the least: as they are, dense codes, gaps, a bitmap, planes, or mixed."""

import dataclasses
import lzma
from collections.abc import Callable

import numpy as np

from tfcompress.packing import gaps, streams, symbols, weight_model
from tfcompress.packing.fields import Fields, Reader
from tfcompress.packing.fields import length as length_of

RAW, DENSE, GAPS, BITMAP, PLANES, MIXED, REPEATED, SPREAD = range(8)
GAP_SYMBOLS = 2**24  # gaps are not tried in larger tensors, where ANS comes within 0.01 % of the entropy
REPEATED_BYTES = 2**20  # LZMA, for tables that repeat, is not tried in larger tensors: it takes a second for two MB
_ROTATED = frozenset({"float16", "bfloat16", "float32"})  # their exponent is put into a plane of its own


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """One way to store a tensor: the bytes it takes, known before, and the function that writes it."""

    size: float
    name: str
    write: Callable[[Fields, list], None]
    form: symbols.Symbols | None = None
    decisions: tuple[np.ndarray, np.ndarray] | None = None  # of a mixed one, and their probabilities


def plans(raw: np.ndarray, bits: int, shape: tuple[int, ...], dtype: str, repeated: bool = True) -> list[Plan]:
    """Every way but the mixed one to store a tensor's bytes (uint8), of symbols of so many `bits`; LZMA if `repeated`.
    """
    found = [Plan(1 + len(raw), "raw", lambda fields, payload: _write_raw(raw, fields, payload))]
    forms = symbols.forms(raw, bits, shape)
    for form in forms:
        found += [_dense(form), *_sparse(form)]
    if bits >= 16 and not any(form.width == bits for form in forms):
        found += [_planes(raw, bits // 8, dtype in _ROTATED), *_spread(raw, bits // 8, dtype in _ROTATED)]
    if repeated and len(raw) <= REPEATED_BYTES:
        found.append(_repeated(raw, bits))
    return found


def entropy_bits(counts) -> float:
    """`sum(c * log2(n / c))`, what symbols that come `c` times each can't be stored below without a context.

    >>> entropy_bits(np.array([4, 2, 2]))
    12.0
    """
    counts = np.asarray(counts, np.float64)
    counts = counts[counts > 0]
    return float((counts * np.log2(counts.sum() / counts)).sum())


def _repeated(raw: np.ndarray, bits: int) -> Plan:
    places = {32: 2, 64: 3}.get(bits, bits // 16)  # LZMA tells apart the bytes of a value
    filters = lzma_filters(0, places, places)
    found = lzma.compress(raw.tobytes(), lzma.FORMAT_RAW, filters=filters)

    def write(fields, payload):
        fields += bytes([REPEATED, 0, places, places])
        fields.number(len(found))
        payload.append(found)

    return Plan(4 + length_of(len(found)) + len(found), "LZMA", write)


def lzma_filters(context: int, place: int, position: int) -> list[dict]:
    """LZMA1 as Python's lzma module and `unpack.c` take it."""
    return [{"id": lzma.FILTER_LZMA1, "dict_size": 2**24, "lc": context, "lp": place, "pb": position}]


def _read_repeated(fields: Reader, payload: Reader, length: int) -> np.ndarray:
    context, place, position = fields.take(3)
    if context + place > 4 or position > 4:
        raise ValueError("LZMA of unknown properties")
    opened = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=lzma_filters(context, place, position))
    found = opened.decompress(payload.take(fields.number()), length + 1)
    if len(found) != length or not opened.eof:
        raise ValueError(f"a tensor of {length} bytes whose stream holds another number")
    return np.frombuffer(found, np.uint8)


def _overhead(form: symbols.Symbols) -> int:
    fields, payload = Fields(), []
    form.write(fields, payload)
    return 1 + len(fields) + sum(map(len, payload))


def _write_raw(raw, fields, payload):
    fields.append(RAW)
    payload.append(raw.tobytes())


def _dense(form: symbols.Symbols) -> Plan:
    choice = streams.cheapest(form.counts)

    def write(fields, payload):
        fields.append(DENSE)
        form.write(fields, payload)
        streams.write(form.codes, choice, fields, payload)

    return Plan(_overhead(form) + choice.size, _named("dense", form, choice), write, form)


def mixed(form: symbols.Symbols, shape: tuple[int, ...], model: weight_model.Codes) -> Plan:
    """The plan that leaves the codes to the context model, which learns from them."""
    place = weight_model.place_of(form, shape)
    decisions = model.write(form.codes, len(form.alphabet), place)

    def write(fields, payload):
        fields.append(MIXED)
        form.write(fields, payload)
        place.write(fields)

    size = _overhead(form) + len(place) + weight_model.cost_bytes(*decisions)
    return Plan(size, _named("mixed contexts", form), write, form, decisions)


def _named(kind, form, *choices):
    book = "scales, " if form.scales is not None else "codebook, " if form.width == 32 else ""
    return f"{book}{kind} {' + '.join(choice.name for choice in choices)}".strip()


def _sparse(form: symbols.Symbols) -> list[Plan]:
    zero, size = form.zero, len(form.codes)
    count = size - int(form.counts[zero])
    if count > size // 2 or size > GAP_SYMBOLS:
        return []
    distances, values = gaps.split(form.codes, zero)
    counts = form.counts.copy()
    counts[zero] = 0
    overhead = _overhead(form) + length_of(zero, count)

    def write_bitmap(fields, payload):
        fields.append(BITMAP)
        form.write(fields, payload)
        fields.number(zero)
        fields.number(count)
        payload.append(np.packbits(form.codes != zero).tobytes())
        streams.write(values, coder, fields, payload)

    coder = streams.cheapest(counts)
    size = overhead + (size + 7) // 8 + coder.size
    return [_gaps(form, distances, values, counts), *_runs(form, distances, values),
            Plan(size, _named("bitmap", form, coder), write_bitmap, form)]


def _gaps(form, distances, values, counts, width=None) -> Plan:
    """Gaps and values, each by its cheapest coder; with a `width`, gaps of so many bits and values of a fixed width."""
    if width is None:
        small = int(distances.max(initial=0)) < streams.ans.MOST_SYMBOLS
        first = streams.cheapest(np.bincount(distances) if small else None, distances)
        second = streams.cheapest(counts)
    else:
        fixed = max(len(counts) - 1, 0).bit_length()
        first = streams.Choice(streams.FIXED, 2 + (len(distances) * width + 7) // 8, width)
        second = streams.Choice(streams.FIXED, 2 + (len(values) * fixed + 7) // 8, fixed)

    def write(fields, payload):
        fields.append(GAPS)
        form.write(fields, payload)
        fields.number(form.zero)
        fields.number(len(values))
        streams.write(distances, first, fields, payload)
        streams.write(values, second, fields, payload)

    kind = "gaps" if width is None else f"runs of {width} bits,"
    size = _overhead(form) + length_of(form.zero, len(values)) + first.size + second.size
    return Plan(size, _named(kind, form, first, second), write, form)


def _runs(form, distances, values) -> list[Plan]:
    fixed = max(len(form.counts) - 1, 0).bit_length()
    bits = [(int((distances >> width).sum()) + len(distances)) * (width + fixed) for width in range(2, 13)]
    width = 2 + int(np.argmin(bits))
    cut, filled = gaps.with_fillers(distances, values, form.zero, width)
    return [_gaps(form, cut, filled, form.counts, width)]


def _planes(raw: np.ndarray, size: int, rotated: bool) -> Plan:
    parts = _split_planes(raw, size, rotated)
    chosen = [streams.cheapest(symbols.histogram(part, 256)) for part in parts]

    def write(fields, payload):
        fields += bytes([PLANES, size, rotated])
        for part, choice in zip(parts, chosen, strict=True):
            streams.write(part, choice, fields, payload)

    names = ", ".join(choice.name for choice in chosen)
    return Plan(3 + sum(choice.size for choice in chosen), f"planes {names}", write)


def _spread(raw: np.ndarray, size: int, rotated: bool) -> list[Plan]:
    """Planes of the values that are not zero, and the gaps between them: for pruned weights of many distinct values."""
    whole = raw.view(f"<u{size}")
    distances, values = gaps.split(whole, 0)
    if not len(values) or 2 * len(values) > len(whole) or len(whole) > GAP_SYMBOLS:
        return []
    small = int(distances.max()) < streams.ans.MOST_SYMBOLS
    choice = streams.cheapest(np.bincount(distances) if small else None, distances)
    planes = _planes(values.view(np.uint8), size, rotated)

    def write(fields, payload):
        fields.append(SPREAD)
        fields.number(len(values))
        streams.write(distances, choice, fields, payload)
        planes.write(fields, payload)

    size = 1 + length_of(len(values)) + choice.size + planes.size
    return [Plan(size, f"gaps {choice.name}, {planes.name}", write)]


def _read_spread(fields: Reader, payload: Reader, length: int) -> np.ndarray:
    written = fields.number(length)
    distances = streams.read(fields, payload, written, 2**40)
    if fields.take(1)[0] != PLANES or fields.left < 1:
        raise ValueError("gaps without planes")
    size = fields.content[fields.place]
    values = _read_planes(fields, payload, written * size)
    if length % size:
        raise ValueError(f"{length} bytes that are no whole number of values")
    found = np.zeros((length // size, size), np.uint8)
    places = np.cumsum(distances.astype(np.int64) + 1) - 1
    if written and places[-1] >= len(found):
        raise ValueError("gaps that are longer than the tensor")
    found[places] = values.reshape(-1, size)
    return found.reshape(-1)


def _split_planes(raw, size, rotated) -> list[np.ndarray]:
    """Byte 0, 1, ... of all values; a float is first turned by one bit, so that its exponent fills the last one."""
    if rotated:
        whole = raw.view(f"<u{size}")
        raw = (whole << 1 | whole >> (size * 8 - 1)).view(np.uint8)
    return [np.ascontiguousarray(plane) for plane in raw.reshape(-1, size).T]


def _read_planes(fields: Reader, payload: Reader, length: int) -> np.ndarray:
    size, rotated = fields.take(1)[0], fields.take(1)[0]
    if size not in (2, 4, 8) or rotated > (size < 8) or length % size:
        raise ValueError(f"planes of {size} bytes")
    found = np.empty((length // size, size), np.uint8)
    for place in range(size):
        found[:, place] = streams.read(fields, payload, length // size, 256)
    found = found.reshape(-1)
    if rotated:
        whole = found.view(f"<u{size}")
        found = (whole >> 1 | whole << (size * 8 - 1)).view(np.uint8)
    return found


def read(fields: Reader, payload: Reader, length: int, model: weight_model.Codes, decisions) -> np.ndarray:
    """The `length` bytes of a tensor; `model` and the `decisions` of an `ans.Bits` serve the mixed ones."""
    kind = fields.take(1)[0]
    if kind == RAW:
        return np.frombuffer(payload.take(length), np.uint8)
    if kind == PLANES:
        return _read_planes(fields, payload, length)
    if kind == SPREAD:
        return _read_spread(fields, payload, length)
    if kind == REPEATED:
        return _read_repeated(fields, payload, length)
    if kind not in (DENSE, GAPS, BITMAP, MIXED):
        raise ValueError(f"a tensor of the unknown kind {kind}")
    form = symbols.read(fields, payload)
    count, kinds = symbols.code_count(form, length), len(form.alphabet)
    if kind == MIXED:
        place = weight_model.read_place(fields, count, kinds)
        return symbols.values(form, model.read(decisions, count, kinds, place))
    if kind == DENSE:
        return symbols.values(form, streams.read(fields, payload, count, kinds))
    zero, written = fields.number(kinds - 1), fields.number(count)
    if kind == GAPS:
        distances = streams.read(fields, payload, written, 2**40)
        return symbols.values(form, gaps.join(distances, streams.read(fields, payload, written, kinds), zero, count))
    flags = np.unpackbits(np.frombuffer(payload.take((count + 7) // 8), np.uint8))[:count].astype(bool)
    if int(flags.sum()) != written:
        raise ValueError("a bitmap that does not fit its values")
    codes = np.full(count, zero, np.uint16)
    codes[flags] = streams.read(fields, payload, written, kinds)
    return symbols.values(form, codes)
