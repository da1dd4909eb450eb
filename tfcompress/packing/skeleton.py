"""What is left of a `.tflite` without its weights (graph, names, scales), byte by byte from what stood before."""

import functools
from pathlib import Path

from tfcompress.packing.mixing import Encoder, Mixer

INPUTS, TABLE_BITS, MIXED_MOST = 10, 16, 24_000  # bytes above that go to LZMA: Python mixes some 10 kB a second
_BASES = [i << TABLE_BITS for i in range(INPUTS - 1)]  # each context has its own part of the table: no need to salt it
_LONGEST, _SHORTEST = 32, 5  # of a match


class Bytes:
    """A model of bytes in rows of four: the last one to six, those above them, and where the same stood before."""

    def __init__(self):
        self.mixer = Mixer(INPUTS, 4 * 3 * 8, TABLE_BITS, limit=60, rate=14)
        self.past = bytearray(16)
        self.seen = {}
        self.match = 0  # where the byte stands that followed the same bytes, 0: nowhere
        self.length = 0

    def copy(self) -> "Bytes":
        """Another one that knows as much."""
        twin = Bytes.__new__(Bytes)
        twin.__dict__.update(self.__dict__, mixer=self.mixer.copy(), past=self.past[:], seen=dict(self.seen))
        return twin

    def code(self, coder, content: bytes | None, count: int, column: int = 0) -> bytes:
        """`count` bytes through an Encoder (`content` given) or a Decoder; the first stands in `column` 0 .. 3."""
        first = len(self.past)
        for i in range(count):
            self._byte(coder, None if content is None else content[i], (column + i) & 3)
        return bytes(self.past[first:])

    def _byte(self, coder, byte, column):
        past, mixer = self.past, self.mixer
        hashes = self._hashes(column)
        expected = past[self.match] if self.length else 0
        length = min(self.length, 15)
        node = 1
        for place in range(7, -1, -1):
            salt = node * 0x2545F491
            slots = [base | (h + salt & 0xFFFFFFFF) >> 32 - TABLE_BITS for base, h in zip(_BASES, hashes, strict=True)]
            agrees = length and (expected | 256) >> place + 1 == node
            known = 1 + 2 * length + (expected >> place & 1) if agrees else 0
            slots.append((INPUTS - 1) << TABLE_BITS | known)
            state = 0 if not agrees else 1 if length < 8 else 2
            bit = None if byte is None else byte >> place & 1
            node = node << 1 | mixer.code(coder, slots, (state << 2 | column) << 3 | place, bit)
        past.append(node & 255)
        self._find()

    def _hashes(self, column):
        past = self.past
        one, two, three, four = past[-1], past[-2], past[-3], past[-4]
        last = one | two << 8 | three << 16 | four << 24
        hashes = (
            column,
            one << 2 | column,
            last & 0xFFFF,
            last & 0xFFFFFF,
            last,
            last * 31 + past[-5] + (past[-6] << 8),
            four << 10 | past[-8] << 2 | column,
            (four | one << 8 | two << 16) << 2 | column,
            (four | past[-8] << 8 | past[-12] << 16) << 2 | column,
        )
        return [(h + 1) * 0x85EBCA6B & 0xFFFFFFFF for h in hashes]

    def _find(self):
        past = self.past
        if self.length and past[self.match] == past[-1]:
            self.match += 1
            self.length = min(self.length + 1, _LONGEST)
        else:
            self.length = 0
        key = bytes(past[-_SHORTEST:])
        if not self.length:
            self.match = self.seen.get(key, 0)
            if self.match:
                self.length = 1
                most = min(_LONGEST, self.match)
                while self.length < most and past[self.match - 1 - self.length] == past[-1 - self.length]:
                    self.length += 1
        self.seen[key] = len(past)


def primed() -> Bytes:
    """A model that has read the skeleton of a small int8 net (`primer.bin`), as that in `unpack.c` has."""
    return _primed().copy()


@functools.cache
def _primed() -> Bytes:
    model, primer = Bytes(), Path(__file__).with_name("primer.bin").read_bytes()
    model.code(Encoder(), primer, len(primer))
    return model
