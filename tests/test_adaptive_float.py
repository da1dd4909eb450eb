"""Adaptive floats: half precision and bfloat16 bit for bit, and the format's own rules."""

import itertools

import ml_dtypes
import numpy as np
import pytest

from tfcompress.quantization.adaptive_float import AdaptiveFloat, rounded


def quantized(x, e, m, emax=None):
    return np.array(AdaptiveFloat(e, m, emax).apply(np.asarray(x, "float32"), {}))


def all_values(e, m, emax):
    """Every number of the format, by its definition."""
    values = [2.0 ** (emax - (2**e - 2)) * mantissa / 2**m for mantissa in range(2**m)]
    values += [2.0 ** (emax - (2**e - 1) + code) * (1 + mantissa / 2**m)
               for code in range(1, 2**e) for mantissa in range(2**m)]
    return np.array(sorted({sign * v for v in values for sign in (1, -1)}))


def bits(x, dtype):
    return np.asarray(x).astype(dtype).view("uint16")


def test_five_ten_is_half_precision_bit_for_bit():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(250_000) * 2.0 ** rng.uniform(-28, 15, 250_000)
    x = np.concatenate([x[np.abs(x) < 65504], np.arange(65536, dtype="uint16").view("float16")])
    x = x[np.isfinite(x)].astype("float32")
    x = np.concatenate([x, np.nextafter(x, np.float32(0))])
    found = rounded(x, 5, 10, np.float64(2.0**16))
    assert (np.abs(x) < 2.0**-14).sum() > 50_000                             # subnormals are among them
    np.testing.assert_array_equal(bits(found, "float16"), bits(x, "float16"))
    np.testing.assert_array_equal(quantized(x, 5, 10, emax=16), x.astype("float16").astype("float32"))


def test_eight_seven_is_bfloat16_bit_for_bit():
    x = np.random.default_rng(0).integers(0, 2**32, 300_000, "uint32").view("float32")
    x = x[np.isfinite(x) & (np.abs(x) < 3.38e38) & (np.abs(x) >= np.finfo("float32").tiny)]
    assert len(x) > 250_000
    found = rounded(x, 8, 7, np.float64(2.0**128))
    np.testing.assert_array_equal(bits(found, ml_dtypes.bfloat16), bits(x, ml_dtypes.bfloat16))
    np.testing.assert_array_equal(quantized(x, 8, 7, emax=128), x.astype(ml_dtypes.bfloat16).astype("float32"))


@pytest.mark.parametrize(("e", "m"), [em for em in itertools.product(range(5), range(5)) if sum(em)])
def test_the_nearest_number_of_the_format(e, m):
    x = np.random.default_rng(e).standard_normal(3000).astype("float32") * 2
    grid = all_values(e, m, 1)
    found = quantized(x, e, m, emax=1)
    assert set(found) <= set(grid) and len(grid) <= 2 ** (1 + e + m)
    np.testing.assert_array_equal(np.abs(found - x), np.abs(grid[:, None] - x).min(0).astype("float32"))
    inside = np.abs(x) <= grid[-1]
    ulp = np.maximum(2.0 ** np.floor(np.log2(np.abs(x))), 2.0 ** (1 - (2**e - 2))) * 2.0**-m
    assert (np.abs(found - x)[inside] <= ulp[inside] / 2).all()
    np.testing.assert_array_equal(quantized(found, e, m, emax=1), found)


def test_fixed_point_powers_of_two_and_ties():
    x = np.array([0.0, 0.125, 0.375, 0.6, -0.9, 5.0])
    assert quantized(x, 0, 2, emax=-1).tolist() == [0.0, 0.0, 0.5, 0.5, -0.75, 0.75]       # 1/4 apart; ties to even
    assert quantized([0.2, 0.25, 0.3, 3.0, -5.9, 99.0], 3, 0, emax=3).tolist() == [0.25, 0.25, 0.25, 4.0, -4.0, 8.0]
    assert quantized([0.4, -0.6, 3.0], 1, 0, emax=0).tolist() == [0.0, -1.0, 1.0]          # ternary


@pytest.mark.parametrize("scale", [1.0, 0.999, 1e-30, 1e30])
@pytest.mark.parametrize(("e", "m"), [(0, 3), (2, 0), (1, 1), (3, 4), (4, 3)])
def test_the_exponent_is_the_best_near_the_largest_weight_and_stays(e, m, scale):
    w = np.random.default_rng(m).standard_normal(4000).astype("float32") * np.float32(scale)
    exponent = int(np.floor(np.log2(np.abs(w).max().astype("float64"))))

    def error(emax):
        return np.mean(((quantized(w, e, m, emax) - w) / np.float64(scale)) ** 2)

    found = quantized(w, e, m)
    assert error(None) == min(error(exponent + offset) for offset in (-2, -1, 0, 1))
    np.testing.assert_array_equal(quantized(found, e, m), found)


def test_a_number_above_the_largest_rounds_up_to_the_next_exponent():
    w = np.full((2, 2), 1.99, "float32")
    np.testing.assert_array_equal(quantized(w, 2, 1), 2.0)                   # emax 1; with emax 0 it would be 1.5
    assert float(rounded(w, 2, 1, np.float64(1.0))[0, 0]) == 1.5


@pytest.mark.parametrize("bad", [(0, 0), (9, 2), (-1, 3), (2, 24), (2.0, 1)], ids=str)
def test_bits_out_of_range(bad):
    with pytest.raises(ValueError, match="Received"):
        AdaptiveFloat(*bad)
