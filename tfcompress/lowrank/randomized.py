"""Truncated decompositions from a random sketch: ``sor_svd`` and the rank-revealing ``randomized_utv``."""

import operator

import numpy as np
from scipy.linalg import qr

SMALL, SHARE = 64, 4     # a full SVD is as quick up to so many columns, or for more than 1/4 of all singular values


def check_matrix(a, name="a"):
    """``a`` as a float64 matrix; a ValueError for what is not 2-D, empty, not real, or not finite."""
    a = np.asarray(a)
    if a.ndim != 2 or a.size == 0 or a.dtype.kind not in "biuf":
        raise ValueError(f"`{name}` is a real matrix (2-D) with at least one row and column; reshape a kernel first. "
                         f"Received: shape {a.shape}, dtype {a.dtype}.")
    a = a.astype("float64")
    if not np.isfinite(a).all():
        count = a.size - int(np.isfinite(a).sum())
        raise ValueError(f"`{name}` holds finite numbers. Received {count} NaN or infinite entries of {a.size}: "
                         "replace or remove them.")
    return a


def check_rank(rank, shape):
    """``rank`` as an int, at most the smaller side of ``shape``; a ValueError for less than 0 or no whole number."""
    try:
        value = operator.index(rank)
    except TypeError:
        value = -1
    if value < 0:
        raise ValueError(f"`rank` is a whole number from 0 on. Received: rank={rank!r}.")
    return min(value, *shape)


def orthonormal(a):
    """An orthonormal basis for the columns of ``a``."""
    return np.linalg.qr(a)[0]


def _orbit(a, rank, oversample, power, seed, start=None):
    """``(q1, q2, r2)`` with ``a ~ q1 @ r2.T @ q2.T``: bases of ``(a a')^power a omega`` and of ``a' q1``."""
    omega = np.random.default_rng(seed).standard_normal((a.shape[1], min(rank + oversample, *a.shape)))
    if start is not None:
        omega[:, :len(start)] = start.T[:, :omega.shape[1]]
    q1 = orthonormal(a @ omega)
    for _ in range(power):
        q1 = orthonormal(a @ orthonormal(a.T @ q1))
    return q1, *np.linalg.qr(a.T @ q1)


def sor_svd(a, rank, *, oversample=10, power=2, seed=0, start=None):
    """The first ``rank`` singular values and vectors of ``a``, by a subspace-orbit randomised SVD.

    A Gaussian sketch of ``rank + oversample`` columns goes ``power`` times through ``a a'``; with ``q1`` and ``q2``,
    bases of what comes out and of ``a' q1``, the SVD of the small ``q1' a q2`` gives the factors. Every pass is
    orthonormalised, so small singular values survive, and ``q1' a q2`` is the triangle of the last QR: it costs no
    pass. Kaloorazi & de Lamare, "Subspace-orbit randomized decomposition for low-rank matrix approximations" (IEEE
    Trans. Signal Processing 66(16), 2018; arXiv:1804.00462). Exact for matrices of rank up to ``rank + oversample``;
    for others the error nears the optimum as ``power`` grows: 1 is enough where the spectrum has a gap.

    Args:
        a: real matrix (m, n).
        rank: k, how many singular values; what is above ``min(m, n)`` means all.
        oversample: columns of the sketch beyond ``rank``.
        power: extra passes through ``a a'``.
        seed: of the sketch; the same seed gives the same factors.
        start: (j, n), rows that the sketch begins with: a guess of ``vt``. The result is then at least as near to ``a``
            as ``a @ start.T @ start`` (orthonormal rows, j <= rank).

    Returns:
        ``(u, s, vt)``, float64: (m, k) orthonormal, (k,) falling, (k, n) orthonormal.

    Raises:
        ValueError: ``a`` is no finite real matrix, ``rank`` no whole number from 0 on.

    >>> a = np.outer([1.0, 2.0, 2.0], [3.0, 4.0])
    >>> u, s, vt = sor_svd(a, 1)
    >>> s.round(9).tolist(), bool(np.allclose(u * s @ vt, a))
    ([15.0], True)
    """
    a = check_matrix(a)
    rank = check_rank(rank, a.shape)
    q1, q2, r2 = _orbit(a, rank, oversample, power, seed, start)
    u, s, vt = np.linalg.svd(r2.T)
    return q1 @ u[:, :rank], s[:rank], vt[:rank] @ q2.T


def randomized_utv(a, rank, *, oversample=10, power=2, seed=0):
    """``a ~ u @ t @ vt`` with a triangular ``t`` whose diagonal reveals the rank; cheaper than an SVD of the middle.

    The bases of ``sor_svd`` with, between them, two pivoted QRs of the small ``q1' a q2`` instead of its SVD: the first
    sorts, the second makes what is above the diagonal small, so that cutting ``t`` to ``rank`` costs little. The
    diagonal follows the singular values. Kaloorazi & de Lamare, "Compressed randomized UTV decompositions for low-rank
    matrix approximations" (IEEE J. Sel. Topics in Signal Processing 12(6), 2018); the two QRs are Stewart's pivoted QLP
    (SIAM J. Sci. Comput. 20(4), 1999).

    Args:
        a, rank, oversample, power, seed: as in ``sor_svd``; take ``rank`` above the one you look for.

    Returns:
        ``(u, t, vt)``, float64: (m, k) orthonormal; (k, k) upper triangular with a falling diagonal >= 0; (k, n)
        orthonormal.

    >>> u, t, vt = randomized_utv(np.outer([1.0, 2.0, 2.0], [3.0, 4.0]), 2)
    >>> np.diag(t).round(9).tolist(), revealed_rank(t)
    ([15.0, 0.0], 1)
    """
    a = check_matrix(a)
    rank = check_rank(rank, a.shape)
    q1, q2, r2 = _orbit(a, rank, oversample, power, seed)
    right, lower, order = qr(r2, pivoting=True)
    left, t, columns = qr(lower.T, pivoting=True)
    u, v = q1[:, order] @ left, q2 @ right[:, columns]
    sign = np.where(np.diag(t) < 0, -1.0, 1.0)
    return (u * sign)[:, :rank], (sign[:, None] * t)[:rank, :rank], v[:, :rank].T


def revealed_rank(t, gap=0.1, tolerance=1e-12):
    """The numerical rank that the diagonal of a rank-revealing triangle shows.

    Entries up to ``tolerance * |t_11|`` are zeros. Where two neighbours of the others fall by more than ``gap``, the
    rank ends at the largest relative fall; without such a fall, all of them count.

    Args:
        t: triangle of ``randomized_utv``, or any matrix with falling values on its diagonal.
        gap: a fall to less than this share ends the rank.
        tolerance: what is nothing, beside the first entry.

    Returns:
        An int, 0 for a zero matrix.

    >>> revealed_rank(np.diag([9.0, 7.0, 0.2, 0.1])), revealed_rank(np.diag([9.0, 7.0, 5.0])), revealed_rank([[0.0]])
    (2, 3, 0)
    """
    size = np.abs(np.diag(check_matrix(t, "t")))
    size = size[:int(np.sum(size > tolerance * size[0]))]
    if size.size < 2:
        return size.size
    falls = size[1:] / size[:-1]
    return int(np.argmin(falls)) + 1 if falls.min() < gap else size.size


def leading_svd(a, rank, *, seed=0, start=None):
    """``(u, s, vt)`` of rank ``rank``: ``sor_svd`` for a large matrix and a small rank, else the full SVD, cut."""
    if min(a.shape) <= SMALL or SHARE * rank > min(a.shape):
        u, s, vt = np.linalg.svd(a, full_matrices=False)
        return u[:, :rank], s[:rank], vt[:rank]
    return sor_svd(a, rank, power=1 if start is not None and len(start) else 2, seed=seed, start=start)
