"""Principal component pursuit: planted parts come back, by either SVD, and it never stops silently."""

import numpy as np
import pytest

from tfcompress.lowrank.robust_pca import principal_component_pursuit, soft

each_svd = pytest.mark.parametrize("svd", ["randomized", "full"])
CASES = [((100, 100), 5, 0.05), ((200, 200), 10, 0.10), ((300, 150), 8, 0.05), ((150, 300), 8, 0.10)]


def planted(shape, rank, share, seed=0):
    rng = np.random.default_rng(seed)
    low = rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))
    return low, np.where(rng.random(shape) < share, rng.choice([-1.0, 1.0], shape), 0)


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@each_svd
@pytest.mark.parametrize("shape, rank, share", CASES, ids=str)
def test_planted_parts_come_back(shape, rank, share, svd):
    low, sparse = planted(shape, rank, share)
    parts = principal_component_pursuit(low + sparse, svd=svd)
    assert relative(parts.low_rank, low) < 1e-5 and relative(parts.sparse, sparse) < 1e-5
    assert parts.rank == rank and np.array_equal(parts.sparse != 0, sparse != 0)
    assert relative(parts.low_rank + parts.sparse, low + sparse) <= 1e-7 and parts.iterations < 40
    assert np.allclose(parts.u.T @ parts.u, np.eye(rank), atol=1e-12) and (np.diff(parts.s) <= 0).all()
    assert np.allclose(parts.vt @ parts.vt.T, np.eye(rank), atol=1e-12)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("shape, rank, share", [((60, 90), 2, 0.05), ((100, 100), 5, 0.1)], ids=str)
def test_no_wrong_split_freezes(shape, rank, share, seed):
    """``mu`` growing at every iteration fails on 1 of the first and 2 of the second twelve, by up to 5 %."""
    low, sparse = planted(shape, rank, share, seed)
    parts = principal_component_pursuit(low + sparse)
    assert relative(parts.low_rank, low) < 1e-5 and relative(parts.sparse, sparse) < 1e-5 and parts.rank == rank


def value(low, sparse):
    return np.linalg.norm(low, "nuc") + np.abs(sparse).sum() / np.sqrt(max(low.shape))


def plain(d, iterations=2000):
    """ADMM with a fixed mu: slow, and sure to converge."""
    mu, y, sparse = d.size / (4 * np.abs(d).sum()), np.zeros_like(d), np.zeros_like(d)
    for _ in range(iterations):
        u, s, vt = np.linalg.svd(d - sparse + y / mu, full_matrices=False)
        low = u * np.maximum(s - 1 / mu, 0) @ vt
        sparse = soft(d - low + y / mu, 1 / np.sqrt(max(d.shape)) / mu)
        y += mu * (d - low - sparse)
    return value(low, sparse)


@each_svd
@pytest.mark.parametrize("kind", ["normal", "laplace"])
def test_where_there_are_no_parts_it_is_still_the_optimum(kind, svd):
    d = getattr(np.random.default_rng(0), kind)(size=(40, 30))
    parts = principal_component_pursuit(d, svd=svd)
    assert np.isclose(value(parts.low_rank, parts.sparse), plain(d), rtol=1e-6)
    parts = principal_component_pursuit(np.eye(70), svd=svd)
    assert np.isclose(value(parts.low_rank, parts.sparse), np.sqrt(70), rtol=1e-6)         # all of it is sparse


@pytest.mark.parametrize("seed", range(5))
def test_tighter_tolerance_is_nearer(seed):
    low, sparse = planted((100, 100), 5, 0.05, seed)
    parts = principal_component_pursuit(low + sparse, tolerance=1e-10)
    assert relative(parts.low_rank, low) < 1e-8 and parts.rank == 5


@pytest.mark.parametrize("shape, rank, share", [*CASES, ((130, 110), 25, 0.2), ((200, 200), 40, 0.05)], ids=str)
def test_the_randomised_svd_changes_nothing(shape, rank, share):
    """Also where the parts are not recovered: 130 x 110, rank 25, 20 % corruption."""
    low, sparse = planted(shape, rank, share, 1)
    full, quick = (principal_component_pursuit(low + sparse, svd=svd) for svd in ("full", "randomized"))
    assert relative(quick.low_rank, full.low_rank) < 1e-5 and relative(quick.sparse, full.sparse) < 1e-5
    assert quick.rank == full.rank


def test_most_of_its_svds_are_small(monkeypatch):
    sizes, svd = [], np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda a, **options: sizes.append(min(a.shape)) or svd(a, **options))
    parts = principal_component_pursuit(sum(planted((300, 200), 5, 0.05)))
    assert len([size for size in sizes if size == 200]) <= 3 and parts.iterations > 15


@each_svd
def test_a_transposed_matrix_has_transposed_parts(svd):
    d = sum(planted((90, 130), 4, 0.08))
    parts, turned = principal_component_pursuit(d, svd=svd), principal_component_pursuit(d.T, svd=svd)
    near = 1e-10 if svd == "full" else 1e-6
    assert relative(turned.low_rank.T, parts.low_rank) < near and relative(turned.sparse.T, parts.sparse) < near


@each_svd
@pytest.mark.parametrize("shape", [(80, 60), (60, 80), (200, 200)])
def test_what_is_low_rank_has_no_sparse_part(shape, svd):
    low, _ = planted(shape, 4, 0)
    parts = principal_component_pursuit(low, svd=svd)
    assert np.abs(parts.sparse).max() <= 1e-7 * np.abs(low).max() and parts.rank == 4
    assert relative(parts.low_rank, low) <= 1e-7


@each_svd
def test_zeros_and_constants(svd):
    parts = principal_component_pursuit(np.zeros((5, 7)), svd=svd)
    assert parts.u.shape == (5, 0) and parts.vt.shape == (0, 7) and parts.rank == 0
    assert not parts.sparse.any() and not parts.low_rank.any() and parts.low_rank.shape == (5, 7)
    parts = principal_component_pursuit(np.eye(100), svd=svd)
    assert np.allclose(parts.low_rank + parts.sparse, np.eye(100), atol=1e-6)
    parts = principal_component_pursuit(np.full((100, 70), -3.0), svd=svd)
    assert parts.rank == 1 and np.allclose(parts.low_rank, -3, atol=1e-6) and np.abs(parts.sparse).max() < 1e-6


@each_svd
@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (8, 1), (3, 2)])
def test_small_matrices_add_up(shape, svd):
    d = np.random.default_rng(0).standard_normal(shape)
    parts = principal_component_pursuit(d, svd=svd)
    assert relative(parts.low_rank + parts.sparse, d) <= 1e-7


@pytest.mark.parametrize("factor", [1e-200, 1e-6, 1e6, 1e200])
def test_it_scales_with_the_matrix(factor):
    d = sum(planted((60, 50), 3, 0.05))
    parts, larger = principal_component_pursuit(d), principal_component_pursuit(d * factor)
    np.testing.assert_allclose(larger.sparse / factor, parts.sparse, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(larger.s / factor, parts.s, rtol=1e-9)


def test_other_types_and_reproducible():
    d = np.rint(sum(planted((60, 50), 3, 0.05)) * 5)
    wanted = principal_component_pursuit(d)
    for dtype in ("float32", "int32"):
        parts = principal_component_pursuit(d.astype(dtype))
        assert np.array_equal(parts.sparse, wanted.sparse) and parts.sparse.dtype == "float64"


def test_a_heavier_weight_leaves_less_sparse():
    d = np.random.default_rng(0).standard_normal((40, 30))
    counts = [np.count_nonzero(np.abs(principal_component_pursuit(d, w).sparse) > 1e-6) for w in (0.05, 0.18, 0.3, 10)]
    assert counts[0] == 1200 > counts[1] > counts[2] > counts[3] == 0


@each_svd
def test_the_cap_is_loud(svd):
    d = sum(planted((60, 60), 3, 0.05))
    needed = principal_component_pursuit(d, svd=svd).iterations
    assert principal_component_pursuit(d, svd=svd, max_iterations=needed).iterations == needed
    with pytest.raises(RuntimeError, match=rf"after {needed - 1} iterations: .* is left and .* Allow more `max_iter"):
        principal_component_pursuit(d, svd=svd, max_iterations=needed - 1)


@pytest.mark.parametrize("d, options, words", [
    (np.zeros(3), {}, "real matrix"), (np.zeros((0, 2)), {}, "at least one row"), ([[np.nan]], {}, "1 NaN or infinite"),
    (np.eye(2), dict(weight=0), "`weight` is above 0"), (np.eye(2), dict(weight=np.nan), "`weight` is above 0"),
    (np.eye(2), dict(svd="quick"), "'randomized' or 'full'"), (np.eye(2), dict(max_iterations=0), "at least 1"),
])  # fmt: skip
def test_bad_input(d, options, words):
    with pytest.raises(ValueError, match=words):
        principal_component_pursuit(d, **options)


def test_soft_is_the_proximal_map():
    x, grid = np.linspace(-3, 3, 13), np.linspace(-4, 4, 8001)
    wanted = [grid[np.argmin((grid - value) ** 2 / 2 + 0.7 * np.abs(grid))] for value in x]
    assert np.allclose(soft(x, 0.7), wanted, atol=1e-3) and np.count_nonzero(soft(x, 0.7)) == 10
