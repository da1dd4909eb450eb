"""``ebic``: the extended Bayesian information criterion of a sparse + low-rank fit."""

import numpy as np
from scipy.special import betaln


def log_binomial(n, k):
    """``log C(n, k)``, through the logarithm of the beta function; 0 <= k <= n.

    >>> round(float(log_binomial(5, 2)), 12) == round(float(np.log(10)), 12), float(log_binomial(7, 0))
    (True, 0.0)
    """
    if not 0 <= k <= n:
        raise ValueError(f"`k` of `n` chosen: 0 <= k <= n. Received: n={n!r}, k={k!r}.")
    k = min(k, n - k)
    return 0.0 if k == 0 else float(-betaln(n - k + 1, k + 1) - np.log1p(n))


def ebic(rss, shape, rank, nonzeros, gamma=1.0):
    """``N log(rss / N) + (r (m + n - r) + s) log N + 2 gamma log C(N, s)``, with N = m n: less is better.

    ``r (m + n - r)`` is the dimension of the matrices of rank r; the last term pays for choosing the places of the s
    nonzeros. Chen & Chen, "Extended Bayesian information criteria for model selection with large model spaces"
    (Biometrika 95(3), 2008), used for this model by Ulfarsson, Solo & Marjanovic (ICASSP 2015). Above N / 2 nonzeros
    the binomial would fall again: it is held there. Compare values for one matrix only.

    Args:
        rss: squared Frobenius norm of what the fit leaves, above 0: clamp it, as to ``(1e-14 ||y||)^2``.
        shape: (m, n).
        rank: r of the low-rank part.
        nonzeros: s of the sparse part.
        gamma: 0 (plain BIC) to 1; consistent here above 1/2.

    Raises:
        ValueError: ``rss`` not above 0, ``gamma`` not in [0, 1], more nonzeros or rank than the shape has.

    >>> round(ebic(rss=100.0, shape=(10, 10), rank=1, nonzeros=0), 3)           # 19 log 100
    87.498
    """
    m, n = shape
    total = m * n
    if not (np.isfinite(rss) and rss > 0):
        raise ValueError("`rss` is above 0: clamp the residual of an exact fit, as to (1e-14 ||y||)^2. "
                         f"Received: rss={rss!r}.")
    if not 0 <= gamma <= 1:
        raise ValueError(f"`gamma` is 0 (plain BIC) to 1. Received: gamma={gamma!r}.")
    if not (0 <= rank <= min(m, n) and 0 <= nonzeros <= total):
        raise ValueError(f"A {m} x {n} matrix has rank 0..{min(m, n)} and 0..{total} nonzeros. "
                         f"Received: rank={rank!r}, nonzeros={nonzeros!r}.")
    freedom = rank * (m + n - rank) + nonzeros
    choices = log_binomial(total, min(nonzeros, total // 2))
    return float(total * np.log(rss / total) + freedom * np.log(total) + 2 * gamma * choices)
