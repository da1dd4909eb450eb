"""Randomised SVD and UTV: exact where the rank fits, near the optimum elsewhere, and they reveal the rank."""

import numpy as np
import pytest

from tfcompress.lowrank.randomized import leading_svd, randomized_utv, revealed_rank, sor_svd

SHAPES = [(400, 300), (300, 400), (120, 120)]
both_ways = pytest.mark.parametrize("shape", SHAPES, ids=str)


def with_spectrum(shape, s, seed=0):
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.standard_normal((side, len(s))))[0] for side in shape)
    return u * s @ v.T


def gapped(shape, seed=0):
    """20 values from 10 to 5, then a flat tail 20 times below."""
    return with_spectrum(shape, np.r_[np.linspace(10, 5, 20), np.linspace(0.25, 0.1, 80)], seed)


def off_orthonormal(u):
    return np.abs(u.T @ u - np.eye(u.shape[1])).max(initial=0)


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@both_ways
@pytest.mark.parametrize("power", [0, 1, 2])
def test_a_matrix_of_that_rank_is_recovered(shape, power):
    a = with_spectrum(shape, np.linspace(9, 1, 20))
    u, s, vt = sor_svd(a, 20, power=power)
    assert relative(u * s @ vt, a) < 1e-10 and np.allclose(s, np.linspace(9, 1, 20), rtol=1e-10)
    u, t, vt = randomized_utv(a, 20, power=power)
    assert relative(u @ t @ vt, a) < 1e-10


@both_ways
@pytest.mark.parametrize("seed", range(3))
def test_one_pass_more_comes_near_the_optimum_where_the_spectrum_has_a_gap(shape, seed):
    a = gapped(shape, seed)
    best = np.linalg.norm(np.linalg.svd(a, compute_uv=False)[20:])
    errors = []
    for power in (0, 1, 2):
        u, s, vt = sor_svd(a, 20, power=power, seed=seed)
        errors.append(np.linalg.norm(a - u * s @ vt))
        u, t, vt = randomized_utv(a, 20, power=power, seed=seed)
        assert power == 0 or np.linalg.norm(a - u @ t @ vt) <= 1.05 * best
    assert errors[1] <= 1.05 * best and errors[2] <= 1.05 * best and best * (1 - 1e-12) <= errors[2] <= errors[0]


@both_ways
@pytest.mark.parametrize("rank", [1, 20, 119, 1000])
def test_factors_are_orthonormal_and_fall(shape, rank):
    a = np.random.default_rng(1).standard_normal(shape)
    kept = min(rank, *shape)
    u, s, vt = sor_svd(a, rank)
    assert u.shape == (shape[0], kept) and s.shape == (kept,) and vt.shape == (kept, shape[1])
    assert off_orthonormal(u) < 1e-12 and off_orthonormal(vt.T) < 1e-12 and (np.diff(s) <= 0).all()
    u, t, vt = randomized_utv(a, rank)
    assert u.shape == (shape[0], kept) and t.shape == (kept, kept) and vt.shape == (kept, shape[1])
    assert off_orthonormal(u) < 1e-12 and off_orthonormal(vt.T) < 1e-12
    assert not np.tril(t, -1).any() and (np.diff(np.diag(t)) <= 1e-12 * t[0, 0]).all() and (np.diag(t) >= 0).all()


@both_ways
def test_all_values_make_the_whole_matrix(shape):
    a = np.random.default_rng(2).standard_normal(shape)
    u, s, vt = sor_svd(a, min(shape))
    assert relative(u * s @ vt, a) < 1e-12 and np.allclose(s, np.linalg.svd(a, compute_uv=False), rtol=1e-10)
    u, t, vt = randomized_utv(a, min(shape))
    assert relative(u @ t @ vt, a) < 1e-12


def test_small_values_survive_the_passes():
    wanted = 10.0 ** -np.arange(0, 9)
    a = with_spectrum((200, 150), wanted)
    for found in (sor_svd(a, 9, power=2)[1], np.diag(randomized_utv(a, 9, power=2)[1])):
        assert np.allclose(found, wanted, rtol=1e-2)
    assert np.allclose(sor_svd(a, 9, power=2)[1], wanted, rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("planted", [1, 7, 20])
def test_the_triangle_reveals_the_planted_rank(planted, seed):
    rng = np.random.default_rng(seed)
    a = with_spectrum((200, 150), np.linspace(2, 1, planted), seed)
    noisy = a + 2e-3 * rng.standard_normal(a.shape)              # norm of the noise: 0.05
    _, t, _ = randomized_utv(noisy, planted + 15, seed=seed)
    assert revealed_rank(t) == planted
    assert revealed_rank(randomized_utv(a, planted + 15, seed=seed)[1]) == planted
    s = np.linalg.svd(noisy, compute_uv=False)
    assert 0.5 < np.diag(t)[planted - 1] / s[planted - 1] < 2 and np.diag(t)[planted] / s[planted] < 2


def test_what_rank_a_diagonal_shows():
    assert revealed_rank(np.diag([9.0, 1.0, 0.95, 1e-13])) == 3         # the largest fall that is none is a zero
    assert revealed_rank(np.diag([100.0, 5.0, 4.0, 0.01])) == 3         # the largest, not the first
    assert revealed_rank(np.diag([9.0, 1.0]), gap=0.2) == 1 and revealed_rank(np.diag([9.0, 1.0]), gap=0.1) == 2
    assert revealed_rank(np.zeros((3, 3))) == 0 and revealed_rank([[2.0]]) == 1


def test_a_start_is_improved_upon():
    rng = np.random.default_rng(4)
    a = rng.standard_normal((90, 70))
    for power in (0, 1, 2):
        start = np.linalg.qr(rng.standard_normal((70, 6)))[0].T
        u, s, vt = sor_svd(a, 6, power=power, start=start)
        assert np.linalg.norm(a - u * s @ vt) <= np.linalg.norm(a - a @ start.T @ start)
    exact = np.linalg.svd(a)[2][:6]
    u, s, vt = sor_svd(a, 6, power=0, oversample=0, start=exact)
    assert np.allclose(s, np.linalg.svd(a, compute_uv=False)[:6], rtol=1e-12)


def test_the_same_seed_gives_the_same_and_the_input_stays():
    a = gapped((120, 130))
    before = a.copy()
    for function in (sor_svd, randomized_utv):
        first, second, other = (function(a, 5, power=0, seed=seed) for seed in (3, 3, 4))
        assert all(np.array_equal(x, y) for x, y in zip(first, second, strict=True))
        assert not np.array_equal(first[0], other[0])
    assert np.array_equal(a, before)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "bool"])
def test_any_real_type_is_computed_in_float64(dtype):
    a = (np.random.default_rng(0).standard_normal((30, 20)) * 3).astype(dtype)
    parts = sor_svd(a, 20)
    assert all(part.dtype == "float64" for part in parts)
    assert np.allclose(parts[0] * parts[1] @ parts[2], a.astype("float64"), atol=1e-10)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 3)])
@pytest.mark.parametrize("value", [0.0, 2.5])
@pytest.mark.parametrize("rank", [0, 1, 50])
def test_constants_zeros_and_vectors(shape, value, rank):
    a = np.full(shape, value)
    u, s, vt = sor_svd(a, rank)
    assert np.allclose(u * s @ vt, a if rank else 0, atol=1e-12) and off_orthonormal(u) < 1e-12
    u, t, vt = randomized_utv(a, rank)
    assert np.allclose(u @ t @ vt, a if rank else 0, atol=1e-12) and off_orthonormal(vt.T) < 1e-12
    assert not rank or revealed_rank(t) == int(value > 0)


@both_ways
def test_leading_svd_is_the_truncated_svd(shape):
    a = gapped(shape)
    u, s, vt = np.linalg.svd(a)
    wanted = u[:, :20] * s[:20] @ vt[:20]
    for rank in (0, 20, min(shape)):
        assert leading_svd(a, rank)[1].shape == (rank,)
    u, s, vt = leading_svd(a, 20)
    assert relative(u * s @ vt, wanted) < 1e-5
    u, s, vt = leading_svd(a[:60, :60], 20)
    full = np.linalg.svd(a[:60, :60], full_matrices=False)
    assert np.array_equal(u, full[0][:, :20]) and np.array_equal(s, full[1][:20])


@pytest.mark.parametrize("function", [sor_svd, randomized_utv])
@pytest.mark.parametrize("a, words", [
    (np.zeros(4), "real matrix"), (np.zeros((2, 2, 2)), "real matrix"), (np.zeros((0, 3)), "at least one row"),
    (np.array([[1j]]), "complex"), (np.array([["a"]]), "real matrix"), ([[np.nan, 1.0]], "1 NaN or infinite"),
    ([[np.inf, np.nan]], "2 NaN or infinite"),
])  # fmt: skip
def test_bad_matrices(function, a, words):
    with pytest.raises(ValueError, match=words):
        function(a, 1)


@pytest.mark.parametrize("rank", [-1, 1.5, None, "2"])
def test_bad_ranks(rank):
    with pytest.raises(ValueError, match="whole number from 0 on"):
        sor_svd(np.eye(3), rank)
