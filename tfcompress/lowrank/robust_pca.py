"""``principal_component_pursuit``: the exact split of a matrix into low rank plus sparse, and what a split holds."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import svds

from tfcompress.lowrank.randomized import SHARE, SMALL, check_matrix, sor_svd

GROWTH, LARGEST = 1.5, 1e7     # of mu, each iteration and in all
BEHIND, LOOSER = 10, 100       # mu grows while d - L - S is above 1/10 of what S moves; that may end 100 times larger


@dataclass(frozen=True, eq=False)
class SparseLowRank:
    """A matrix (m, n) as ``u * s @ vt + sparse``, float64.

    Args:
        u: (m, r), orthonormal columns.
        s: (r,), singular values of the low-rank part, falling.
        vt: (r, n), orthonormal rows.
        sparse: (m, n), mostly zeros.
        iterations: how many the solver took.
        objective: what was minimised, after each half step, where the solver records it.
    """

    u: np.ndarray
    s: np.ndarray
    vt: np.ndarray
    sparse: np.ndarray
    iterations: int = 0
    objective: tuple = ()

    @property
    def low_rank(self):
        return self.u * self.s @ self.vt

    @property
    def rank(self):
        return self.s.size


def soft(x, threshold):
    """``sign(x) * max(|x| - threshold, 0)``: the proximal map of ``threshold * ||x||_1``.

    >>> soft(np.array([3.0, -0.5, -2.0]), 1.0).tolist()
    [2.0, 0.0, -1.0]
    """
    return x - np.clip(x, -threshold, threshold)


def principal_component_pursuit(d, weight=None, *, tolerance=1e-7, max_iterations=1000, svd="randomized", seed=0):
    """``min ||L||_* + weight * ||S||_1`` subject to ``L + S = d``: robust PCA, by an inexact augmented Lagrangian.

    Low rank plus sparse errors of any size are told apart exactly where neither looks like the other (Candes, Li, Ma &
    Wright, "Robust principal component analysis?", J. ACM 58(3), 2011; arXiv:0912.3599). Each iteration: ``L`` is
    ``d - S + Y / mu`` with its singular values softened by ``1 / mu``, ``S`` is ``d - L + Y / mu`` softened by ``weight
    / mu``, ``Y += mu (d - L - S)`` (Lin, Chen & Ma, arXiv:1009.5055). ``mu`` grows by 1.5, but not where ``d - L - S``
    is already far below ``mu`` times the last change of ``S``: growing at every iteration is a little quicker and can
    freeze a wrong split. Dense noise goes into ``S``: use ``sparse_plus_low_rank`` there.

    Args:
        d: real matrix (m, n).
        weight: of the sparse part; None: ``1 / sqrt(max(m, n))``.
        tolerance: stops at ``||d - L - S||_F <= tolerance * ||d||_F``, where mu times the last change of
            ``S``, how far from optimal the split is, is at most ``100 tolerance * ||Y||_F`` as well.
        max_iterations: more is an error.
        svd: "randomized": ``sor_svd``, begun with the last iteration's subspace, for 5 values more than the last rank
            (Kaloorazi & de Lamare, DSP 2017); where all of them exceed ``1 / mu``, the full SVD. "full": always that.
        seed: of the randomised SVD.

    Returns:
        A ``SparseLowRank``; all zero for a zero matrix.

    Raises:
        ValueError: ``d`` is no finite real matrix, ``weight`` not above 0, an unknown ``svd``, no iterations.
        RuntimeError: no such split after ``max_iterations``.

    >>> d = np.outer(np.ones(20), np.ones(30))
    >>> d[3, 4] += 7
    >>> parts = principal_component_pursuit(d)
    >>> parts.rank, np.argwhere(parts.sparse).tolist(), round(float(parts.sparse[3, 4]), 4)
    (1, [[3, 4]], 7.0)
    """
    d = check_matrix(d, "d")
    weight = 1 / np.sqrt(max(d.shape)) if weight is None else weight
    if not (np.isfinite(weight) and weight > 0):
        raise ValueError(f"`weight` is above 0; None: 1 / sqrt(max(m, n)). Received: weight={weight!r}.")
    if svd not in ("randomized", "full"):
        raise ValueError(f"`svd` is 'randomized' or 'full'. Received: svd={svd!r}.")
    if max_iterations < 1:
        raise ValueError(f"`max_iterations` is at least 1. Received: max_iterations={max_iterations!r}.")
    scale = np.abs(d).max()
    if scale == 0:
        m, n = d.shape
        return SparseLowRank(np.zeros((m, 0)), np.zeros(0), np.zeros((0, n)), d)
    u, s, vt, sparse, iterations = _split(d / scale, weight, tolerance, max_iterations, svd, seed)
    return SparseLowRank(u, s * scale, vt, sparse * scale, iterations)


def _split(d, weight, tolerance, max_iterations, svd, seed):
    spectral = _largest_value(d, svd, seed)
    size, mu = np.linalg.norm(d), 1.25 / spectral
    largest = LARGEST * mu
    y, sparse, vt = d / max(spectral, 1 / weight), np.zeros_like(d), np.zeros((0, d.shape[1]))
    for iteration in range(1, max_iterations + 1):
        u, s, vt = _softened(d - sparse + y / mu, 1 / mu, vt, svd, seed)
        rest = d - u * s @ vt
        before, sparse = sparse, soft(rest + y / mu, weight / mu)
        left = rest - sparse
        y += mu * left
        apart, moved = np.linalg.norm(left) / size, mu * np.linalg.norm(sparse - before) / np.linalg.norm(y)
        if apart <= tolerance and moved <= LOOSER * tolerance:
            return u, s, vt, sparse, iteration
        if BEHIND * apart > moved:
            mu = min(mu * GROWTH, largest)
    raise RuntimeError(f"No optimal split to {tolerance:g} after {max_iterations} iterations: {apart:.1e} of d is left "
                       f"and S moves by {moved:.1e}. Allow more `max_iterations` or more `tolerance`.")


def _largest_value(d, svd, seed):
    if svd == "full" or min(d.shape) <= SMALL:
        return float(np.linalg.norm(d, 2))
    start = np.random.default_rng(seed).standard_normal(min(d.shape))
    return float(svds(d, k=1, v0=start, return_singular_vectors=False)[0])


def _softened(a, threshold, before, svd, seed):
    """The SVD of ``a`` with its values softened; zeros are dropped. ``before``: right vectors, about the same."""
    guess = len(before) + 5
    sketched = svd == "randomized" and SHARE * guess < min(a.shape)
    if sketched:
        u, s, vt = sor_svd(a, guess, power=1, seed=seed, start=before)
    if not sketched or s[-1] > threshold:
        u, s, vt = np.linalg.svd(a, full_matrices=False)
    kept = int(np.sum(s > threshold))
    return u[:, :kept], s[:kept] - threshold, vt[:kept]
