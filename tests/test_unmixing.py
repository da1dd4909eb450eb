"""Non-negative unmixing: monotone, at rest where no update moves, and outliers apart from the mixture."""

import numpy as np
import pytest

from tfcompress.lowrank.robust_pca import soft
from tfcompress.lowrank.unmixing import unmix


def mixture(seed=0, outliers=0.03):
    rng = np.random.default_rng(seed)
    abundances, endmembers = np.maximum(rng.standard_normal((60, 3)), 0), np.abs(rng.standard_normal((20, 3)))
    x = np.where(rng.random((60, 20)) < outliers, 3.0, 0)
    clean = abundances @ endmembers.T
    return clean, x, clean + x + 0.02 * rng.standard_normal(clean.shape)


def value(y, found, h_s, h_x):
    rest = y - found.abundances @ found.endmembers.T - found.outliers
    return np.sum(rest**2) / 2 + h_s * found.abundances.sum() + h_x * np.abs(found.outliers).sum()


@pytest.mark.filterwarnings("ignore:The objective still falls")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("h_s, h_x", [(0.0, 0.3), (0.2, 0.3), (0.05, 2.0), (1.0, 1.0)])
def test_no_sweep_raises_the_objective(seed, h_s, h_x):
    _, _, y = mixture(seed)
    found = unmix(y, 3, h_s, h_x, max_iterations=500)
    assert (np.diff(found.objective) <= 1e-12 * found.objective[0]).all() and len(found.objective) > 3
    assert np.isclose(found.objective[0], np.sum(y**2) / 2)
    assert np.isclose(found.objective[-1], value(y, found, h_s, h_x), rtol=1e-10)
    assert (found.abundances >= 0).all() and np.allclose(np.linalg.norm(found.endmembers, axis=0), 1)


def test_mixture_and_outliers_come_apart():
    clean, x, y = mixture()
    found = unmix(y, 3, 0.01, 0.2, max_iterations=5000)
    assert found.rank == 3
    assert np.linalg.norm(found.abundances @ found.endmembers.T - clean) < 0.05 * np.linalg.norm(clean)
    assert np.array_equal(np.abs(found.outliers) > 1, x != 0)


def test_where_it_rests_no_update_moves():
    _, _, y = mixture()
    found = unmix(y, 3, 0.1, 0.3, tolerance=1e-13, max_iterations=20000)
    s, a, x = found.abundances, found.endmembers, found.outliers
    assert np.allclose(x, soft(y - s @ a.T, 0.3), atol=1e-4)
    for j in range(3):
        rest = y - x - s @ a.T + np.outer(s[:, j], a[:, j])
        assert np.allclose(s[:, j], np.maximum(rest @ a[:, j] - 0.1, 0), atol=1e-4)
        direction = rest.T @ s[:, j]
        assert np.allclose(a[:, j], direction / np.linalg.norm(direction), atol=1e-4)


def test_without_signs_and_weights_one_component_is_the_first_of_the_svd():
    y = np.abs(np.random.default_rng(0).standard_normal((8, 6)))
    found = unmix(y, 1, 0, np.inf, tolerance=1e-15)
    u, s, vt = np.linalg.svd(y)
    assert np.allclose(found.abundances @ found.endmembers.T, s[0] * np.outer(u[:, 0], vt[0]), atol=1e-6)
    assert not found.outliers.any()


def test_empty_components_are_dropped():
    y = np.outer([1.0, 2.0, 3.0], [0.6, 0.8, 0.0])
    assert unmix(y, 3, 0.1, 1.0).rank == 1                       # y has one direction
    assert unmix(np.diag([1.0, 0.3, 0.05]), 3, 0.1, 1.0).rank == 2      # 0.05 is not worth a component
    found = unmix(y, 2, 1e3, np.inf)
    assert found.rank == 0 and found.endmembers.shape == (3, 0) and not (found.abundances @ found.endmembers.T).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (4, 3)])
@pytest.mark.parametrize("filled", [0, 2, -2])
@pytest.mark.parametrize("rank", [0, 1, 9])
def test_zeros_constants_and_vectors(shape, filled, rank):
    y = np.full(shape, filled)
    found = unmix(y, rank, 0.0, np.inf)
    wanted = y if rank else np.zeros(shape)
    assert np.allclose(found.abundances @ found.endmembers.T, wanted) and found.rank == int(rank > 0 and filled != 0)


def test_too_few_sweeps_warn():
    with pytest.warns(UserWarning, match="still falls after 2 sweeps"):
        unmix(mixture()[2], 3, 0.1, 0.3, max_iterations=2)


@pytest.mark.parametrize("y, rank, h_s, h_x, words", [
    (np.eye(2), 1, -1, 0, "0 or above"), (np.eye(2), 1, 0, np.nan, "0 or above"),
    (np.eye(2), 1, np.inf, 0, "0 or above"),
    (np.eye(2), -1, 0, 0, "whole number"), (np.zeros(2), 1, 0, 0, "real matrix"), ([[np.nan]], 1, 0, 0, "1 NaN"),
])  # fmt: skip
def test_bad_input(y, rank, h_s, h_x, words):
    with pytest.raises(ValueError, match=words):
        unmix(y, rank, h_s, h_x)
