"""The exact projection of weights onto ``alpha * codes`` with a free scale: what ADMM and least squares rest on."""

import numpy as np

from tfcompress.quantization.groups import gathered, members

LARGE, BINS = 100_000, 16_384     # above so many weights, the sweep runs over a histogram of their magnitudes
CHUNK = 1 << 20


def check_levels(levels) -> tuple:
    """``levels`` as a tuple of growing magnitudes >= 0, the largest above 0; a ValueError for anything else."""
    values = tuple(float(level) for level in levels)
    if not values or values[0] < 0 or values[-1] <= 0 or any(a >= b for a, b in zip(values, values[1:], strict=False)):
        raise ValueError("`levels` are the magnitudes of the codes, growing, from 0 on where 0 is a code: (1,) for "
                         f"+-1, (0, 1, 2, 4) for 0, +-1, +-2, +-4. Received: levels={levels!r}.")
    return tuple(int(value) if value == int(value) else value for value in values)


def project(v, levels):
    """The nearest point to ``v`` of ``{alpha * q: alpha >= 0, |q_i| in levels}``.

    As ``alpha`` falls, element i steps up from level j to j + 1 at ``|v_i| / mid_j``. All these breakpoints are swept
    in falling order with running sums ``A = sum |v| |q|`` and ``B = sum q^2``; where ``A^2 / B`` is largest is the best
    point, with ``alpha = A / B``. O(d m log d m), exact; above 1e5 weights the sweep runs over 16,384 bins of ``|v|``,
    then codes and scale are fitted to the weights themselves (excess error 1e-8). Leng et al. 2018 (arXiv:1707.09870)
    iterate instead, and stop at local optima. Weights that are exactly 0 stay 0: they are pruned.

    Args:
        v: weights, any shape.
        levels: magnitudes of the codes, growing: ``(0, 1, 2, 4)``.

    Returns:
        ``(alpha, q)``: a float >= 0, and codes of the shape of ``v``, float32.

    >>> alpha, q = project(np.array([0.9, -0.1, 2.1, -1.0]), (0, 1, 2))
    >>> round(alpha, 3), q.tolist()
    (1.017, [1.0, 0.0, 2.0, -1.0])
    """
    v = np.asarray(v)
    flat = v.reshape(-1)
    if flat.size > LARGE:
        alpha, q = _by_histogram(flat, levels)
    else:
        alpha, q = _by_sweep(flat, levels)
    return alpha, q.reshape(v.shape)


def project_groups(v, levels, scales):
    """``(alphas, q)``: ``project`` for each group that shares a scale (``groups.py``); alphas (groups,), float32."""
    found = [project(part, levels) for part in members(np.asarray(v), scales)]
    alphas = np.array([alpha for alpha, _ in found], "float32")
    return alphas, gathered(np.stack([q for _, q in found]), v.shape, scales)


def nearest(v, alpha, levels):
    """Codes of the nearest points to ``v`` at a given scale, float32; what is exactly 0 stays 0."""
    flat = np.asarray(v).reshape(-1)
    q = np.empty(flat.size, "float32")
    steps = [(alpha * (low + high) / 2, high - low) for low, high in zip(levels, levels[1:], strict=False)]
    for start in range(0, flat.size, CHUNK):             # in pieces that stay in the cache
        part = flat[start:start + CHUNK]
        size = np.abs(part)
        code = np.full(part.size, levels[0], "float32")
        for boundary, step in steps:
            code += np.float32(step) * (size > boundary)
        code[part == 0] = 0
        q[start:start + CHUNK] = np.copysign(code, part) + np.float32(0)     # no -0
    return q.reshape(np.shape(v))


def _best_prefix(size, count, levels):
    """``(alpha, order, k)``: the first ``k`` breakpoints, in that order, are taken. ``count`` weights of each size."""
    low, high = np.array(levels[:-1], "float64"), np.array(levels[1:], "float64")
    breakpoints = (size / ((low + high) / 2)[:, None]).ravel() if len(levels) > 1 else np.zeros(0)
    order = np.argsort(-breakpoints, kind="stable")
    gain_a = ((high - low)[:, None] * (size * count)).ravel()[order]
    gain_b = ((high**2 - low**2)[:, None] * count).ravel()[order]
    a = levels[0] * np.dot(size, count) + np.concatenate([[0.0], np.cumsum(gain_a)])
    b = levels[0] ** 2 * count.sum() + np.concatenate([[0.0], np.cumsum(gain_b)])
    k = int(np.argmax(np.divide(a * a, b, out=np.zeros_like(a), where=b > 0)))
    return (a[k] / b[k] if b[k] > 0 else 0.0), order, k


def _by_sweep(flat, levels):
    size = np.abs(flat).astype("float64")
    largest = size.max(initial=0.0)
    if largest == 0:
        return 0.0, np.zeros(flat.size, "float32")
    used = np.flatnonzero(size)
    part = size[used] / largest                          # squares of 1e30 stay finite
    alpha, order, k = _best_prefix(part, np.ones(part.size), levels)
    taken = np.zeros(order.size, bool)
    taken[order[:k]] = True
    code = np.full(part.size, levels[0], "float64")
    for step, on in zip(np.diff(levels), taken.reshape(-1, part.size), strict=True):
        code += step * on
    q = np.zeros(flat.size, "float32")
    q[used] = np.copysign(code, flat[used]) + 0.0    # no -0
    return float(alpha * largest), q


def _by_histogram(flat, levels):
    largest = float(max(flat.max(), -flat.min()))
    if largest == 0:
        return 0.0, np.zeros(flat.size, "float32")
    counts, sums = np.zeros(BINS), np.zeros(BINS)
    for start in range(0, flat.size, CHUNK):
        size = np.abs(flat[start:start + CHUNK]) / flat.dtype.type(largest)
        size = size[size > 0]
        index = np.minimum((size * BINS).astype("int32"), BINS - 1)
        counts += np.bincount(index, minlength=BINS)
        sums += np.bincount(index, weights=size, minlength=BINS)
    used = counts > 0
    alpha, _, _ = _best_prefix(sums[used] / counts[used], counts[used], levels)
    q = nearest(flat, alpha * largest, levels)
    a, b = _products(flat, q)
    return a / b, q


def _products(v, q):
    """``sum |v| |q|`` and ``sum q^2``, added up in float64 piece by piece."""
    a = b = 0.0
    for start in range(0, v.size, CHUNK):
        part = q[start:start + CHUNK]
        a += float(np.dot(v[start:start + CHUNK], part))
        b += float(np.dot(part, part))
    return a, b
