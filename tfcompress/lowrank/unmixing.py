"""``unmix``: non-negative abundances times endmembers plus sparse outliers, by cyclic rank-one updates."""

import warnings
from dataclasses import dataclass

import numpy as np

from tfcompress.lowrank.randomized import check_matrix, check_rank
from tfcompress.lowrank.robust_pca import soft


@dataclass(frozen=True, eq=False)
class Unmixed:
    """A matrix (p, m) as ``abundances @ endmembers.T + outliers``, float64.

    Args:
        abundances: S, (p, r), >= 0; no column is zero.
        endmembers: A, (m, r), columns of norm 1.
        outliers: X, (p, m), mostly zeros.
        objective: after each sweep, the start first.
    """

    abundances: np.ndarray
    endmembers: np.ndarray
    outliers: np.ndarray
    objective: tuple

    @property
    def rank(self):
        return self.abundances.shape[1]


def unmix(y, rank, sparsity_weight, outlier_weight, *, tolerance=1e-8, max_iterations=500):
    """``min 1/2 ||y - S A' - X||_F^2 + sparsity_weight ||S||_1 + outlier_weight ||X||_1``, ``S >= 0``, ``||a_j|| = 1``.

    Sweeps over the components; with ``R_j = y - X - sum_{k != j} s_k a_k'``: ``s_j = max(0, R_j a_j -
    sparsity_weight)``, ``a_j = R_j' s_j / ||R_j' s_j||``; then X is ``y - S A'`` softened by ``outlier_weight``. Each
    is the exact minimiser, so the objective never grows. Sigurdsson, Ulfarsson & Sveinsson, "Sparse and low rank
    hyperspectral unmixing" (IGARSS 2017). It begins with the rows of ``y`` that successive projection finds; columns
    of S that end as zeros are dropped.

    Args:
        y: real matrix (p, m): pixels by bands, or any.
        rank: components to begin with; what is above ``min(p, m)`` means that.
        sparsity_weight: h_s >= 0.
        outlier_weight: h_x >= 0; inf: no outliers.
        tolerance: stops when a sweep lowers the objective by no more than this share; a warning after
            ``max_iterations`` sweeps.

    Returns:
        An ``Unmixed``.

    Raises:
        ValueError: ``y`` is no finite real matrix, a weight below 0, no whole rank.

    >>> y = np.outer([1.0, 2.0, 0.0, 3.0], [0.6, 0.0, 0.8])
    >>> found = unmix(y, rank=1, sparsity_weight=0.1, outlier_weight=1.0)
    >>> found.abundances.round(3).T.tolist(), found.endmembers.round(3).T.tolist()
    ([[0.9, 1.9, 0.0, 2.9]], [[0.6, 0.0, 0.8]])
    """
    y = check_matrix(y, "y")
    rank = check_rank(rank, y.shape)
    if not (sparsity_weight >= 0 and outlier_weight >= 0 and np.isfinite(sparsity_weight)):
        raise ValueError("`sparsity_weight` and `outlier_weight` are 0 or above. Received: "
                         f"sparsity_weight={sparsity_weight!r}, outlier_weight={outlier_weight!r}.")
    a = _spread_rows(y, rank)
    s, x = np.zeros((len(y), a.shape[1])), np.zeros_like(y)
    trace = [float(np.vdot(y, y)) / 2]
    for _ in range(max_iterations):
        rest = y - x - s @ a.T
        for j in range(a.shape[1]):
            rest += np.outer(s[:, j], a[:, j])
            s[:, j] = np.maximum(rest @ a[:, j] - sparsity_weight, 0)
            direction = rest.T @ s[:, j]
            length = np.linalg.norm(direction)
            if length > 0:
                a[:, j] = direction / length
            rest -= np.outer(s[:, j], a[:, j])
        rest += x
        x = np.zeros_like(y) if outlier_weight == np.inf else soft(rest, outlier_weight)
        rest -= x
        cost = sparsity_weight * s.sum() + (outlier_weight * np.abs(x).sum() if x.any() else 0.0)
        trace.append(float(np.vdot(rest, rest)) / 2 + float(cost))
        if trace[-2] - trace[-1] <= tolerance * trace[-2]:
            break
    else:
        warnings.warn(f"The objective still falls after {max_iterations} sweeps: allow more `max_iterations`.",
                      stacklevel=2)
    kept = s.any(0)
    return Unmixed(s[:, kept], a[:, kept], x, tuple(trace))


def _spread_rows(y, rank):
    """(m, r): each time the row of ``y`` farthest from the span of those before, norm 1; fewer if ``y`` has no more."""
    rest, rows = y.copy(), []
    smallest = 1e-12 * np.linalg.norm(y, axis=1).max()
    for _ in range(rank):
        length = np.linalg.norm(rest, axis=1)
        best = int(np.argmax(length))
        if length[best] <= smallest:
            break
        rows.append(y[best] / np.linalg.norm(y[best]))
        direction = rest[best] / length[best]
        rest -= np.outer(rest @ direction, direction)
    return np.array(rows).reshape(len(rows), y.shape[1]).T.copy()
