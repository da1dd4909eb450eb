"""The stored values of a tensor as codes 0 .. kinds - 1, and back: by an alphabet, a codebook, or scales a channel."""

import dataclasses

import numpy as np

from tfcompress.packing.fields import Fields, Reader

MOST_KINDS = 4096  # of a codebook
_SCALED = 33  # in the place of a width
_VIEWS = {8: np.uint8, 16: np.dtype("<u2"), 32: np.dtype("<u4")}


@dataclasses.dataclass(frozen=True, eq=False)
class Symbols:
    """A tensor's codes, how often each comes, and what brings the values back.

    `alphabet` holds the bit patterns of the codes (of `width` bits); with `scales`, float32 values of which each output
    channel along `axis` (0 first, 1 last) is `scale * code`, the codes -127 .. 127 as bytes.
    """

    codes: np.ndarray
    counts: np.ndarray
    width: int
    alphabet: np.ndarray
    scales: np.ndarray | None = None
    axis: int = 0

    @property
    def zero(self) -> int:
        """The code that comes most often."""
        return int(np.argmax(self.counts))

    def write(self, fields: Fields, payload: list[bytes]) -> None:
        """All but the codes."""
        if self.scales is not None:
            fields += bytes([_SCALED, self.axis])
            fields.number(len(self.scales))
            payload.append(self.scales.astype("<f4").tobytes())
        else:
            fields.append(self.width)
        fields.number(len(self.alphabet))
        if self.width == 32:
            fields += self.alphabet.astype("<u4").tobytes()
        else:
            flip = 1 << (8 if self.scales is not None else self.width) - 1
            before = -1
            for value in (self.alphabet.astype(np.int64) ^ flip).tolist():
                fields.number(value - before - 1)
                before = value


def read(fields: Reader, payload: Reader) -> Symbols:
    """What `Symbols.write` wrote, without codes."""
    width, axis, scales = fields.take(1)[0], 0, None
    if width == _SCALED:
        axis = fields.take(1)[0]
        count = fields.number(2**24)
        scales = np.frombuffer(payload.take(4 * count), "<f4")
        if axis > 1 or not count:
            raise ValueError("scales without an axis")
    elif width not in (2, 4, 8, 16, 32):
        raise ValueError(f"values of {width} bits")
    bits = 8 if scales is not None else width
    kinds = fields.number(min(MOST_KINDS, 2**bits))
    if not kinds:
        raise ValueError("an alphabet of no symbols")
    if width == 32:
        alphabet = np.frombuffer(fields.take(4 * kinds), "<u4")
    else:
        values = np.cumsum([fields.number(2**bits) + 1 for _ in range(kinds)]) - 1
        if values[-1] >= 2**bits:
            raise ValueError("an alphabet that leaves its width")
        alphabet = values ^ 1 << bits - 1
    return Symbols(np.zeros(0), np.zeros(kinds, np.int64), width, alphabet, scales, axis)


def code_count(symbols: Symbols, length: int) -> int:
    """Codes in a tensor of `length` bytes; ValueError if they don't fill it."""
    width = 32 if symbols.scales is not None else symbols.width
    count = length * 8 // width
    if count * width != length * 8 or (symbols.scales is not None and count % len(symbols.scales)):
        raise ValueError(f"{length} bytes that are no whole number of values")
    return count


def values(symbols: Symbols, codes: np.ndarray) -> np.ndarray:
    """The tensor's bytes."""
    if symbols.scales is not None:
        small = symbols.alphabet.astype(np.uint8).view(np.int8).astype(np.float64)[codes]
        shape = (len(symbols.scales), -1) if symbols.axis == 0 else (-1, len(symbols.scales))
        scales = symbols.scales.astype(np.float64).reshape((-1, 1) if symbols.axis == 0 else (1, -1))
        with np.errstate(invalid="ignore", over="ignore"):
            return (small.reshape(shape) * scales).astype("<f4").reshape(-1).view(np.uint8)
    if symbols.width >= 8:
        return symbols.alphabet.astype(_VIEWS[symbols.width])[codes].view(np.uint8)
    each = 8 // symbols.width
    patterns = symbols.alphabet.astype(np.uint8)[codes].reshape(-1, each)
    found = np.zeros(len(patterns), np.uint8)
    for place in range(each):
        found |= patterns[:, place] << np.uint8(place * symbols.width)
    return found


def forms(raw: np.ndarray, bits: int, shape: tuple[int, ...]) -> list[Symbols]:
    """The ways to see a tensor's bytes as codes; none if it has too many values, or 8 bytes a value."""
    if bits == 64:
        return []
    if bits < 8:
        places = np.arange(0, 8, bits, dtype=np.uint8)
        patterns = (raw[:, None] >> places & np.uint8(2**bits - 1)).reshape(-1)
    else:
        patterns = raw.view(_VIEWS[bits])
    found = [] if (plain := _coded(patterns, bits)) is None else [plain]
    if bits == 32:
        found += [scaled for axis in (0, 1) if (scaled := _scaled(raw.view("<f4"), shape, axis)) is not None]
    return found


def histogram(codes: np.ndarray, kinds: int) -> np.ndarray:
    """How often each code comes, in little memory."""
    parts = (codes[i : i + 2**20] for i in range(0, len(codes), 2**20))
    return sum((np.bincount(part, minlength=kinds) for part in parts), np.zeros(kinds, np.int64))


def _coded(patterns: np.ndarray, bits: int) -> Symbols | None:
    if bits == 32:
        if len(np.unique(patterns[: 4 * MOST_KINDS])) > MOST_KINDS:
            return None
        alphabet = np.unique(patterns)
        if len(alphabet) > MOST_KINDS:
            return None
        codes = np.searchsorted(alphabet, patterns).astype(np.uint16)
        return Symbols(codes, histogram(codes, len(alphabet)), bits, alphabet)
    counts = histogram(patterns, 2**bits)
    order = np.arange(2**bits) ^ 1 << bits - 1  # as signed numbers
    alphabet = order[counts[order] > 0]
    if len(alphabet) > MOST_KINDS:
        return None
    table = np.zeros(2**bits, np.uint8 if len(alphabet) <= 256 else np.uint16)
    table[alphabet] = np.arange(len(alphabet))
    return Symbols(table[patterns], counts[alphabet], bits, alphabet)


def _scaled(values: np.ndarray, shape: tuple[int, ...], axis: int) -> Symbols | None:
    """Codes and scales where every channel is a float32 times whole numbers up to 127; exact, or None."""
    channels = shape[-axis] if len(shape) > 1 else 0
    if channels < 2 or values.size % channels or values.size // channels < 2:
        return None
    rows = values.reshape(channels, -1) if axis == 0 else values.reshape(-1, channels).T
    scales = np.zeros(channels, np.float32)
    codes = np.empty(rows.shape, np.int8)
    for i, row in enumerate(rows):
        found = _scale(row)
        if found is None:
            return None
        scales[i], codes[i] = found
    codes = codes.reshape(-1) if axis == 0 else codes.T.reshape(-1)
    plain = _coded(np.ascontiguousarray(codes).view(np.uint8), 8)
    return dataclasses.replace(plain, scales=scales, axis=axis)


def _scale(row: np.ndarray):
    """(scale, codes) of one channel whose values are `float32(scale * code)` bit for bit, or None."""
    if np.isnan(row).any() or np.isinf(row).any():
        return None
    sizes = np.unique(np.abs(row))
    sizes = sizes[sizes > 0].astype(np.float64)
    if not len(sizes):
        return (np.float32(0), np.zeros(row.shape, np.int8)) if not np.signbit(row).any() else None
    if len(sizes) > 127:
        return None
    for code in range(1, 128):
        if sizes[-1] / sizes[0] * code > 127.25:
            return None
        middle = np.float32(sizes[0] / code)
        for scale in (middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(np.inf))):
            if scale and np.array_equal((np.rint(sizes / float(scale)) * float(scale)).astype(np.float32), sizes):
                codes = np.rint(row.astype(np.float64) / float(scale)).astype(np.int8)
                again = (codes * float(scale)).astype(np.float32)
                return (scale, codes) if np.array_equal(again.view(np.uint32), row.view(np.uint32)) else None
    return None
