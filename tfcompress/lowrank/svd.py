"""A matrix as the product of two thin ones: by its own singular values, or by what they do to given data."""

import numpy as np
import scipy.linalg

from tfcompress.lowrank.randomized import check_matrix


def truncated_svd(w, rank):
    """The two factors of the rank-``rank`` matrix nearest to ``w``: ``w ~ left @ right``.

    ``left = U_r sqrt(S_r)``, ``right = sqrt(S_r) V_r'``: both are of one size, so one learning rate suits them. By
    eigenvectors of ``w'w``: the error is the least up to 1e-8 ``||w||``, below the rounding of a float32 kernel.

    Args:
        w: real (m, n).
        rank: 0..min(m, n).

    Returns:
        ``left`` (m, rank), ``right`` (rank, n), float64. They have ``rank * (m + n)`` numbers: fewer than ``w`` where
        ``rank < m * n / (m + n)``.

    Raises:
        ValueError: ``w`` is no finite matrix, or has no such rank.

    Eckart C, Young G, "The approximation of one matrix by another of lower rank", Psychometrika 1, 1936.

    >>> left, right = truncated_svd([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]], 1)
    >>> (left @ right).round(12).tolist()
    [[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    w = matrix(w, rank)
    if w.shape[0] < w.shape[1]:
        right, left = _along(np.ascontiguousarray(w.T), rank)
        return left.T, right.T
    return _along(w, rank)


def _along(w, rank):
    """The factors by the eigenvectors of ``w'w``: several times quicker than an SVD."""
    if not rank:
        return np.zeros((len(w), 0)), np.zeros((0, w.shape[1]))
    last = w.shape[1] - 1
    vectors = scipy.linalg.eigh(w.T @ w, subset_by_index=(last + 1 - rank, last))[1]
    return _balanced(w, np.ascontiguousarray(vectors[:, ::-1]))


def _balanced(w, basis):
    """``w @ basis`` and ``basis.T``, scaled so that both are of one size."""
    left = w @ basis
    size = np.linalg.norm(left, axis=0)
    root = np.sqrt(np.where(size > 0, size, 1.0))
    return left / root, basis.T * root[:, None]


def energies(w):
    """The squared singular values of ``w``, falling, right to 1e-16 of their sum."""
    w = matrix(w)
    values = scipy.linalg.eigvalsh(w @ w.T if w.shape[0] < w.shape[1] else w.T @ w)
    return np.maximum(values[::-1], 0.0)


def data_aware_svd(w, covariance, rank):
    """The factors that change ``x @ w`` least, for data ``x`` of a given second moment: ``w ~ left @ right``.

    With ``C = L'L`` the best matrix is ``L^-1 trunc_r(L w)``; that is ``w V_r V_r'``, with ``V_r`` the eigenvectors of
    ``w' C w`` of the ``rank`` largest eigenvalues, which needs no inverse: C may be singular.

    Args:
        w: real (m, n).
        covariance: symmetric (m, m), the mean of ``x' x`` over the data; centred where a bias takes the mean up.
        rank: 0..min(m, n).

    Returns:
        ``left`` (m, rank), ``right`` (rank, n), float64; ``trace((w - left @ right)' C (w - left @ right))`` is the
        least that any matrix of this rank has.

    Raises:
        ValueError: ``w`` is no finite matrix, has no such rank, or the covariance has another size.

    Zhang X et al., "Accelerating very deep convolutional networks for classification and detection", IEEE TPAMI 2016,
    arXiv:1505.06798, without the nonlinearity.

    >>> left, right = data_aware_svd([[2.0, 0.0], [0.0, 1.0]], [[0.01, 0.0], [0.0, 1.0]], 1)
    >>> (left @ right).round(12).tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    w = matrix(w, rank)
    return _balanced(w, output_basis(w, covariance)[1][:, :rank])


def output_basis(w, covariance):
    """Energy of ``x @ w`` along its principal directions, falling, and those directions: ``(n,)``, ``(n, n)``."""
    covariance = np.asarray(covariance, "float64")
    if covariance.shape != (len(w), len(w)):
        raise ValueError(f"The covariance of the inputs of a {w.shape} matrix is {(len(w), len(w))}. "
                         f"Received: {covariance.shape}.")
    values, vectors = scipy.linalg.eigh(w.T @ covariance @ w)
    return np.maximum(values[::-1], 0.0), np.ascontiguousarray(vectors[:, ::-1])


def matrix(w, rank=0):
    """``w`` in float64; ValueError where it is no finite matrix, or has no such rank."""
    w = check_matrix(w, "w")
    if not isinstance(rank, (int, np.integer)) or not 0 <= rank <= min(w.shape):
        raise ValueError(f"The rank of a {w.shape} matrix is an int from 0 to {min(w.shape)}. Received: {rank!r}.")
    return w


def tails(energies):
    """Share of the energy that is lost at rank 0, 1, ...: from falling energies (n,), an array (n + 1,) from 1 to 0.

    >>> tails([3.0, 1.0]).tolist()
    [1.0, 0.25, 0.0]
    """
    energies = np.asarray(energies, "float64")
    left = np.concatenate([np.cumsum(energies[::-1])[::-1], [0.0]])
    return left / left[0] if left[0] > 0 else np.zeros(len(left))
