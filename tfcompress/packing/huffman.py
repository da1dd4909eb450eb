"""Canonical Huffman codes (Huffman 1952; canonical form as in RFC 1951): only the lengths are stored."""

import heapq

import numpy as np

from tfcompress.packing import bits

LONGEST = 24


def code_lengths(counts) -> np.ndarray:
    """Bits of each symbol's code, 0 for a symbol that never comes; a single symbol has a code of 1 bit.

    >>> code_lengths([5, 1, 1, 0, 2]).tolist()
    [1, 3, 3, 0, 2]
    """
    counts = np.asarray(counts, np.int64)
    while True:
        lengths = _lengths(counts)
        if lengths.max(initial=0) <= LONGEST:
            return lengths
        counts = (counts + 1) // 2  # flatter counts, a flatter tree


def _lengths(counts) -> np.ndarray:
    lengths = np.zeros(len(counts), np.int64)
    heap = [(int(counts[i]), int(i), [int(i)]) for i in np.flatnonzero(counts)]
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        members = first[2] + second[2]
        lengths[members] += 1
        heapq.heappush(heap, (first[0] + second[0], min(first[1], second[1]), members))
    return lengths


def codes(lengths: np.ndarray) -> np.ndarray:
    """The canonical code of each symbol: shorter codes first, symbols in order among codes of one length.

    >>> [f"{code:b}" for code in codes(np.array([1, 3, 3, 0, 2]))]       # 0, 110, 111, -, 10
    ['0', '110', '111', '0', '10']
    """
    found, code = np.zeros(len(lengths), np.int64), 0
    for length in range(1, int(lengths.max(initial=0)) + 1):
        members = np.flatnonzero(lengths == length)
        code <<= 1
        found[members] = code + np.arange(len(members))
        code += len(members)
    return found


def check(lengths: np.ndarray) -> None:
    """ValueError unless `lengths` belong to a code in which no word begins another (Kraft 1949)."""
    used = lengths[lengths > 0]
    if not len(used) or used.max() > LONGEST or int((1 << (LONGEST - used)).sum()) > 1 << LONGEST:
        raise ValueError("code lengths that make no Huffman code")


def write(symbols: np.ndarray, lengths: np.ndarray) -> bytes:
    """The symbols' codes, one after the other."""
    return bits.write_codes(codes(lengths)[symbols], lengths[symbols])


def read(content: bytes, lengths: np.ndarray, count: int) -> np.ndarray:
    """The `count` symbols (int64) that `write` wrote; ValueError for damaged ones.

    >>> lengths = np.array([1, 3, 3, 0, 2])
    >>> read(write(np.array([4, 0, 2]), lengths), lengths, 3).tolist()       # 10 0 111
    [4, 0, 2]
    """
    check(lengths)
    order = np.lexsort((np.arange(len(lengths)), lengths))[np.count_nonzero(lengths == 0) :]
    firsts = codes(lengths)[order] << (LONGEST - lengths[order])  # in order: each code, followed by zeros
    padded = np.frombuffer(bytes(content) + bytes(4), np.uint8).astype(np.uint32)
    windows = padded[:-3] << 24 | padded[1:-2] << 16 | padded[2:-1] << 8 | padded[3:]
    places = np.arange(len(content) * 8)
    windows = windows[places // 8] << (places % 8).astype(np.uint32) >> np.uint32(32 - LONGEST)
    ranks = np.searchsorted(firsts, windows, side="right") - 1
    last = int(firsts[-1]) + (1 << (LONGEST - int(lengths[order[-1]])))
    starts = bits.walk(places + lengths[order][ranks], count)
    if count and (windows[starts] >= last).any():
        raise ValueError("bits that are no Huffman code")
    return order[ranks[starts]]
