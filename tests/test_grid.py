"""Integers and a scale found again from floats: planted ones, with the roundings that training and folding add."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcompress.conversion.build import pack
from tfcompress.conversion.forms import Codes, Half, Table, forms, table, two_slopes
from tfcompress.conversion.grid import grid, rows, width
from tfcompress.flatbuffer import _decode

SCALES = st.floats(2.0**-20, 1000, width=32)


@st.composite
def planted(draw, bits=(2, 4, 8, 16)):
    """Codes without a common divisor, of at most ``bits`` bits, and a scale."""
    half = 2 ** (draw(st.sampled_from(bits)) - 1)
    found = np.array(draw(st.lists(st.integers(-half, half - 1), min_size=1, max_size=60)))
    divisor = np.gcd.reduce(found)
    return found // divisor if divisor else found, np.float32(draw(SCALES))


@settings(max_examples=80, deadline=None)
@given(planted())
def test_planted_codes_come_back_bit_by_bit(case):
    wanted, scale = case
    values = wanted.astype(np.float32) * scale
    found, step = grid(values, bits=16)
    if width(wanted) <= 8:  # of 16 bits a coarser grid may give the same floats
        assert found.tolist() == wanted.tolist()
    assert np.array_equal(found.astype(np.float32) * step, values)


@settings(max_examples=80, deadline=None)
@given(planted((2, 4, 8)), SCALES, st.randoms(use_true_random=False))
def test_codes_survive_folding_and_an_ulp(case, factor, random):
    wanted, scale = case
    folded = wanted.astype(np.float32) * scale * np.float32(factor)
    ends = [np.float32(random.choice((-np.inf, np.inf))) for _ in folded]
    noisy = np.where(folded == 0, folded, np.nextafter(folded, np.array(ends)))
    found, step = grid(noisy)
    assert found.tolist() == wanted.tolist()
    np.testing.assert_allclose(found.astype(np.float32) * step, noisy, rtol=5e-7)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(20, 300))
def test_values_on_no_grid_have_none(seed, count):
    values = np.random.default_rng(seed).standard_normal(count).astype(np.float32)
    assert grid(values, 8) is None and grid(values, 16) is None


@pytest.mark.parametrize(
    ("values", "bits", "found"),
    [
        ([0, 0], 2, ([0, 0], 1)),  # nothing to scale
        ([7, 7], 2, ([1, 1], 7)),  # one level is always code 1
        ([-8], 2, ([-1], 8)),
        ([-6, 3], 2, ([-2, 1], 3)),
        ([6, 3], 2, None),  # int2 ends at 1
        ([-8, 1], 4, ([-8, 1], 1)),
        ([8, 1], 4, None),
        ([4, -8, 12], 8, ([1, -2, 3], 4)),  # no common divisor is left
        ([1, np.nan], 8, None),
        ([1, np.inf], 8, None),
        ([1, 128], 8, None),
        ([1, 2**0.5], 8, None),
    ],
)
def test_grids_by_eye(values, bits, found):
    got = grid(np.array(values, np.float32), bits)
    assert (got if got is None else (got[0].tolist(), float(got[1]))) == found


def test_a_value_one_part_in_a_million_off_is_on_no_grid():
    values = np.float32([1, 2, 3, 5]) * np.float32(0.37)
    assert grid(values) is not None
    values[3] *= np.float32(1 + 1e-6)
    assert grid(values) is None


def test_rare_odd_codes_are_not_missed():
    values = np.full(50_000, 2.0, np.float32)
    values[1], values[7] = 3.0, -4.0  # not among the few that are looked at first
    found, scale = grid(values)
    assert (found[0], found[1], found[7], scale) == (2, 3, -4, 1)


def test_every_row_its_scale_or_none():
    values = np.float32([[0.3, -0.3], [0, 0], [7, 14]])
    found, scales = rows(values, grid)
    assert found.tolist() == [[1, -1], [0, 0], [1, 2]] and scales.tolist() == [np.float32(0.3), 1, 7]
    assert rows(np.float32([[1, 2], [1, 1.1234567]]), lambda row: grid(row, 4)) is None


@settings(max_examples=40, deadline=None)
@given(st.sampled_from((2, 4, 8)), st.data())
def test_packed_codes_are_read_back(bits, data):
    half = 2 ** (bits - 1)
    wanted = data.draw(st.lists(st.integers(-half, half - 1), min_size=1, max_size=20))
    packed = pack(np.array(wanted), bits)
    assert len(packed) == -(-len(wanted) * bits // 8)
    assert _decode(packed, f"int{bits}", (len(wanted),)).tolist() == wanted
    assert width(np.array(wanted)) <= bits


def real(form):
    """What a form stands for, by plain arithmetic."""
    if isinstance(form, Half):
        return form.values.astype(np.float32)
    if isinstance(form, Table):
        places = form.indices.reshape(len(form.table), -1)
        return np.take_along_axis(form.table, places, 1).reshape(form.indices.shape)
    shape = [-1 if k == form.axis else 1 for k in range(form.codes.ndim)]
    values = form.codes.astype(np.float32) * form.scales.reshape(shape)
    return values if form.slopes is None else np.where(values < 0, values * form.slopes.reshape(shape), values)


def ternary(up, down, shape=(40, 50)):
    signs = np.random.default_rng(1).integers(-1, 2, shape)
    return np.where(signs > 0, np.float32(up), np.where(signs < 0, -np.float32(down), np.float32(0)))


def levels(count, shape=(40, 50), by_row=True):
    rng = np.random.default_rng(2)
    made = rng.standard_normal((shape[0] if by_row else 1, count)).astype(np.float32)
    return made[np.arange(shape[0])[:, None] if by_row else 0, rng.integers(0, count, shape)]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (ternary(0.1, 0.1), ["int2 codes", "int4 codes", "int8 codes"]),
        (ternary(0.7123, 0.31416), ["int2 codes with two slopes", "int4 codes with two slopes"]),
        (ternary(*np.random.default_rng(3).uniform(1, 2, (2, 40, 1))), ["int2 codes with two slopes"]),
        (levels(4), ["int2 indices into a table"]),
        (levels(16, (20, 100)), ["int4 indices into a table"]),
        (levels(16, by_row=False), ["int4 indices into a table"]),
        (levels(200, (60, 80), by_row=False), ["int8 indices into a table"]),
        (np.random.default_rng(4).standard_normal((40, 50)).astype(np.float16), ["float16"]),
        (np.arange(-1000, 1000).reshape(40, 50) * np.float32(0.017), ["int16 codes"]),
        (np.random.default_rng(4).standard_normal((40, 50)), []),
    ],
)
def test_the_best_form_and_its_values(values, names):
    values = np.asarray(values, np.float32)
    found = forms(values)
    assert [str(form) for form in found][: len(names)] == names and bool(found) == bool(names)
    for form in found:
        tolerance = 5e-7 if isinstance(form, Codes) else 0
        np.testing.assert_allclose(real(form), values, rtol=tolerance)


def test_fast_forms_are_8_bit_codes_and_float16():
    assert [str(form) for form in forms(ternary(0.5, 0.5), fast=True)] == ["int8 codes", "float16"]
    assert forms(levels(4), fast=True) == []


def test_forms_of_one_sided_rows():
    values = np.float32([[0.3, 0.3, 0, 0.3], [-0.7, 0, -0.7, 0], [0.5, -0.123, 0.5, -0.123], [0, 0, 0, 0]])
    found = two_slopes(values)
    assert found.codes.tolist() == [[1, 1, 0, 1], [-1, 0, -1, 0], [1, -1, 1, -1], [0, 0, 0, 0]]
    assert np.array_equal(real(found), values)
    assert np.array_equal(real(table(values)), values)
