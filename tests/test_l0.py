"""Sparse + low rank under noise: monotone, the planted rank and support by EBIC, better than the convex ways."""

import warnings

import numpy as np
import pytest
from scipy.special import comb

from tfcompress.lowrank.ebic import ebic, log_binomial
from tfcompress.lowrank.l0 import choose_sparse_plus_low_rank, hard, largest, sparse_plus_low_rank
from tfcompress.lowrank.robust_pca import principal_component_pursuit, soft

SEEDS = range(3)


def planted(shape=(60, 50), rank=3, seed=0, share=0.05, noise=0.1, sizes=(2.0, 4.0)):
    """``(low, sparse, low + sparse + noise)``."""
    rng = np.random.default_rng(seed)
    low = rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))
    sparse = np.where(rng.random(shape) < share, rng.choice([-1.0, 1.0], shape) * rng.uniform(*sizes, shape), 0)
    return low, sparse, low + sparse + noise * rng.standard_normal(shape)


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.fixture(scope="module", params=SEEDS)
def case(request):
    low, sparse, y = planted(seed=request.param)
    chosen = {penalty: choose_sparse_plus_low_rank(y, 6, penalty=penalty) for penalty in ("l0", "l1")}
    return low, sparse, y, chosen


def test_the_planted_rank_and_support_are_chosen(case):
    _, sparse, y, chosen = case
    choice = chosen["l0"]
    found = choice.parts.sparse != 0
    assert choice.rank == choice.parts.rank == 3 and chosen["l1"].rank == 3
    assert not (~found & (sparse != 0)).any() and (found & (sparse == 0)).sum() <= 0.005 * y.size


def test_l0_is_nearer_than_l1_and_l1_than_rpcp(case):
    low, sparse, y, chosen = case
    parts = [chosen["l0"].parts, chosen["l1"].parts, principal_component_pursuit(y)]
    l0, l1, rpcp = (relative(part.low_rank, low) for part in parts)
    assert l0 < 0.85 * l1 and l1 < 0.85 * rpcp and l0 < 0.025
    l0, l1, rpcp = (relative(part.sparse, sparse) for part in parts)
    assert l0 < 0.5 * l1 and l1 < rpcp and l0 < 0.05


def test_more_gamma_never_chooses_more_nonzeros(case):
    _, sparse, y, chosen = case
    choices = [choose_sparse_plus_low_rank(y, 4, gamma) for gamma in (0, 0.5)] + [chosen["l0"]]
    counts = [np.count_nonzero(choice.parts.sparse) for choice in choices]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1] + 40
    grids = [[point[:3] for point in choice.tried] for choice in choices[:2]]
    assert grids[0] == grids[1]


def test_the_choice_is_the_least_of_what_was_tried(case):
    _, _, y, chosen = case
    for choice in chosen.values():
        least = min(choice.tried, key=lambda point: point[3])
        assert least == (choice.rank, choice.threshold, np.count_nonzero(choice.parts.sparse), choice.criterion)
        rss = np.sum((y - choice.parts.low_rank - choice.parts.sparse) ** 2)
        assert np.isclose(choice.criterion, ebic(rss, y.shape, choice.rank, least[2]), rtol=1e-12)


def test_the_planted_rank_is_the_least_on_nearly_all_seeds():
    """40 x 30, rank 2, 5 % outliers; 20 log10(||low + sparse|| / ||noise||) is about 25 dB."""
    right, decibels = 0, []
    for seed in range(20):
        low, sparse, y = planted((40, 30), 2, seed)
        decibels.append(20 * np.log10(np.linalg.norm(low + sparse) / np.linalg.norm(y - low - sparse)))
        choice = choose_sparse_plus_low_rank(y, 4)
        right += choice.rank == 2
        assert not ((choice.parts.sparse == 0) & (sparse != 0)).any()
    assert right >= 19 and 23 < np.mean(decibels) < 27


@pytest.mark.filterwarnings("ignore:The objective still falls")
@pytest.mark.parametrize("penalty", ["l0", "l1"])
@pytest.mark.parametrize("rank", [0, 1, 3, 8])
@pytest.mark.parametrize("threshold", [0.05, 0.4, 3.0])
def test_no_step_raises_the_objective(penalty, rank, threshold):
    _, _, y = planted()
    parts = sparse_plus_low_rank(y, rank, threshold, penalty=penalty, max_iterations=150)
    assert len(parts.objective) == 2 * parts.iterations >= 4
    assert (np.diff(parts.objective) <= 1e-12 * parts.objective[0]).all()
    cost = {"l0": threshold**2 / 2 * np.count_nonzero(parts.sparse), "l1": threshold * np.abs(parts.sparse).sum()}
    value = np.sum((y - parts.low_rank - parts.sparse) ** 2) / 2 + cost[penalty]
    assert np.isclose(parts.objective[-1], value, rtol=1e-10)


@pytest.mark.filterwarnings("ignore:The objective still falls")
@pytest.mark.parametrize("options", [dict(threshold=0.4), dict(threshold=0.4, penalty="l1"), dict(density=0.05)])
def test_nor_with_the_randomised_svd_of_a_large_matrix(options):
    low, sparse, y = planted((300, 200), 6)
    parts = sparse_plus_low_rank(y, 6, **options)
    assert (np.diff(parts.objective) <= 1e-12 * parts.objective[0]).all() and parts.iterations > 2
    assert relative(parts.low_rank, low) < (0.05 if "penalty" in options else 0.015)
    parts = sparse_plus_low_rank(y, 15, max_iterations=60, **options)               # no gap: noise in the low rank
    assert (np.diff(parts.objective) <= 1e-12 * parts.objective[0]).all()


def test_where_it_rests_neither_step_moves():
    _, _, y = planted()
    parts = sparse_plus_low_rank(y, 3, 0.4, tolerance=1e-14)
    assert np.allclose(parts.sparse, hard(y - parts.low_rank, 0.4), atol=1e-6)
    u, s, vt = np.linalg.svd(y - parts.sparse)
    assert relative(u[:, :3] * s[:3] @ vt[:3], parts.low_rank) < 1e-6


@pytest.mark.parametrize("shape", [(60, 50), (20, 30), (300, 200)])
def test_rank_zero_is_thresholding(shape):
    _, _, y = planted(shape)
    for penalty, shrink in (("l0", hard), ("l1", soft)):
        parts = sparse_plus_low_rank(y, 0, 1.0, penalty=penalty)
        assert np.array_equal(parts.sparse, shrink(y, 1.0)) and parts.rank == 0 and not parts.low_rank.any()
    assert np.array_equal(sparse_plus_low_rank(y, 0, density=0.1).sparse, largest(y, y.size // 10))


@pytest.mark.parametrize("penalty", ["l0", "l1"])
@pytest.mark.parametrize("shape", [(60, 50), (20, 30), (300, 200)])
def test_an_infinite_threshold_is_the_truncated_svd(shape, penalty):
    _, _, y = planted(shape)
    u, s, vt = np.linalg.svd(y, full_matrices=False)
    for rank in (1, 5, min(shape), 1000):
        parts = sparse_plus_low_rank(y, rank, np.inf, penalty=penalty)
        assert np.array_equal(parts.low_rank, u[:, :rank] * s[:rank] @ vt[:rank]) and not parts.sparse.any()
    assert not sparse_plus_low_rank(y, 1, density=0).sparse.any()


def test_a_threshold_of_zero_leaves_all_to_the_sparse_part():
    _, _, y = planted((20, 30))
    parts = sparse_plus_low_rank(y, 2, 0.0)
    assert np.allclose(parts.low_rank + parts.sparse, y, atol=1e-12)


@pytest.mark.parametrize("rank, density", [(0, 0.2), (2, 0.05), (5, 0.0), (3, 1.0)])
def test_rank_and_density_may_be_given(rank, density):
    low, sparse, y = planted((40, 30), 2)
    parts = sparse_plus_low_rank(y, rank, density=density)
    assert parts.rank <= rank and np.count_nonzero(parts.sparse) == round(density * y.size)
    assert (np.diff(parts.objective) <= 1e-12 * parts.objective[0]).all()


def test_a_start_is_where_it_begins():
    _, sparse, y = planted()
    parts = sparse_plus_low_rank(y, 3, 0.4, start=sparse)
    cold = sparse_plus_low_rank(y, 3, 0.4)
    assert parts.objective[0] < 0.1 * cold.objective[0] and np.isclose(parts.objective[-1], cold.objective[-1])
    assert sparse_plus_low_rank(y, 3, 0.4, start=cold.sparse).iterations <= 2 < cold.iterations


def test_largest_keeps_that_many_also_of_equal_ones():
    x = np.array([[1.0, -1.0, 1.0], [2.0, 1.0, 0.0]])
    assert largest(x, 3).tolist() == [[1, -1, 0], [2, 0, 0]]
    assert largest(x, 6).tolist() == x.tolist() and not largest(x, 0).any()


@pytest.mark.parametrize("n", [1, 2, 7, 100, 1200, 40_000])
def test_the_binomial_is_scipys(n):
    for k in {0, 1, n // 20, n // 2, n - 1, n}:
        wanted = float(np.log(float(exact))) if (exact := comb(n, k, exact=True)) < 1e300 else _log(exact)
        assert abs(log_binomial(n, k) - wanted) <= 1e-9 * max(1, wanted)


def _log(integer):
    shift = integer.bit_length() - 60
    return float(np.log(integer >> shift) + shift * np.log(2))


def test_ebic_is_its_formula_and_bic_for_gamma_zero():
    rss, m, n, r, s = 3.7, 12, 9, 2, 5
    bic = 108 * np.log(rss / 108) + (r * (m + n - r) + s) * np.log(108)
    assert np.isclose(ebic(rss, (m, n), r, s, gamma=0), bic, rtol=1e-12)
    for gamma in (0.5, 1):
        assert np.isclose(ebic(rss, (m, n), r, s, gamma), bic + 2 * gamma * np.log(comb(108, 5)), rtol=1e-12)
    assert np.isclose(ebic(rss, (m, n), r, 0, 1), ebic(rss, (m, n), r, 0, 0))
    penalties = [ebic(rss, (m, n), r, count) for count in range(109)]
    assert (np.diff(penalties) > 0).all()                # the binomial falls above one half: held there


@pytest.mark.parametrize("options, words", [
    (dict(rss=0.0), "`rss` is above 0"), (dict(rss=np.nan), "`rss` is above 0"), (dict(gamma=1.1), "`gamma` is 0"),
    (dict(rank=4), "rank 0..3"), (dict(nonzeros=13), "0..12 nonzeros"), (dict(nonzeros=-1), "0..12 nonzeros"),
])  # fmt: skip
def test_bad_ebic(options, words):
    with pytest.raises(ValueError, match=words):
        ebic(**dict(dict(rss=1.0, shape=(4, 3), rank=1, nonzeros=2), **options))


def test_without_noise_it_warns():
    low, sparse, y = planted((30, 20), 1, noise=0.0)
    with pytest.warns(UserWarning, match="nothing but rounding errors"):
        choice = choose_sparse_plus_low_rank(low)
    assert choice.rank == 1 and not choice.parts.sparse.any()


def test_own_thresholds_and_the_largest_rank():
    _, _, y = planted((40, 30), 2)
    choice = choose_sparse_plus_low_rank(y, 1, thresholds=[0.4, 3.0, 0.8])
    assert {point[1] for point in choice.tried} <= {0.4, 0.8, 3.0} and choice.rank == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (6, 4)])
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_zeros_constants_and_vectors(shape, value):
    y = np.full(shape, value)
    parts = sparse_plus_low_rank(y, 1, 1.0)
    assert parts.rank == int(value > 0) and np.allclose(parts.low_rank, y) and not parts.sparse.any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        choice = choose_sparse_plus_low_rank(y, 1)
    assert np.isfinite(choice.criterion) and choice.rank <= 1


def test_other_types_and_reproducible():
    y = np.rint(planted((300, 200), 3)[2] * 5)
    wanted = sparse_plus_low_rank(y, 3, 2.0)
    for dtype in ("float32", "int16"):
        assert np.array_equal(sparse_plus_low_rank(y.astype(dtype), 3, 2.0).low_rank, wanted.low_rank)


def test_too_few_sweeps_warn():
    with pytest.warns(UserWarning, match="still falls after 2 sweeps"):
        sparse_plus_low_rank(planted()[2], 3, 0.4, max_iterations=2)


@pytest.mark.parametrize("options, words", [
    (dict(), "one of the two"), (dict(threshold=1, density=0.1), "one of the two"), (dict(threshold=-1), "0 or above"),
    (dict(threshold=np.nan), "0 or above"), (dict(density=2), "0 to 1"),
    (dict(density=0.1, penalty="l1"), "penalty='l0'"), (dict(threshold=1, penalty="l2"), "'l0' or 'l1'"),
    (dict(threshold=1, start=np.eye(2)), "shape of `y`"), (dict(threshold=1, rank=-1), "whole number"),
    (dict(threshold=1, y=np.zeros(3)), "real matrix"),
    (dict(threshold=1, y=[[np.inf]]), "1 NaN or infinite"), (dict(threshold=1, max_iterations=0), "at least 1"),
])  # fmt: skip
def test_bad_input(options, words):
    with pytest.raises(ValueError, match=words):
        sparse_plus_low_rank(**dict(dict(y=np.eye(3), rank=1), **options))


@pytest.mark.parametrize("options, words", [
    (dict(thresholds=[]), "at least one"), (dict(thresholds=[1, 0]), "above 0"), (dict(gamma=2), "`gamma` is 0"),
    (dict(max_rank=-2), "whole number"), (dict(penalty="l2"), "'l0' or 'l1'"),
])  # fmt: skip
def test_bad_choices(options, words):
    with pytest.raises(ValueError, match=words):
        choose_sparse_plus_low_rank(np.eye(3), **options)
