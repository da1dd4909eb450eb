"""Asymmetric numeral systems (Duda 2013): symbols at their entropy, by `constriction`; frequencies are whole numbers.

The stream is that of `constriction.stream.stack.AnsCoder`: a state of 64 bits, words of 32 (little-endian here),
probabilities in units of 2**-24. `unpack.c` reads the same.
"""

import constriction
import numpy as np

TOTAL = 2**24
MOST_SYMBOLS = 4096
BLOCK = 2**22  # symbols that one coder takes


def frequencies(counts) -> np.ndarray:
    """Whole numbers of 1 or more, in proportion to `counts`, that sum to 2**24; the most frequent takes the rest.

    >>> frequencies([3, 1]).tolist()
    [12582912, 4194304]
    """
    counts = np.asarray(counts, np.uint64)
    found = 1 + counts * np.uint64(TOTAL - len(counts)) // np.maximum(counts.sum(), np.uint64(1))
    found = found.astype(np.int64)
    found[np.argmax(counts)] += TOTAL - found.sum()
    return found


def rounded(counts) -> np.ndarray:
    """One byte for each count: exact below 8, else three bits behind the first one, and how far they are shifted.

    >>> rounded([0, 7, 8, 16, 18, 1000]).tolist()
    [0, 7, 8, 16, 17, 64]
    >>> counts_of(rounded([0, 7, 8, 16, 18, 1000])).tolist()
    [0, 7, 8, 16, 18, 1024]
    """
    counts = np.asarray(counts, np.int64)
    shift = np.maximum(np.floor(np.log2(np.maximum(counts, 1))).astype(np.int64) - 3, 0)
    counts = (counts + (1 << shift) // 2) >> shift
    return (8 * shift + counts).astype(np.uint8)


def counts_of(codes) -> np.ndarray:
    """The counts that bytes of `rounded` stand for."""
    codes = np.asarray(codes, np.int64)
    shift = np.maximum(codes // 8 - 1, 0)
    return np.where(codes < 16, codes, (8 + codes % 8) << shift)


def bits(counts, frequency) -> float:
    """Bits that symbols with these `counts` take, without the state of the coder (at most 8 bytes a block)."""
    counts = np.asarray(counts, np.float64)
    return float((counts * (24 - np.log2(frequency))).sum())


def _model(frequency):
    # constriction gives symbol i the interval floor(sum of what is before) + i: with one less each, ours exactly
    return constriction.stream.model.Categorical((frequency - 1).astype(np.float64), perfect=False)


def write(symbols: np.ndarray, frequency: np.ndarray) -> list[bytes]:
    """The symbols, one coder for each 2**22 of them."""
    model, blocks = _model(frequency), []
    for first in range(0, len(symbols), BLOCK):
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(symbols[first : first + BLOCK].astype(np.int32), model)
        blocks.append(coder.get_compressed().astype("<u4").tobytes())
    return blocks


def read(block: bytes, frequency: np.ndarray, count: int) -> np.ndarray:
    """The `count` symbols (int32) of one block; ValueError where it can't be what `write` gave.

    >>> frequency = frequencies([5, 1, 2])
    >>> symbols = np.array([0, 0, 2, 1, 0, 0, 2, 0])
    >>> read(*write(symbols, frequency), frequency, 8).tolist() == symbols.tolist()
    True
    """
    words = np.frombuffer(block, "<u4").astype(np.uint32)
    if len(words) and not words[-1]:
        raise ValueError("an ANS stream that ends in a zero")
    coder = constriction.stream.stack.AnsCoder(words)
    symbols = coder.decode(_model(frequency), count)
    if not coder.is_empty():
        raise ValueError("an ANS stream with something left over")
    return symbols


def write_bits(flags: np.ndarray, guess: np.ndarray) -> bytes:
    """Bits, each of which is 1 with probability `guess` / 65536, by one coder."""
    coder = constriction.stream.stack.AnsCoder()
    if len(flags):
        coder.encode_reverse(flags.astype(np.int32), _uneven(), _chances(guess))
    return coder.get_compressed().astype("<u4").tobytes()


class Bits:
    """Reads what `write_bits` wrote, as many at a time as their probabilities are known.

    >>> bits = Bits(write_bits(np.array([0, 0, 1]), np.array([100, 200, 60000])))
    >>> bits.bits(np.array([100, 200])).tolist(), bits.bits(np.array([60000])).tolist()
    ([0, 0], [1])
    """

    def __init__(self, content: bytes):
        words = np.frombuffer(content, "<u4").astype(np.uint32)
        if len(words) and not words[-1]:
            raise ValueError("an ANS stream that ends in a zero")
        self._coder = constriction.stream.stack.AnsCoder(words)

    def bits(self, guess: np.ndarray, wanted: None = None) -> np.ndarray:
        """The next bits (int32)."""
        return self._coder.decode(_uneven(), _chances(guess))


def _uneven():
    return constriction.stream.model.Categorical(perfect=False)


def _chances(guess):
    ones = np.asarray(guess, np.float64) * 256
    return np.stack([TOTAL - ones - 1, ones - 1], axis=1)
