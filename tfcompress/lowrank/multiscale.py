"""``multiscale_low_rank``: a matrix as a sum of block-wise low-rank matrices, from single entries to the whole."""

import warnings

import numpy as np

from tfcompress.lowrank.randomized import check_matrix
from tfcompress.lowrank.robust_pca import soft

BALANCE = 3.0     # rho moves while one residual is so many times the other


def multiscale_low_rank(y, blocks, weights=None, *, shifts=False, tolerance=1e-4, max_iterations=1000, seed=0):
    """``min sum_i weight_i ||X_i||_(i)`` subject to ``sum_i X_i = y``; ``||.||_(i)``: the blocks' nuclear norms, added.

    By ADMM, over the scales i of L: ``X_i = Z_i - U_i + (y - sum_j (Z_j - U_j)) / L``; ``Z_i`` is ``X_i + U_i``, the
    singular values of each block softened by ``weight_i / rho``; ``U_i += X_i - Z_i``. ``rho`` starts at one over the
    root mean square of ``y`` and balances the two residuals. Ong & Lustig, "Beyond low rank + sparse: multiscale low
    rank matrix decomposition" (IEEE J. Sel. Topics in Signal Processing 10(4), 2016; arXiv:1507.08751). Blocks of 1 are
    soft thresholding, one block of all is singular-value thresholding: both together are
    ``principal_component_pursuit``. Blocks at the far edges are padded with zeros. Scales that are hard to tell apart
    come to rest slowly, but at any time the X_i add up to ``y``.

    Args:
        y: real matrix (m, n).
        blocks: one a scale: a side, (rows, columns), or "noise", where all of ``y`` is one vector (its Frobenius norm).
            What is larger than ``y`` is the whole.
        weights: above 0, one a scale; None: ``sqrt(m_i) + sqrt(n_i) + sqrt(log2(b_i min(m_i, n_i)))`` for b_i blocks.
        shifts: each iteration cuts the blocks at another place, cyclically, which hides their edges; there is no rest
            then, and ``max_iterations`` are done.
        tolerance: of both residuals, beside the norms of ``y`` and of U; a warning after ``max_iterations``.
        seed: of the shifts.

    Returns:
        A list with a float64 matrix (m, n) for each scale; they add up to ``y``.

    Raises:
        ValueError: ``y`` is no finite real matrix; no blocks, bad ones, or other than one weight above 0 for each.

    >>> y = np.full((16, 16), 3.0)
    >>> y[2, 5] += 40
    >>> single, whole = multiscale_low_rank(y, [1, 16], tolerance=1e-6)
    >>> np.argwhere(single.round(3)).tolist(), float(single[2, 5].round(3)), float(whole[0, 0].round(3))
    ([[2, 5]], 40.0, 3.0)
    """
    y = check_matrix(y, "y")
    blocks = check_blocks(blocks, y.shape)
    weights = [scale_weight(block, y.shape) for block in blocks] if weights is None else list(weights)
    if len(weights) != len(blocks) or not all(np.isfinite(w) and w > 0 for w in weights):
        raise ValueError(f"`weights` are above 0, one for each of the {len(blocks)} scales. "
                         f"Received: weights={weights!r}.")
    if max_iterations < 1:
        raise ValueError(f"`max_iterations` is at least 1. Received: max_iterations={max_iterations!r}.")
    largest = np.abs(y).max()
    scale = largest * float(np.sqrt(np.mean((y / largest) ** 2))) if largest else 1.0
    x, ended = _solve(y / scale, blocks, weights, shifts, tolerance, max_iterations, np.random.default_rng(seed))
    if not (ended or shifts):
        warnings.warn(f"The scales still move after {max_iterations} iterations: allow more `max_iterations` or more "
                      "`tolerance`.", stacklevel=2)
    return [scale * part for part in x]


def _solve(y, blocks, weights, shifts, tolerance, max_iterations, rng):
    z, u, rho, ended = np.zeros((len(blocks), *y.shape)), np.zeros((len(blocks), *y.shape)), 1.0, False
    size = np.linalg.norm(y)
    for iteration in range(max_iterations):
        x = z - u
        x += (y - x.sum(0)) / len(blocks)
        before = z
        z = np.stack([_shrunk(part, block, weight / rho, rng if shifts else None)
                      for part, block, weight in zip(x + u, blocks, weights, strict=True)])
        u = u + x - z
        apart, moved = np.linalg.norm(x - z), np.linalg.norm(z - before)
        ended = not shifts and apart <= tolerance * size and moved <= tolerance * np.linalg.norm(u)
        if ended:
            break
        if iteration < max_iterations // 2 and not shifts:
            apart, moved = apart / size, moved / max(np.linalg.norm(u), 1e-300)
            factor = 2.0 if apart > BALANCE * moved else 0.5 if moved > BALANCE * apart else 1.0
            rho, u = rho * factor, u / factor
    return x, ended


def check_blocks(blocks, shape):
    """``blocks`` as a list of ``(rows, columns)`` or "noise", none larger than ``shape``."""
    found = []
    for block in blocks:
        pair = block if isinstance(block, tuple | list) else (block, block)
        whole = len(pair) == 2 and all(isinstance(side, int | np.integer) and side > 0 for side in pair)
        if not (whole or isinstance(block, str) and block == "noise"):
            raise ValueError("`blocks` are, one a scale, a side >= 1, a pair (rows, columns), or 'noise'. "
                             f"Received: {block!r}.")
        found.append(tuple(map(min, pair, shape)) if whole else block)
    if not found:
        raise ValueError("`blocks` names at least one scale, as [1, 8, 64]. Received none.")
    return found


def scale_weight(block, shape):
    """``sqrt(m_i) + sqrt(n_i) + sqrt(log2(b_i min(m_i, n_i)))``: about the norm of unit noise in the worst block.

    >>> scale_weight((4, 4), (8, 8)), scale_weight("noise", (4, 4))
    (6.0, 5.0)
    """
    m, n = (shape[0] * shape[1], 1) if block == "noise" else block
    count = 1 if block == "noise" else -(-shape[0] // m) * -(-shape[1] // n)
    return float(np.sqrt(m) + np.sqrt(n) + np.sqrt(np.log2(count * min(m, n))))


def cut(x, block):
    """(blocks down, blocks across, rows, columns): the blocks of ``x``, padded with zeros.

    >>> cut(np.arange(6.0).reshape(2, 3), (2, 2))[0, 1].tolist()
    [[2.0, 0.0], [5.0, 0.0]]
    """
    rows, columns = block
    padded = np.pad(x, ((0, -x.shape[0] % rows), (0, -x.shape[1] % columns)))
    return padded.reshape(padded.shape[0] // rows, rows, -1, columns).swapaxes(1, 2)


def joined(parts, shape):
    """What ``cut`` came from: a matrix of ``shape``."""
    down, across, rows, columns = parts.shape
    return parts.swapaxes(1, 2).reshape(down * rows, across * columns)[:shape[0], :shape[1]]


def block_threshold(x, block, threshold):
    """``x`` with the singular values of each block softened by ``threshold``; "noise": ``x`` shortened by it."""
    if block == "noise":
        length = np.linalg.norm(x)
        return x * (max(length - threshold, 0.0) / length if length else 0.0)
    if block == (1, 1):
        return soft(x, threshold)
    u, s, vt = np.linalg.svd(cut(x, block), full_matrices=False)
    return joined(u * np.maximum(s - threshold, 0)[..., None, :] @ vt, x.shape)


def _shrunk(x, block, threshold, rng):
    if rng is None or block == "noise":
        return block_threshold(x, block, threshold)
    offset = tuple(int(rng.integers(side)) for side in block)
    moved = block_threshold(np.roll(x, offset, (0, 1)), block, threshold)
    return np.roll(moved, (-offset[0], -offset[1]), (0, 1))


def block_storage(x, block, tolerance=1e-3):
    """Numbers that the factors of all blocks hold: the sum of ``rank * (rows + columns)``.

    Args:
        x: a component, (m, n).
        block: its ``(rows, columns)``, or a side.
        tolerance: singular values up to this share of the largest are none: more than what ``x`` was solved to.

    >>> block_storage(np.kron(np.eye(2), np.ones((4, 4))), 4)
    16
    """
    x = check_matrix(x, "x")
    (block,) = check_blocks([block], x.shape)
    if block == "noise":
        return x.size if x.any() else 0
    s = np.linalg.svd(cut(x, block), compute_uv=False)
    return int(np.sum((s > tolerance * s.max()) & (s > 0))) * sum(block)
