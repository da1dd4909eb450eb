"""Codes of weights from their neighbours, batch by batch: rows and columns of trained nets differ in zeros and in size.

A code is cut into decisions: is it the zero code, its sign, its magnitude (how many bits, then the bits). Each decision
has a probability from counts in several contexts, mixed in the logistic domain as in `mixing`. A batch of codes is
guessed from the batches before it alone, so that numpy handles all of it at once; `unpack.c` does the same in a loop.
"""

import dataclasses
import math

import numpy as np

from tfcompress.packing.fields import Fields, Reader, length
from tfcompress.packing.mixing import FIRST_WEIGHT, SQUASH, STRETCH
from tfcompress.packing.symbols import Symbols

MOST_KINDS = 256
MOST_DECISIONS = 1_500_000  # in a file: Python takes some 3 us for each
CONTEXTS, STAGES, VALUES = 9, 32, 1024
_SMALLEST_BATCH, _BATCHES = 64, 512
_LIMIT = 1023  # of a context's counts, which are then halved
_EVEN = 32768
_SIGN, _LARGER, _UPPER, _LOWER = 1, 2, 10, 18  # stages, behind 0: is it another code than zero?
_SQUASH, _STRETCH = np.array(SQUASH, np.int64), np.array(STRETCH, np.int64)


@dataclasses.dataclass(frozen=True)
class Place:
    """How codes lie: which one is zero, how many there are in a row (last axis) and in a filter (all but the first)."""

    zero: int
    row: int
    filter: int

    def write(self, fields: Fields) -> None:
        """Append the three numbers."""
        fields.number(self.zero)
        fields.number(self.row)
        fields.number(self.filter // self.row)

    def __len__(self):
        return length(self.zero, self.row, self.filter // self.row)


MOST_CODES = 2**21  # in a file; W_MOST of unpack.c: the packer mixes fewer, and each takes some time to read


def read_place(fields: Reader, count: int, kinds: int) -> Place:
    """What `Place.write` wrote."""
    zero, row = fields.number(kinds - 1), fields.number(max(count, 1))
    columns = row * fields.number(max(count, 1))
    if not 0 < row <= columns <= max(count, 1):
        raise ValueError("rows that don't fit their tensor")
    return Place(zero, row, columns)


def place_of(form: Symbols, shape: tuple[int, ...]) -> Place:
    """The layout that a tensor's shape tells; zero is the code that comes most often, or that of the number 0."""
    count, zero = len(form.codes), form.zero
    if 4 * int(form.counts[zero]) < count and 0 in form.alphabet:
        zero = int(np.flatnonzero(form.alphabet == 0)[0])
    if len(shape) < 2 or math.prod(shape) != count:
        return Place(zero, max(count, 1), max(count, 1))
    return Place(zero, shape[-1], math.prod(shape[1:]) if shape[0] > 1 else count)


def decisions(form: Symbols) -> int:
    """About how many decisions a tensor takes."""
    others = len(form.codes) - int(form.counts[form.zero])
    return len(form.codes) + others * len(form.counts).bit_length()


class Codes:
    """A model of codes in rows and filters; it goes on learning from one tensor to the next."""

    def __init__(self):
        self.counts = np.zeros((2, CONTEXTS * STAGES * VALUES), np.int32)  # of zeros and of ones
        self.weights = np.full((STAGES, CONTEXTS), FIRST_WEIGHT, np.int64)
        self._left = MOST_CODES

    def copy(self) -> "Codes":
        """Another one that knows as much."""
        twin = Codes.__new__(Codes)
        twin.counts, twin.weights, twin._left = self.counts.copy(), self.weights.copy(), self._left
        return twin

    def write(self, codes: np.ndarray, kinds: int, place: Place) -> tuple[np.ndarray, np.ndarray]:
        """The decisions of a tensor's codes, each with the probability (of 65536) that it is 1."""
        coder = _Recorder()
        self._code(coder, len(codes), kinds, place, codes.astype(np.int64) - place.zero)
        return coder.all()

    def read(self, coder, count: int, kinds: int, place: Place) -> np.ndarray:
        """The codes whose decisions `coder(probabilities)` gives."""
        self._left -= count
        if self._left < 0 or kinds > MOST_KINDS:
            raise ValueError("more mixed codes than any file has")
        codes = self._code(coder, count, kinds, place, None) + place.zero
        if count and not 0 <= int(codes.min()) <= int(codes.max()) < kinds:
            raise ValueError(f"a code above {kinds - 1}")
        return codes.astype(np.uint16)

    def _code(self, coder, count, kinds, place, given):
        top = max(kinds - 1 - place.zero, place.zero).bit_length() - 1
        history = _History(count, place, weigh=top >= 3)
        size = max(_SMALLEST_BATCH, -(-count // _BATCHES))
        for first in range(0, count, size):
            last = min(first + size, count)
            contexts = history.contexts(first, last)
            wanted = None if given is None else given[first:last]
            history.add(first, last, self._batch(coder, contexts, wanted, top))
        return history.codes

    def _batch(self, coder, contexts, wanted, top):
        """The codes of one batch, as whole numbers around 0."""
        codes = np.zeros(contexts.shape[1], np.int64)
        size = None if wanted is None else np.abs(wanted)
        some = np.flatnonzero(self._bits(coder, 0, contexts, None if wanted is None else wanted != 0))
        if not len(some):
            return codes
        contexts = contexts[:, some]
        size = None if size is None else size[some]
        negative = self._bits(coder, _SIGN, contexts, None if wanted is None else wanted[some] < 0)
        bits, growing = np.zeros(len(some), np.int64), np.arange(len(some))
        for extra in range(1, top + 1):
            larger = self._bits(coder, _LARGER + extra - 1, contexts[:, growing],
                                None if size is None else size[growing] >> extra > 0)
            growing = growing[larger]
            bits[growing] = extra
            if not len(growing):
                break
        found = np.ones(len(some), np.int64)
        for place in range(top):
            here = np.flatnonzero(bits > place)
            if not len(here):
                break
            known = None if size is None else size[here] >> bits[here] - 1 - place & 1
            if place < 2:
                stage = (_UPPER if place == 0 else _LOWER) + bits[here]
                bit = self._bits(coder, stage, contexts[:, here], known)
            else:
                bit = coder.bits(np.full(len(here), _EVEN), known)
            found[here] = found[here] << 1 | bit
        codes[some] = np.where(negative, -found, found)
        return codes

    def _bits(self, coder, stage, contexts, wanted):
        """One decision for each column of `contexts`, all guessed before any is learnt from."""
        slots = contexts + np.arange(CONTEXTS)[:, None] * (STAGES * VALUES) + np.multiply(stage, VALUES)
        counts = self.counts
        ones = counts[1][slots].astype(np.int64)
        seen = counts[0][slots] + ones
        stretched = _STRETCH[((2 * ones + 1) << 12) // (2 * seen + 2)]
        weights = self.weights[stage]
        mixed = (weights @ stretched if weights.ndim == 1 else (weights.T * stretched).sum(0)) >> 16
        guess = _SQUASH[np.clip(mixed, -3072, 3071) + 3072]
        bit = coder.bits(guess, wanted).astype(np.int64)
        step = stretched * ((bit << 16) - guess)
        self._learn(stage, step)
        flat = slots.reshape(-1)
        which = np.broadcast_to(bit, slots.shape).reshape(-1)
        np.add.at(counts, (which, flat), 1)
        while len(flat := flat[counts[0][flat] + counts[1][flat] > _LIMIT]):
            flat = np.unique(flat)
            counts[:, flat] = counts[:, flat] + 1 >> 1
        return bit == 1

    def _learn(self, stage, step):
        """Weights move by the mean of the batch's steps, times up to eight."""
        for one in np.unique(stage):
            part = step if np.ndim(stage) == 0 else step[:, stage == one]
            shift = 17 + max(part.shape[1].bit_length() - 4, 0)
            self.weights[one] += part.sum(1) >> shift


class _History:
    """Codes so far, and what is known of rows, columns and filters from them."""

    def __init__(self, count, place, weigh):
        self.codes, self.place, self.weigh = np.zeros(count, np.int64), place, weigh
        row, columns = place.row, place.filter
        self.sums = [np.zeros(row, np.int64), np.zeros(columns, np.int64), np.zeros(-(-count // columns), np.int64)]
        self.seen = [np.zeros_like(total) for total in self.sums]

    def _groups(self, first, last):
        index = np.arange(first, last)
        return index, (index % self.place.row, index % self.place.filter, index // self.place.filter)

    def contexts(self, first, last) -> np.ndarray:
        """(CONTEXTS, codes) values below VALUES, from what stands before `first`."""
        index, groups = self._groups(first, last)
        column, spot, whole = (
            _level(total[group], seen[group]) for total, seen, group in zip(self.sums, self.seen, groups, strict=True)
        )
        row, columns = self.place.row, self.place.filter
        above = self._at(index - row, first)
        over = self._at(index - (columns if columns > row else 2 * row), first)
        beside = self._at(index - row - 1, first), self._at(index - row + 1, first)
        sizes = sum(np.abs(part) if self.weigh else (part != 0).astype(np.int64) for part in (above, over, *beside))
        around = _level(sizes, np.full(len(index), 4))
        return np.stack([
            np.zeros_like(index),
            column,
            spot,
            whole,
            (whole >> 1) * 16 + (column >> 1),
            (whole >> 1) * 16 + (spot >> 1),
            _signed(above) * 18 + _signed(over),
            (whole >> 2) * 64 + (spot >> 2) * 8 + (column >> 2),
            around * 32 + whole,
        ])

    def _at(self, index, first):
        """Codes at `index`, 0 where they are not known yet."""
        known = (index >= 0) & (index < first)
        return np.where(known, self.codes[np.where(known, index, 0)], 0)

    def add(self, first, last, codes):
        """Take in the codes of one batch."""
        self.codes[first:last] = codes
        sizes = np.abs(codes) if self.weigh else (codes != 0).astype(np.int64)
        for total, seen, group in zip(self.sums, self.seen, self._groups(first, last)[1], strict=True):
            np.add.at(total, group, sizes)
            np.add.at(seen, group, 1)


def _level(total, seen) -> np.ndarray:
    """The mean in half powers of two, 1 .. 30; 31 where nothing was seen, 0 for a mean below 1/64."""
    mean = total * 64 // np.maximum(seen, 1)
    size = _length(mean)
    second = np.where(size > 1, mean >> np.maximum(size - 2, 0) & 1, 0)
    return np.where(seen == 0, 31, np.minimum(2 * size + second, 30))


def _length(values) -> np.ndarray:
    """Bits of each whole number below 2**24."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)


def _signed(codes) -> np.ndarray:
    """0 .. 17: how many bits a code has, and its sign."""
    return _length(np.abs(codes)) * 2 - (codes < 0)


class _Recorder:
    """Keeps every decision with its probability; ANS writes the last one first."""

    def __init__(self):
        self.parts = []

    def bits(self, guess, wanted):
        wanted = np.asarray(wanted, np.int64)
        self.parts.append((wanted, guess))
        return wanted

    def all(self):
        if not self.parts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return tuple(np.concatenate(part) for part in zip(*self.parts, strict=True))


def cost_bytes(bits: np.ndarray, guess: np.ndarray) -> float:
    """What decisions take at these probabilities."""
    share = np.where(bits == 1, guess, 65536 - guess) / 65536
    return float(-np.log2(share).sum() / 8)
