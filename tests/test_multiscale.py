"""Multiscale low rank: adds up, equals pursuit for single entries + whole, no dearer than what was planted."""

import warnings

import numpy as np
import pytest

from tfcompress.lowrank.multiscale import (
    block_storage,
    block_threshold,
    cut,
    joined,
    multiscale_low_rank,
    scale_weight,
)
from tfcompress.lowrank.robust_pca import principal_component_pursuit, soft

SIDES = (1, 4, 16, 32)


def blockwise(rng, n, side, share):
    """Each block, with probability ``share``, of rank one."""
    x = np.zeros((n, n))
    for i in range(0, n, side):
        for j in range(0, n, side):
            if rng.random() < share:
                x[i:i + side, j:j + side] = 3 * np.outer(rng.standard_normal(side), rng.standard_normal(side))
    return x


def planted(seed=0, n=32):
    rng = np.random.default_rng(seed)
    return [blockwise(rng, n, side, share) for side, share in zip(SIDES, (0.03, 0.2, 0.5, 1), strict=True)]


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def cost(parts, sides, shape):
    total = 0.0
    for x, side in zip(parts, sides, strict=True):
        blocks = [x[i:i + side, j:j + side] for i in range(0, shape[0], side) for j in range(0, shape[1], side)]
        total += scale_weight((side, side), shape) * sum(np.linalg.norm(block, "nuc") for block in blocks)
    return total


def quiet(*arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return multiscale_low_rank(*arguments, **options)


@pytest.mark.parametrize("shape", [(40, 40), (30, 50)])
def test_single_entries_and_the_whole_are_principal_component_pursuit(shape):
    rng = np.random.default_rng(1)
    y = rng.standard_normal((shape[0], 2)) @ rng.standard_normal((2, shape[1]))
    y += np.where(rng.random(shape) < 0.05, rng.choice([-1.0, 1.0], shape), 0)
    wanted = principal_component_pursuit(y, tolerance=1e-11, svd="full")
    single, whole = multiscale_low_rank(y, [1, shape], [1 / np.sqrt(max(shape)), 1.0], tolerance=1e-11)
    assert relative(whole, wanted.low_rank) < 1e-9 and relative(single, wanted.sparse) < 1e-9


@pytest.mark.parametrize("seed", [0, 1])
def test_scales_add_up_and_cost_no_more_than_what_was_planted(seed):
    parts = planted(seed)
    y = sum(parts)
    found = multiscale_low_rank(y, SIDES, tolerance=2e-5, max_iterations=3000)
    assert len(found) == 4 and np.abs(sum(found) - y).max() < 1e-8
    assert cost(found, SIDES, y.shape) <= cost(parts, SIDES, y.shape)


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (1, 7)])
@pytest.mark.parametrize("block", [1, 3, 9, "noise"])
def test_one_scale_holds_all(shape, block):
    y = np.random.default_rng(0).standard_normal(shape)
    (x,) = multiscale_low_rank(y, [block])
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-14)


def test_permuted_blocks_have_permuted_parts():
    """Rows within the blocks of 4, and the blocks of 16, so every scale keeps its blocks."""
    y, rng = sum(planted()), np.random.default_rng(5)
    rows, columns = (np.concatenate([start + rng.permutation(4) for start in range(0, 32, 4)]) for _ in range(2))
    rows = np.r_[rows[16:], rows[:16]]
    found, moved = (quiet(m, SIDES, max_iterations=100) for m in (y, y[rows][:, columns]))
    for x, other in zip(found, moved, strict=True):
        np.testing.assert_allclose(other, x[rows][:, columns], rtol=0, atol=1e-9)
    across = quiet(y[rng.permutation(32)], SIDES, max_iterations=100)          # other blocks, another answer
    assert cost(across, SIDES, y.shape) > 1.05 * cost(found, SIDES, y.shape)


def test_blocks_that_do_not_divide_are_padded_and_cropped():
    y = np.random.default_rng(0).standard_normal((13, 22))
    found = quiet(y, [1, 4, (5, 7), 100])
    assert all(x.shape == y.shape for x in found) and np.abs(sum(found) - y).max() < 1e-8
    exact = dict(weights=[1.0, 2.3], tolerance=1e-9, max_iterations=3000)
    found, padded = (multiscale_low_rank(m, [1, 4], **exact) for m in (y, np.pad(y, ((0, 3), (0, 2)))))
    for x, other in zip(found, padded, strict=True):
        assert np.allclose(other[:13, :22], x, atol=1e-6)
        assert np.abs(other[13:]).max() < 1e-6 and np.abs(other[:, 22:]).max() < 1e-6


def test_cut_and_joined():
    y = np.arange(35.0).reshape(5, 7)
    parts = cut(y, (2, 3))
    assert parts.shape == (3, 3, 2, 3) and parts[0, 1].tolist() == [[3, 4, 5], [10, 11, 12]]
    assert parts[2, 2].tolist() == [[34, 0, 0], [0, 0, 0]] and np.array_equal(joined(parts, y.shape), y)


def test_thresholds_of_blocks():
    x = np.random.default_rng(0).standard_normal((6, 6))
    assert np.array_equal(block_threshold(x, (1, 1), 0.5), soft(x, 0.5))
    single = joined(np.linalg.svd(cut(x, (1, 1)))[1].reshape(6, 6, 1, 1), (6, 6))
    assert np.allclose(np.abs(x), single)
    u, s, vt = np.linalg.svd(x)
    assert np.allclose(block_threshold(x, (6, 6), 1.0), u * np.maximum(s - 1, 0) @ vt)
    halves = block_threshold(x, (3, 6), 1.0)
    assert np.allclose(halves[:3], block_threshold(x[:3], (3, 6), 1.0)) and not np.allclose(halves[:3], x[:3])
    shorter = block_threshold(x, "noise", 1.0)
    assert np.isclose(np.linalg.norm(shorter), np.linalg.norm(x) - 1)
    assert np.allclose(shorter / x, shorter[0, 0] / x[0, 0])
    assert not block_threshold(x, "noise", 100.0).any() and not block_threshold(0 * x, "noise", 1.0).any()


def test_weights_of_scales():
    assert scale_weight((1, 1), (8, 8)) == 2 + np.sqrt(6)
    assert scale_weight((8, 8), (8, 8)) == 2 * np.sqrt(8) + np.sqrt(3)
    assert scale_weight((1, 1), (1, 1)) == 2 and scale_weight((4, 2), (9, 2)) == 2 + np.sqrt(2) + np.sqrt(np.log2(6))


def test_noise_goes_into_its_scale():
    rng = np.random.default_rng(3)
    low = 3 * np.outer(rng.standard_normal(40), rng.standard_normal(40))
    noise = rng.standard_normal((40, 40))
    _, whole, rest = quiet(low + noise, [1, 40, "noise"])
    assert relative(whole, low) < 0.3 and relative(rest, noise) < 0.6
    assert relative(quiet(low + noise, [1, 40])[1], low) > relative(whole, low)


def test_shifts_hide_the_blocks_and_are_seeded():
    rng = np.random.default_rng(0)
    y = np.kron(blockwise(rng, 16, 4, 0.5), np.ones((2, 2)))
    options = dict(shifts=True, max_iterations=30)
    first, second, other = (multiscale_low_rank(y, [1, 8, 32], seed=seed, **options) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.allclose(first[1], other[1]) and np.abs(sum(first) - y).max() < 1e-8
    fixed = quiet(y, [1, 8, 32], max_iterations=30)
    assert not np.allclose(first[1], fixed[1])


def test_shifts_of_single_entries_and_the_whole_change_nothing():
    rng = np.random.default_rng(1)
    y = np.outer(rng.standard_normal(30), rng.standard_normal(30)) + 2.0 * (rng.random((30, 30)) < 0.05)
    weights = [1 / np.sqrt(30), 1.0]
    fixed = multiscale_low_rank(y, [1, 30], weights, tolerance=1e-9)
    shifted = multiscale_low_rank(y, [1, 30], weights, shifts=True, max_iterations=300)
    for x, other in zip(fixed, shifted, strict=True):
        np.testing.assert_allclose(other, x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-150, 1e-3, 1e150])
def test_it_scales_with_the_matrix(factor):
    y = sum(planted())
    found, scaled = (quiet(m, [1, 8], max_iterations=20) for m in (y, y * factor))
    for x, larger in zip(found, scaled, strict=True):
        np.testing.assert_allclose(larger / factor, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (4, 4)])
@pytest.mark.parametrize("value", [0, 3])
def test_zeros_constants_and_vectors(shape, value):
    y = np.full(shape, value, "int16")
    found = quiet(y, [1, 2, 4])
    assert np.allclose(sum(found), y, atol=1e-12) and all(np.isfinite(x).all() for x in found)
    assert all(x.dtype == "float64" for x in quiet(y.astype("float32"), [1, 2]))


def test_what_the_factors_hold():
    assert block_storage(np.eye(6), 1) == 12 and block_storage(np.eye(6), 6) == 72 and block_storage(np.eye(6), 2) == 24
    assert block_storage(np.ones((6, 4)), (3, 4)) == 14 and block_storage(np.zeros((3, 3)), 2) == 0
    assert block_storage(np.ones((2, 3)), "noise") == 6


def test_too_few_iterations_warn():
    with pytest.warns(UserWarning, match="still move after 5 iterations"):
        multiscale_low_rank(sum(planted()), SIDES, max_iterations=5)


@pytest.mark.parametrize("y, blocks, options, words", [
    (np.eye(3), [], {}, "at least one scale"), (np.eye(3), [0], {}, "a side >= 1"),
    (np.eye(3), [1.5], {}, "a side >= 1"), (np.eye(3), [(1, 2, 3)], {}, "a side >= 1"),
    (np.eye(3), ["all"], {}, "a side >= 1"),
    (np.eye(3), [1, 3], dict(weights=[1]), "each of the 2 scales"), (np.eye(3), [1], dict(weights=[0]), "above 0"),
    (np.eye(3), [1], dict(max_iterations=0), "at least 1"), (np.zeros(3), [1], {}, "real matrix"),
    ([[np.nan]], [1], {}, "1 NaN"),
])  # fmt: skip
def test_bad_input(y, blocks, options, words):
    with pytest.raises(ValueError, match=words):
        multiscale_low_rank(y, blocks, **options)
