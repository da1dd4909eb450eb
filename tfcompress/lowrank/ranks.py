"""How many singular values are worth keeping: by energy, by variational Bayes, by the extended BIC."""

import numpy as np
import scipy.optimize

from tfcompress.lowrank.ebic import ebic


def energy_rank(singular_values, share):
    """The smallest rank that keeps a share 0..1 of the sum of squares.

    >>> energy_rank([2.0, 1.0, 0.1], 0.99)
    2
    """
    energies = np.asarray(singular_values, "float64") ** 2
    if not 0 < share <= 1:
        raise ValueError(f"The share of the energy to keep is above 0 and at most 1. Received: {share!r}.")
    kept = np.cumsum(energies)
    return int(np.searchsorted(kept, share * kept[-1] * (1 - 1e-12)) + 1) if kept[-1] > 0 else 1


def vbmf_rank(singular_values, shape):
    """The rank that empirical variational Bayesian matrix factorization finds in a matrix with Gaussian noise.

    The global analytic solution: with noise variance ``v``, L <= M the sizes and ``a = L / M``, a singular value s is
    signal where ``s^2 > M v x``, ``x = (1 + t)(1 + a / t)``, ``t = 2.5129 sqrt(a)``; v is the minimiser of the free
    energy, in one dimension.

    Args:
        singular_values: all min(m, n) of them, falling.
        shape: ``(m, n)`` of the matrix.

    Returns:
        0..min(m, n) - 1: 0 where there is nothing but noise.

    Nakajima S, Sugiyama M, Babacan SD, Tomioka R, "Global analytic solution of fully-observed variational Bayesian
    matrix factorization", JMLR 14, 2013, theorems 2 and 3.

    >>> rng = np.random.default_rng(0)
    >>> planted = rng.normal(size=(60, 4)) @ rng.normal(size=(4, 90)) + 0.3 * rng.normal(size=(60, 90))
    >>> vbmf_rank(np.linalg.svd(planted, compute_uv=False), (60, 90))
    4
    """
    s = np.asarray(singular_values, "float64")
    small, large = sorted(shape)
    if len(s) != small:
        raise ValueError(f"A {tuple(shape)} matrix has {small} singular values. Received: {len(s)}.")
    if small < 2 or s[0] == 0:
        return int(s[0] > 0)
    a, energies = small / large, (s / s[0]) ** 2
    t = 2.5129 * np.sqrt(a)
    bar = (1 + t) * (1 + a / t)

    def free_energy(variance):
        x = energies / (large * variance)
        signal, noise = x[x > bar], np.maximum(x[x <= bar], 1e-300)
        gap = signal - (1 + a)
        tau = 0.5 * (gap + np.sqrt(np.maximum(gap**2 - 4 * a, 0.0)))
        return (np.sum(noise - np.log(noise)) + np.sum(signal - tau) + np.sum(np.log((tau + 1) / signal))
                + a * np.sum(np.log(tau / a + 1)))

    most = int(min(np.ceil(small / (1 + a)) - 1, small - 1))            # more can't be told from noise
    low = max(energies[most] / (large * bar), energies[most:].mean() / large, 1e-14 / large)
    high = max(energies.mean() / large, low * (1 + 1e-9))
    grid = np.geomspace(low, high, 60)
    at = int(np.argmin([free_energy(v) for v in grid]))
    bounds = np.log([grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]])
    found = scipy.optimize.minimize_scalar(lambda v: free_energy(np.exp(v)), bounds=bounds, method="bounded")
    return int((energies > large * np.exp(found.x) * bar).sum())


def ebic_rank(singular_values, shape):
    """The rank of the least extended BIC, for a low-rank matrix in Gaussian noise, of those that save numbers.

    Nearer to full rank the residual tends to 0, and any criterion of information to minus infinity. See ``ebic``.

    >>> ebic_rank([10.0, 8.0] + 18 * [0.1], (20, 20))
    2
    """
    energies = np.asarray(singular_values, "float64") ** 2
    left = np.concatenate([np.cumsum(energies[::-1])[::-1], [0.0]])
    floor = np.finfo("float64").eps ** 2 * max(left[0], 1e-300)
    saving = max(1, -(-shape[0] * shape[1] // sum(shape)))              # ranks below m n / (m + n)
    scores = [ebic(max(rss, floor), shape, rank, 0) for rank, rss in enumerate(left[:saving])]
    return int(np.argmin(scores))
