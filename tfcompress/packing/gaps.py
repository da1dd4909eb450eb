"""Sparse symbols as the zeros between two others: gaps and values (Han 2015, Deep Compression)."""

import numpy as np


def split(codes: np.ndarray, zero: int) -> tuple[np.ndarray, np.ndarray]:
    """How many zeros stand before each other symbol, and that symbol. Zeros at the end need no gap.

    >>> gaps, values = split(np.array([0, 0, 3, 1, 0, 2, 0]), zero=0)
    >>> gaps.tolist(), values.tolist()
    ([2, 0, 1], [3, 1, 2])
    """
    places = np.flatnonzero(codes != zero)
    return np.diff(places, prepend=-1) - 1, codes[places]


def with_fillers(gaps: np.ndarray, values: np.ndarray, zero: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The same with no gap above `2**bits - 1`: longer ones are cut by a zero that is written as a value.

    >>> gaps, values = with_fillers(np.array([9, 1]), np.array([5, 6]), zero=0, bits=2)
    >>> gaps.tolist(), values.tolist()       # 3 zeros + a written one, 3 + one, then 1 before the 5
    ([3, 3, 1, 1], [0, 0, 5, 6])
    """
    ends = np.cumsum(1 + (gaps >> bits)) - 1
    cut = np.full(int(ends[-1]) + 1 if len(ends) else 0, 2**bits - 1, np.int64)
    filled = np.full(len(cut), zero, values.dtype)
    cut[ends], filled[ends] = gaps & (2**bits - 1), values
    return cut, filled


def join(gaps: np.ndarray, values: np.ndarray, zero: int, count: int) -> np.ndarray:
    """The `count` symbols of which `split` or `with_fillers` gave gaps and values; ValueError if they don't fit."""
    places = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if len(places) and places[-1] >= count:
        raise ValueError("gaps that are longer than the tensor")
    codes = np.full(count, zero, np.uint16)
    codes[places] = values
    return codes
