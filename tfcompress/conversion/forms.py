"""The ways to store a float tensor in fewer bytes without changing it: integers, two slopes, a table, float16."""

import math
from dataclasses import dataclass, replace

import numpy as np

from tfcompress.conversion.grid import TOLERANCE, grid, rows, width

_AROUND = {"codes": 250, "slopes": 510, "table": 730}  # bytes of the operations and tensors that come with it, measured
_MOST, _SAMPLE = 256, 4096  # entries of a table's row; values that are counted first


@dataclass(frozen=True, eq=False)
class Codes:
    """``scale * code``: a DEQUANTIZE of 2, 4, 8 or 16-bit integers.

    ``scales`` has one entry, or one for each index of ``axis``. With ``slopes``, as many as scales, a negative value
    is multiplied by its slope (PRELU): trained ternary, whose ``-Wn`` and ``+Wp`` differ, is the codes -1, 0, 1.
    """

    codes: np.ndarray
    scales: np.ndarray
    axis: int
    bits: int
    slopes: np.ndarray | None = None

    @property
    def size(self):
        """Bytes in the file: packed codes, 4 of a float32 scale and 8 of an int64 zero point each, 4 for a slope."""
        each, around = (12, _AROUND["codes"]) if self.slopes is None else (16, _AROUND["slopes"])
        return math.ceil(self.codes.size * self.bits / 8) + each * len(self.scales) + around

    def __str__(self):
        return f"int{self.bits} codes" + ("" if self.slopes is None else " with two slopes")


@dataclass(frozen=True, eq=False)
class Table:
    """``table[row, index]``: a GATHER of any values by 2, 4 or 8-bit indices; one row, or one for each first index."""

    indices: np.ndarray
    table: np.ndarray
    bits: int

    @property
    def size(self):
        return math.ceil(self.indices.size * self.bits / 8) + self.table.nbytes + _AROUND["table"]

    def __str__(self):
        return f"int{self.bits} indices into a table"


@dataclass(frozen=True, eq=False)
class Half:
    """Values that are float16 numbers already."""

    values: np.ndarray

    @property
    def size(self):
        return self.values.nbytes + _AROUND["codes"]

    def __str__(self):
        return "float16"


def forms(values, fast=False):
    """The exact forms of a float32 tensor of two or more axes that make the file smaller, the preferred one first.

    Integers come first: DEQUANTIZE of a constant runs once. Two slopes cost a multiplication a weight and run, a table
    a look-up, so a table is for what has neither codes nor slopes. Every form is followed by its wider ones, for
    runtimes that lack the narrow one.

    Args:
        fast: only forms that XNNPACK unpacks when the file is loaded, so that it runs as fast as a float32 file:
            8-bit codes and float16.
    """
    values = np.asarray(values, np.float32)
    made = _fast(values) if fast else _all(values)
    return [form for form in made if form.size < values.nbytes]


def _fast(values):
    found = codes(values)
    return ([replace(found, bits=8)] if found else []) + _half(values)


def _all(values):
    found = codes(values)
    sloped = two_slopes(values) if found is None or found.bits == 8 else None
    whole = sorted((form for form in (found, sloped) if form), key=lambda form: form.size)
    rest = _half(values) if whole else [table(values), *_half(values), *_sixteen(values)]
    rest = sorted((form for form in rest if form), key=lambda form: form.size)
    return [replace(form, bits=bits) for form in whole for bits in (2, 4, 8) if bits >= form.bits] + rest


def codes(values):
    """The smallest ``Codes`` of at most 8 bits: one scale, one for each first index, or one for each last; or None.

    >>> w = np.float32([[1, 0, -1, 1], [0.25, 0.25, 0.5, 0.0]])
    >>> found = codes(w)
    >>> found.codes.tolist(), found.scales.tolist(), found.bits
    ([[4, 0, -4, 4], [1, 1, 2, 0]], [0.25], 4)
    """
    found = grid(values)
    made = [] if found is None else [Codes(found[0], found[1].reshape(1), 0, width(found[0]))]
    for axis in (0, values.ndim - 1):
        found = rows(_by(values, axis), grid)
        if found is not None:
            made.append(Codes(_back(found[0], values, axis), found[1], axis, width(found[0])))
    return min(made, key=lambda form: form.size, default=None)


def two_slopes(values):
    """``Codes`` with slopes, of at most 4 bits: a grid for the positive and one for the negative values; or None.

    >>> found = two_slopes(np.float32([[0.7, 0, -0.3, 0.7], [-0.3, 0.7, 0, 0]]))
    >>> found.codes.tolist(), found.scales.tolist(), (found.slopes * found.scales).round(6).tolist()
    ([[1, 0, -1, 1], [-1, 1, 0, 0]], [0.699999988079071], [0.30000001192092896])
    """
    found = _two_sided(values.reshape(-1))
    made = [] if found is None else [Codes(found[0].reshape(values.shape), *_ends(found[1:], 0))]
    for axis in (0, values.ndim - 1):
        found = rows(_by(values, axis), _two_sided)
        if found is not None:
            made.append(Codes(_back(found[0], values, axis), *_ends(found[1:], axis)))
    made = [replace(form, bits=width(form.codes)) for form in made]
    return min(made, key=lambda form: form.size, default=None)


def _ends(parts, axis):
    scales, slopes = (np.atleast_1d(part) for part in parts)
    return scales, axis, 8, slopes


def _two_sided(values):
    """Codes, the scale of the positive ones, and by what a negative value is multiplied then."""
    up, down = grid(np.maximum(values, 0), 4), grid(np.minimum(values, 0), 4)
    if up is None or down is None:
        return None
    scale, slope = up[1], np.float32(1)
    if not up[0].any():
        scale = down[1]
    elif down[0].any():
        level, step = values.min(), down[0].min().astype(np.float32) * scale
        slopes = np.float32(level / step)
        slopes = np.array([np.nextafter(slopes, np.float32(0)), slopes, np.nextafter(slopes, np.float32(np.inf))])
        slope = slopes[np.argmin(np.abs(slopes * step - level))]
    codes = up[0] + down[0]
    real = codes.astype(np.float32) * scale
    real = np.where(real < 0, real * slope, real)
    return (codes, scale, slope) if np.all(np.abs(real - values) <= TOLERANCE * np.abs(values)) else None


def table(values):
    """The smallest ``Table`` of at most 256 values, for the whole tensor or for each first index; or None.

    >>> found = table(np.float32([[0.1, 0.2, 0.2], [7, 5, 5]]))
    >>> found.indices.tolist(), found.table.tolist(), found.bits
    ([[0, 1, 1], [3, 2, 2]], [[0.10000000149011612, 0.20000000298023224, 5.0, 7.0]], 2)
    """
    made = [_table(values.reshape(1, -1), values.shape), _table(values.reshape(values.shape[0], -1), values.shape)]
    return min((form for form in made if form), key=lambda form: form.size, default=None)


def _table(by_row, shape):
    if not np.isfinite(by_row).all():
        return None
    levels = []
    for row in by_row:
        if np.unique(row[:_SAMPLE]).size > _MOST:
            return None
        levels.append(np.unique(row))
    count = max(level.size for level in levels)
    if count > _MOST:
        return None
    indices = np.stack([np.searchsorted(level, row) for level, row in zip(levels, by_row, strict=True)])
    filled = np.stack([np.pad(level, (0, count - level.size), mode="edge") for level in levels])
    bits = next(bits for bits in (2, 4, 8) if count <= 2**bits)
    return Table(indices.reshape(shape).astype(np.int32), filled, bits)


def _half(values):
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return [Half(half)] if np.array_equal(half.astype(np.float32), values) else []


def _sixteen(values):
    found = grid(values, 16)
    return [] if found is None else [Codes(found[0], found[1].reshape(1), 0, 16)]


def _by(values, axis):
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def _back(by_row, values, axis):
    moved = np.moveaxis(values, axis, 0).shape
    return np.moveaxis(by_row.reshape(moved), 0, axis)
