"""``sparse_plus_low_rank`` of noisy matrices, by cyclic descent; ``choose_sparse_plus_low_rank`` finds its settings."""

import warnings
from dataclasses import dataclass, replace

import numpy as np

from tfcompress.lowrank.ebic import ebic
from tfcompress.lowrank.randomized import check_matrix, check_rank, leading_svd
from tfcompress.lowrank.robust_pca import SparseLowRank, soft

RATIO, SWEEPS = 0.8, 12     # of the search: from one threshold to the next; at most for each


def hard(x, threshold):
    """``x`` where ``|x| > threshold``, else 0: the proximal map of ``threshold^2 / 2 * ||x||_0``.

    >>> hard(np.array([3.0, -0.5, -2.0]), 1.0).tolist()
    [3.0, 0.0, -2.0]
    """
    return np.where(np.abs(x) > threshold, x, 0.0)


def largest(x, count):
    """``x`` with all but its ``count`` largest magnitudes set to 0 (of equal ones, the first in the array stay).

    >>> largest(np.array([[3.0, -5.0], [1.0, 4.0]]), 2).tolist()
    [[0.0, -5.0], [0.0, 4.0]]
    """
    if count == 0:
        return np.zeros_like(x)
    size = np.abs(x).ravel()
    least = np.partition(size, size.size - count)[size.size - count]
    kept = size > least
    kept[np.flatnonzero(size == least)[:count - int(kept.sum())]] = True
    return np.where(kept.reshape(x.shape), x, 0.0)


def sparse_plus_low_rank(y, rank, threshold=None, *, density=None, penalty="l0", start=None, tolerance=1e-8,
                         max_iterations=500, seed=0):
    """``min 1/2 ||y - L - X||_F^2 + threshold^2 / 2 ||X||_0`` with ``rank(L) <= rank``, by cyclic descent.

    In turn: ``L`` is the truncated SVD of ``y - X``, ``X`` holds the entries of ``y - L`` above ``threshold``,
    unchanged. Each is the exact minimiser, so the objective never grows. Ulfarsson, Solo & Marjanovic, "Sparse and low
    rank decomposition using l0 penalty" (ICASSP 2015). Rank 0 is hard thresholding; ``threshold=inf`` the truncated
    SVD. Large matrices use ``sor_svd`` begun with the last subspace, which keeps the descent monotone.

    Args:
        y: real matrix (m, n).
        rank: of the low-rank part; what is above ``min(m, n)`` means that.
        threshold: h >= 0; about 4 noise levels tell outliers from noise.
        density: instead of ``threshold``: X keeps that share (0 to 1) of all entries, the largest; nothing is
            penalised (GoDec, Zhou & Tao 2011).
        penalty: "l0"; or "l1": ``threshold * ||X||_1``, whose X is soft-thresholded (CD-SLR1).
        start: X to begin with, (m, n); None: zeros.
        tolerance: stops when a sweep lowers the objective by no more than this share; a warning after
            ``max_iterations`` sweeps.
        seed: of ``sor_svd``.

    Returns:
        A ``SparseLowRank`` whose ``objective`` has a value after each half step, two a sweep.

    Raises:
        ValueError: ``y`` is no finite real matrix, not one of threshold and density, or values out of range.

    >>> y = np.full((8, 8), 2.0)
    >>> y[0, 1] += 5
    >>> parts = sparse_plus_low_rank(y, rank=1, threshold=1.0)
    >>> np.argwhere(parts.sparse).tolist(), parts.sparse[0, 1].round(3), parts.low_rank[0, :3].round(3).tolist()
    ([[0, 1]], np.float64(5.0), [2.0, 2.0, 2.0])
    """
    y = check_matrix(y, "y")
    rank = check_rank(rank, y.shape)
    sparse = np.zeros_like(y) if start is None else check_matrix(start, "start")
    if sparse.shape != y.shape:
        raise ValueError(f"`start` has the shape of `y`, {y.shape}. Received: shape {sparse.shape}.")
    if max_iterations < 1:
        raise ValueError(f"`max_iterations` is at least 1. Received: max_iterations={max_iterations!r}.")
    shrink, cost = _penalty(y.size, threshold, density, penalty)
    parts, ended = _descend(y, rank, shrink, cost, sparse, tolerance, max_iterations, seed)
    if not ended:
        warnings.warn(f"The objective still falls after {max_iterations} sweeps: allow more `max_iterations`.",
                      stacklevel=2)
    return parts


def _descend(y, rank, shrink, cost, sparse, tolerance, max_iterations, seed):
    """The parts, and whether the objective came to rest."""
    if shrink is np.zeros_like:                          # no descent leads where the full SVD is
        u, s, vt = np.linalg.svd(y, full_matrices=False)
        u, s, vt = u[:, :rank], s[:rank], vt[:rank]
        return SparseLowRank(u, s, vt, shrink(y), 1, 2 * (_half_square(y - u * s @ vt),)), True
    vt, trace = np.zeros((0, y.shape[1])), []
    for _ in range(max_iterations):
        u, s, vt = leading_svd(y - sparse, rank, seed=seed, start=vt)
        rest = y - u * s @ vt
        trace.append(_half_square(rest - sparse) + cost(sparse))
        sparse = shrink(rest)
        trace.append(_half_square(rest - sparse) + cost(sparse))
        ended = len(trace) > 2 and trace[-3] - trace[-1] <= tolerance * trace[-3]
        if ended:
            break
    kept = int(np.sum(s > 1e-15 * s[:1]))
    return SparseLowRank(u[:, :kept], s[:kept], vt[:kept], sparse, len(trace) // 2, tuple(trace)), ended


def _half_square(x):
    return float(np.vdot(x, x)) / 2


def _penalty(size, threshold, density, penalty):
    """``(shrink, cost)``: what makes X of a residual, and what X costs."""
    if (threshold is None) == (density is None):
        raise ValueError("Give `threshold` or `density`, one of the two. "
                         f"Received: threshold={threshold!r}, density={density!r}.")
    if penalty not in ("l0", "l1"):
        raise ValueError(f"`penalty` is 'l0' or 'l1'. Received: penalty={penalty!r}.")
    if density is not None:
        if not 0 <= density <= 1 or penalty != "l0":
            raise ValueError("`density` is a share of all entries, 0 to 1, and goes with penalty='l0'. "
                             f"Received: density={density!r}, penalty={penalty!r}.")
        count = round(density * size)
        return (lambda x: largest(x, count)) if count else np.zeros_like, lambda x: 0.0
    if not threshold >= 0:
        raise ValueError(f"`threshold` is 0 or above; inf leaves no sparse part. Received: threshold={threshold!r}.")
    if threshold == np.inf:
        return np.zeros_like, lambda x: 0.0
    if penalty == "l0":
        return lambda x: hard(x, threshold), lambda x: threshold**2 / 2 * np.count_nonzero(x)
    return lambda x: soft(x, threshold), lambda x: threshold * float(np.abs(x).sum())


@dataclass(frozen=True, eq=False)
class Choice:
    """What the extended BIC picked.

    Args:
        parts: the ``SparseLowRank``.
        rank: allowed to the low-rank part.
        threshold: h.
        criterion: the EBIC of the parts.
        tried: ``(rank, threshold, nonzeros, criterion)`` of every point of the grid.
    """

    parts: SparseLowRank
    rank: int
    threshold: float
    criterion: float
    tried: tuple


def choose_sparse_plus_low_rank(y, max_rank=None, gamma=1.0, *, thresholds=None, penalty="l0", seed=0):
    """``sparse_plus_low_rank`` for each rank and a grid of thresholds; the least ``ebic`` wins.

    For each rank the thresholds fall, each begun with the sparse part of the one before, in at most 12 sweeps. A path
    ends where more than half of the entries are sparse, or EBIC, both for gamma 0 and for gamma 1, has been worse three
    times running; so do the ranks. What is tried does not depend on ``gamma``: more of it never chooses more nonzeros.
    Trained kernels are no low rank + noise, a high rank may win: ``sparse_plus_low_rank`` takes a rank and a density.

    Args:
        y: real matrix (m, n).
        max_rank: the largest rank tried; None: a quarter of the smaller side, at most 16.
        gamma: of ``ebic``, 0 to 1.
        thresholds: h > 0, any order, for all ranks; None: for each rank, inf, then from the largest residual of the
            truncated SVD down by 0.8 each.
        penalty, seed: as in ``sparse_plus_low_rank``.

    Returns:
        A ``Choice``. A residual of rounding errors counts as ``1e-14 ||y||``, with a warning where that wins.

    Raises:
        ValueError: as there; no thresholds, or ``gamma`` out of range.

    >>> rng = np.random.default_rng(1)
    >>> y = np.outer(rng.standard_normal(30), rng.standard_normal(20)) + 0.05 * rng.standard_normal((30, 20))
    >>> y[3, 4] += 2
    >>> choice = choose_sparse_plus_low_rank(y, max_rank=3)
    >>> choice.rank, np.argwhere(choice.parts.sparse).tolist()
    (1, [[3, 4]])
    """
    y = check_matrix(y, "y")
    max_rank = min(16, min(y.shape) // 4) if max_rank is None else check_rank(max_rank, y.shape)
    if thresholds is not None and not (len(thresholds) and min(thresholds) > 0):
        raise ValueError(f"`thresholds` are above 0, at least one. Received: thresholds={thresholds!r}.")
    floor = 1e-28 * float(np.vdot(y, y)) or 1.0
    best, tried, least = None, [], []
    for rank in range(max_rank + 1):
        path = _thresholds(y, rank, seed) if thresholds is None else sorted(thresholds, reverse=True)
        ends = []
        for threshold, parts in _path(y, rank, path, penalty, seed):
            rss = max(2 * _half_square(y - parts.low_rank - parts.sparse), floor)
            nonzeros = int(np.count_nonzero(parts.sparse))
            value, *both = (ebic(rss, y.shape, rank, nonzeros, g) for g in (gamma, 0, 1))
            tried.append((rank, float(threshold), nonzeros, value))
            if best is None or value < best.criterion:
                best, exact = Choice(parts, rank, float(threshold), value, ()), rss == floor
            ends.append(both)
            if _past(ends):
                break
        least.append(np.min(ends, axis=0))
        if _past(least):
            break
    if exact:
        warnings.warn("The chosen parts leave nothing but rounding errors, held at 1e-14 ||y||: EBIC is made for noise."
                      " For an exact split use `principal_component_pursuit`.", stacklevel=2)
    return replace(best, tried=tuple(tried))


def _path(y, rank, thresholds, penalty, seed):
    """``(threshold, parts)`` for each threshold, until more than half of the entries are sparse."""
    sparse = np.zeros_like(y)
    for threshold in thresholds:
        shrink, cost = _penalty(y.size, threshold, None, penalty)
        parts, _ = _descend(y, rank, shrink, cost, sparse, 1e-6, SWEEPS, seed)
        if threshold < thresholds[0] and 2 * np.count_nonzero(parts.sparse) > y.size:
            return
        sparse = parts.sparse
        yield threshold, parts


def _past(ends, patience=3):
    """Whether EBIC, for gamma 0 and for gamma 1, has only been worse in the last ``patience`` rows than before."""
    return len(ends) > patience and bool(np.all(np.min(ends[-patience:], 0) > np.min(ends[:-patience], 0)))


def _thresholds(y, rank, seed):
    u, s, vt = leading_svd(y, rank, seed=seed)
    top = float(np.abs(y - u * s @ vt).max())
    return [np.inf] if top <= 1e-12 * np.abs(y).max() else [np.inf, *top * RATIO ** np.arange(1, 32)]
