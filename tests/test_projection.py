"""The exact projection: equal to brute force on all code sets, and quick forms equal to it."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcompress.quantization import projection
from tfcompress.quantization.projection import check_levels, nearest, project, project_groups

SETS = [(1,), (0, 1), (0, 1, 2), (0, 1, 2, 4), (0, 1, 2, 4, 8)]
all_sets = pytest.mark.parametrize("levels", SETS, ids=str)


def error(v, alpha, q):
    return float(np.sum((v - alpha * q.astype("float64")) ** 2))


def brute_force(v, levels):
    """The least error over all codes of the right signs, each with its own best scale."""
    codes = np.array(list(itertools.product(levels, repeat=v.size)), "float64")
    dots, norms = codes @ np.abs(v), (codes**2).sum(1)
    gains = np.divide(dots**2, norms, out=np.zeros_like(dots), where=norms > 0)
    return float(v @ v - gains.max())


def iterated(v, levels, rounds=100):
    """The scheme of the paper: nearest codes, best scale, and so on."""
    alpha = np.abs(v).mean()
    for _ in range(rounds):
        q = nearest(v, alpha, levels)
        alpha = float(v @ q) / max(float(q @ q), 1e-30)
    return alpha, q


@all_sets
def test_it_is_what_brute_force_finds(levels):
    rng = np.random.default_rng(0)
    for draw in range(40):
        v = rng.standard_normal(1 + draw % 7) * 10.0 ** rng.integers(-3, 4)
        found, best = error(v, *project(v, levels)), brute_force(v, levels)
        assert abs(found - best) <= 1e-10 * (v @ v)


@all_sets
def test_iterating_is_never_better_and_projecting_twice_changes_nothing(levels):
    rng = np.random.default_rng(1)
    for _ in range(10):
        v = rng.standard_normal(1000)
        alpha, q = project(v, levels)
        assert error(v, *iterated(v, levels)) >= error(v, alpha, q) * (1 - 1e-12)
        again, codes = project(alpha * q, levels)
        np.testing.assert_allclose(again * codes, alpha * q, rtol=1e-6)
        assert set(np.unique(np.abs(q))) <= set(levels) and alpha > 0


@all_sets
def test_the_histogram_gives_the_same_on_many_weights(levels, monkeypatch):
    v = np.random.default_rng(2).standard_normal(200_000).astype("float32")
    quick = error(v, *project(v, levels))
    monkeypatch.setattr(projection, "LARGE", v.size)
    exact = error(v, *project(v, levels))
    assert exact <= quick * (1 + 1e-9) and quick <= exact * (1 + 1e-6)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30), st.sampled_from(SETS),
       st.sampled_from([0.5, 4.0, 1024.0]))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_it_scales_with_the_weights_and_leaves_zeros(values, levels, factor):
    v = np.array(values, "float32")
    alpha, q = project(v, levels)
    larger, same = project(v * np.float32(factor), levels)
    assert np.isclose(larger, alpha * factor, rtol=1e-6) and np.array_equal(q, same)
    assert not q[v == 0].any() and not (np.signbit(q) & (q == 0)).any()


def test_an_all_zero_tensor_and_pruned_weights_stay_zero():
    assert project(np.zeros(5), (1,))[0] == 0 and not project(np.zeros(5), (1,))[1].any()
    alpha, q = project(np.array([2.0, 0.0, -4.0]), (1,))
    assert alpha == 3 and q.tolist() == [1, 0, -1]


def test_groups_have_their_own_scales():
    w = np.array([[1.0, 10.0, 5.0, 0.5], [-1.0, -10.0, 5.0, -0.5]])
    scales, q = project_groups(w, (0, 1), "channel")
    assert scales.tolist() == [1, 10, 5, 0.5] and q.tolist() == np.sign(w).tolist()
    assert project_groups(w, (0, 1), "tensor")[0].shape == (1,)
    gates, _ = project_groups(np.array([[1.0, 1.0, 4.0, 4.0]]), (1,), 2)
    assert gates.tolist() == [1, 4]
    with pytest.raises(ValueError, match="4 output channels can't be divided by 3"):
        project_groups(w, (0, 1), 3)


@pytest.mark.parametrize("levels", [(), (0,), (1, 1), (2, 1), (-1, 1)])
def test_bad_levels(levels):
    with pytest.raises(ValueError, match="magnitudes of the codes, growing"):
        check_levels(levels)
