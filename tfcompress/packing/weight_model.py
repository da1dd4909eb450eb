"""Codes of sparse weights from their neighbours: zeros crowd in some rows and columns of trained nets."""

import math

import numpy as np

from tfcompress.packing import mixing
from tfcompress.packing.fields import Fields, Reader
from tfcompress.packing.symbols import Symbols

INPUTS, TABLE_BITS = 10, 16
MOST_DECISIONS = 400_000  # bits a file that Python mixes, some 100,000 a second
_SHORT = 4096  # codes: dense tensors are mixed up to here, where a table of frequencies would cost more


def decisions(form: Symbols) -> int:
    """Bits that are guessed for a tensor: is it the zero code, and if not, which other one."""
    width = max(len(form.counts) - 2, 0).bit_length()
    return len(form.codes) + (len(form.codes) - int(form.counts[form.zero])) * width


def worth_trying(form: Symbols) -> bool:
    """Whether the tensor is short, or sparse enough for its neighbours to say something."""
    size = len(form.codes)
    return 1 < len(form.counts) <= 256 and (size <= _SHORT or 2 * int(form.counts[form.zero]) > size)


def write_head(place: tuple[int, int, int], fields: Fields) -> None:
    """The zero code, the length of a row (the last axis) and of a filter (all axes but the first)."""
    zero, row, plane = place
    fields.number(zero)
    fields.number(row)
    fields.number(plane // row)


def read_head(fields: Reader, count: int, kinds: int) -> tuple[int, int, int]:
    """Zero code, row, filter."""
    zero, row = fields.number(kinds - 1), fields.number(max(count, 1))
    plane = row * fields.number(max(count, 1))
    if not 0 < row <= plane <= max(count, 1):
        raise ValueError("rows that don't fit their tensor")
    return zero, row, plane


def layout(shape: tuple[int, ...], count: int) -> tuple[int, int]:
    """Codes in a row and in a filter; (count, count) where the shape does not tell."""
    if len(shape) < 2 or math.prod(shape) != count:
        return count, count
    plane = math.prod(shape[1:])
    return (shape[-1], plane) if shape[0] > 1 else (shape[-1], count)


def mixed_bytes(form: Symbols, place: tuple[int, int, int]) -> int:
    """What the codes of this tensor alone take."""
    coder = mixing.Encoder()
    Codes().code(coder, form.codes, len(form.codes), len(form.counts), place)
    return len(coder.finish())


class Codes:
    """A model of codes in rows and filters; it goes on learning from one tensor to the next."""

    def __init__(self):
        self.mixer = mixing.Mixer(INPUTS, 32, TABLE_BITS, limit=255, rate=3)
        self.tensors = 0

    def code(self, coder, codes: np.ndarray | None, count: int, kinds: int, place: tuple[int, int, int]) -> np.ndarray:
        """`count` codes below `kinds` through an Encoder, or (`codes` None) a Decoder; `place`: zero, row, filter."""
        zero, row, plane = place
        given = None if codes is None else codes.tolist()
        width = max(kinds - 2, 0).bit_length()
        self.tensors += 1
        before = 2 * plane + row + 2  # zeros in front: neighbours of the first codes
        past = [0] * before  # 0, or 1 + which of the other codes
        in_column, in_place = [0] * row, [0] * plane
        in_filter = recent = 0
        for i in range(count):
            column, spot = i % row, i % plane
            if not spot:
                in_filter = 0
            left, above = past[-1], past[-row]
            hashes = self._contexts(past, row, plane, i, in_column[column], in_place[spot], in_filter, recent)
            wanted = None
            if given is not None:
                wanted = 0 if given[i] == zero else given[i] + (given[i] < zero)
            value = self._one(coder, hashes, wanted, width, (left > 0) + (above > 0))
            past.append(value)
            recent = (recent << 1 | (value > 0)) & 0xFFFF
            if value:
                in_column[column] += 1
                in_place[spot] += 1
                in_filter += 1
        found = np.array(past[before:], np.int64)
        found = np.where(found == 0, zero, found - (found <= zero))
        if count and int(found.max()) >= kinds:
            raise ValueError(f"a code above {kinds - 1}")
        return found.astype(np.uint16)

    def _contexts(self, past, row, plane, i, in_column, in_place, in_filter, recent):
        left, above, over = past[-1], past[-row], past[-plane]
        seen_column, seen_place, seen_filter = i // row, i // plane, i % plane
        column = _density(in_column, seen_column)
        place = _density(in_place, seen_place)
        filtered = _density(in_filter, seen_filter)
        near = bin(recent).count("1")
        around = (past[-row - 1] > 0) + (past[-row] > 0) + (past[1 - row] > 0 if row > 1 else 0)
        contexts = (
            0,
            left | past[-2] << 8,
            above | over << 8,
            left | above << 8 | over << 16,
            column << 8 | min(seen_column, 15),
            filtered << 8 | place,
            column << 16 | filtered << 8 | place,
            near << 4 | around << 2 | (over > 0),
            place << 8 | near,
            (i % plane) << 10 | self.tensors & 1023,
        )
        return [(h + n * 0x3D4D51CB) * 0x85EBCA6B & 0xFFFFFFFF for n, h in enumerate(contexts)]

    def _one(self, coder, hashes, wanted, width, near):
        code = self.mixer.code
        bit = None if wanted is None else int(wanted > 0)
        if not code(coder, _slots(hashes, 0), near, bit):
            return 0
        node = 1
        for place in range(width - 1, -1, -1):
            bit = None if wanted is None else wanted - 1 >> place & 1
            node = node << 1 | code(coder, _slots(hashes, node), 3 + min(place, 7) * 3 + near, bit)
        return 1 + node - (1 << width)


def _slots(hashes, node):
    return [
        i << TABLE_BITS | ((h + node * 0x9E3779B1) * 0x2C1B3C6D & 0xFFFFFFFF) >> 32 - TABLE_BITS
        for i, h in enumerate(hashes)
    ]


def _density(ones: int, seen: int) -> int:
    """The share of ones in twelve steps, finer where it is small; 15 where nothing was seen yet."""
    if not seen:
        return 15
    share = (256 * ones + 128) // (seen + 1)
    return min(share.bit_length() * 2 - (share < 3 << share.bit_length() - 2 if share > 1 else 0), 14) if share else 0
