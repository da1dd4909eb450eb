"""Which integers times which scale are these floats? Found again from the values alone, to a few roundings."""

import numpy as np

TOLERANCE = 5e-7  # relative, of every value: scale * code, and batch normalization folded into it, round 2 to 4 times
BITS = (2, 4, 8, 16)
_SAMPLE = 4096  # values that are looked at first
_ALONE = 128  # fractions of integers up to it are 1 / 128**2 apart: no two are the same to the tolerance


def grid(values, bits=8, tolerance=TOLERANCE):
    """``(codes, scale)`` with ``scale * codes == values``, or None where the values are on no such grid.

    Of all grids the coarsest, so the codes have no common divisor; of its scales the one that gives most values back
    bit by bit. Up to 8 bits there is one answer. Beyond, where several grids agree to ``tolerance``, it is the coarsest
    that gives all values back bit by bit, if any does.

    Args:
        values: floats, any shape; all zero gives codes 0 and scale 1.
        bits: codes are ``-2**(bits-1) .. 2**(bits-1) - 1``; at most 16.
        tolerance: largest ``|scale * code - value| / |value|``, in float32.

    Returns:
        int32 codes of the values' shape, and a float32 scale above 0.

    >>> codes, scale = grid(np.float32([0.3, -0.6, 0.0, 1.2]))
    >>> codes.tolist(), bool(scale == np.float32(0.3))
    ([1, -2, 0, 4], True)
    >>> grid(np.float32([1.0, 1.4142135, 1.7320508])) is None
    True
    """
    values = np.asarray(values, np.float32)
    size = np.abs(values).reshape(-1)
    largest = size.max(initial=0)
    if not np.isfinite(largest):
        return None
    if largest == 0:
        return np.zeros(values.shape, np.int32), np.float32(1)
    few = np.append(size[:: max(1, size.size // _SAMPLE)], largest)
    found = _fit(values, np.unique(few[few > 0]), bits, tolerance)
    if found is None and len(few) <= size.size and np.unique(few).size <= 2 ** (bits - 1) + 1:
        found = _fit(values, np.unique(size[size > 0]), bits, tolerance)  # the few may all be even codes
    return found


def _fit(values, levels, bits, tolerance):
    """The grid through ``levels``, distinct and ascending, if all ``values`` are on it."""
    top = 2 ** (bits - 1)
    if len(levels) > top:
        return None
    first = None
    for code in _codes_of_largest(levels.astype(np.float64), top, tolerance):
        steps = np.rint(levels.astype(np.float64) * code / levels[-1])
        scale = _best_scale(levels, steps.astype(np.float32))
        if scale < np.finfo(np.float32).tiny:
            continue
        codes = np.rint(values.astype(np.float64) / scale)
        if codes.min() < -top or codes.max() >= top:
            continue
        back = codes.astype(np.float32) * scale
        if np.all(np.abs(back.astype(np.float64) - values) <= tolerance * np.abs(values)):
            first = first or (codes.astype(np.int32), scale)
            if code <= _ALONE or np.array_equal(back, values):
                return codes.astype(np.int32), scale
    return first


def _codes_of_largest(levels, top, tolerance):
    """Codes, ascending, that the largest level may have so that every level gets an integer."""
    codes = np.arange(1.0, top + 1)
    picked = levels[np.unique(np.linspace(0, len(levels) - 1, 8).astype(int))]
    for part in (picked, levels):
        steps = part * codes[:, None] / levels[-1]
        codes = codes[np.all(np.abs(np.rint(steps) - steps) <= tolerance * steps, axis=1)][:64]
    return codes


def _best_scale(levels, steps):
    """The float32 scale that gives most levels back as they are; among equals, the one with the smallest error."""
    picked = np.unique(np.linspace(0, len(levels) - 1, 64).astype(int))
    middle = levels[picked] / steps[picked]
    scales = np.unique([np.nextafter(middle, np.float32(0)), middle, np.nextafter(middle, np.float32(np.inf))])
    error = np.abs(scales[:, None] * steps[picked] - levels[picked]) / levels[picked]
    order = np.lexsort((error.max(axis=1), (error > 0).sum(axis=1)))
    return scales[order[0]]


def width(codes):
    """The narrowest of 2, 4, 8 and 16 bits that holds the codes.

    >>> width(np.array([-2, 1])), width(np.array([2])), width(np.array([-8])), width(np.array([8, 200]))
    (2, 4, 4, 16)
    """
    low, high = (int(end) for end in (np.min(codes, initial=0), np.max(codes, initial=0)))
    return next(bits for bits in BITS if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1))


def rows(values, find):
    """``find`` of every row of a 2-D array, stacked: ``(codes, scales)``, or None at the first row that has none."""
    found = []
    for row in values:
        found.append(find(row))
        if found[-1] is None:
            return None
    return tuple(np.stack(part) for part in zip(*found, strict=True))
