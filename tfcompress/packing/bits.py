"""Bits in a row, the first one in the top bit of the first byte: fixed widths, codes of any length, Golomb-Rice."""

import numpy as np

_CHUNK = 2**20  # numbers handled at a time, a multiple of 8 so that every chunk fills whole bytes


def write_fixed(values: np.ndarray, width: int) -> bytes:
    """Each value in `width` bits, 0 to 16: `ceil(len(values) * width / 8)` bytes.

    >>> write_fixed(np.array([1, 2, 3]), 3).hex()       # 001 010 011, then zeros
    '2980'
    """
    if width == 8:
        return np.asarray(values).astype(np.uint8).tobytes()
    places = np.arange(width - 1, -1, -1)
    parts = [values[i : i + _CHUNK].astype(np.int64) for i in range(0, len(values), _CHUNK)]
    return b"".join(np.packbits((part[:, None] >> places & 1).astype(np.uint8)).tobytes() for part in parts)


def read_fixed(content: bytes, width: int, count: int) -> np.ndarray:
    """The `count` values (uint16) that `write_fixed` wrote; ValueError if there are too few bytes."""
    if len(content) < (count * width + 7) // 8:
        raise ValueError("a fixed-width stream that is too short")
    if width == 8:
        return np.frombuffer(content, np.uint8, count)
    found = np.zeros(count, np.uint16)
    for i in range(0, count if width else 0, _CHUNK):
        here = found[i : i + _CHUNK]
        part = np.frombuffer(content, np.uint8, (len(here) * width + 7) // 8, i * width // 8)
        flags = np.unpackbits(part, count=len(here) * width).reshape(len(here), width)
        for flag in flags.T:
            here <<= 1
            here |= flag
    return found


def write_codes(codes: np.ndarray, lengths: np.ndarray) -> bytes:
    """Codes of `lengths` bits each, written one after the other.

    >>> write_codes(np.array([0b10, 0b0, 0b111]), np.array([2, 1, 3])).hex()       # 10 0 111, then zeros
    '9c'
    """
    ends = np.cumsum(lengths.astype(np.int64))
    flags = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    for place in range(int(lengths.max(initial=0))):
        chosen = lengths > place
        flags[ends[chosen] - 1 - place] = codes[chosen] >> place & 1
    return np.packbits(flags).tobytes()


def walk(steps: np.ndarray, count: int) -> np.ndarray:
    """Where each of `count` codes begins, if the code at bit i ends before bit `steps[i]`; ValueError past the end."""
    ends, place, starts = steps.tolist(), 0, []
    try:
        for _ in range(count):
            starts.append(place)
            place = ends[place]
    except IndexError:
        raise ValueError("a bit stream that is too short") from None
    if place > len(ends):
        raise ValueError("a bit stream that is too short")
    return np.array(starts, np.int64)


def rice_parameter(values: np.ndarray) -> tuple[int, int]:
    """The k, 0 to 15, whose Golomb-Rice code is shortest, and its length in bits.

    >>> rice_parameter(np.array([3, 4, 9]))       # 1+2, 2+2, 3+2 bits
    (2, 12)
    """
    values = values.astype(np.int64)
    bits = [int((values >> k).sum()) + len(values) * (1 + k) for k in range(16)]
    best = int(np.argmin(bits))
    return best, bits[best]


def write_rice(values: np.ndarray, k: int) -> bytes:
    """Golomb-Rice: `value >> k` zeros, a one, then the lowest k bits (Golomb 1966; Rice and Plaunt 1971).

    >>> write_rice(np.array([3, 4, 9]), 2).hex()       # 111 0100 00101
    'e850'
    """
    values = values.astype(np.int64)
    quotients = values >> k
    ends = np.cumsum(quotients + 1 + k)
    flags = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    flags[ends - 1 - k] = 1
    for place in range(k):
        flags[ends - 1 - place] = values >> place & 1
    return np.packbits(flags).tobytes()


def read_rice(content: bytes, k: int, count: int) -> np.ndarray:
    """The `count` values (int64) that `write_rice` wrote; ValueError if there are too few bytes."""
    flags = np.unpackbits(np.frombuffer(content, np.uint8))
    ones = np.where(flags, np.arange(len(flags)), len(flags) + 1)
    following = np.minimum.accumulate(ones[::-1])[::-1]
    starts = walk(following + 1 + k, count)
    ends = following[starts]
    values = ends - starts
    padded = np.append(flags, np.zeros(k + 1, np.uint8))
    for place in range(k):
        values = values << 1 | padded[ends + 1 + place]
    return values
