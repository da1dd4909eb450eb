"""Numbers about a list of run times. Pure numpy; no unit is assumed."""

from statistics import NormalDist

import numpy as np

OUTLIER_SCORE = 3.5  # modified z-score of Iglewicz & Hoaglin, "How to Detect and Handle Outliers" (1993)


def percentile(values, percent: float) -> float:
    """The value below which `percent` of the values lie, linear between neighbours; 50 is the median.

    >>> percentile([4, 1, 3, 2], 50)
    2.5
    """
    values = _checked(values)
    if not 0 <= percent <= 100:
        raise ValueError(f"A percentile lies in 0..100. Received: {percent}")
    return float(np.percentile(values, percent))


def summary(values) -> dict[str, float]:
    """Median, 5th and 95th percentile, mean, population standard deviation, smallest and largest value.

    >>> summary([1.0, 2.0, 3.0])["mean"]
    2.0
    """
    values = _checked(values)
    return {
        "p5": percentile(values, 5),
        "p50": percentile(values, 50),
        "p95": percentile(values, 95),
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
    }


def mad(values) -> float:
    """Median absolute deviation from the median: a spread that a few wild values can't move.

    >>> mad([1, 1, 2, 2, 4, 6, 9])
    1.0
    """
    values = _checked(values)
    return float(np.median(np.abs(values - np.median(values))))


def outliers(values, score: float = OUTLIER_SCORE) -> np.ndarray:
    """bool (n,): values whose modified z-score 0.6745 |x - median| / MAD is above `score`.

    Where more than half of the values are equal the MAD is 0; the mean absolute deviation stands in for it, as
    Iglewicz & Hoaglin advise.

    >>> outliers([10.0, 10.1, 9.9, 10.0, 50.0]).tolist()
    [False, False, False, False, True]
    """
    values = _checked(values)
    distance = np.abs(values - np.median(values))
    spread = mad(values) / 0.6745 or float(distance.mean()) * 1.253314
    return distance > score * spread if spread else np.zeros(len(values), bool)


def bootstrap_ratio(a, b, *, level: float = 0.95, resamples: int = 2000, seed: int = 0, step: float = 0.0):
    """median(b) / median(a) and its interval: (ratio, low, high).

    Percentile bootstrap of the logarithm, its two half-widths multiplied by t / z * sqrt(n / (n - 1)) with n the
    smaller count and t of len(a) + len(b) - 2 degrees of freedom: the plain bootstrap is far too narrow for the
    three to ten repetitions that one has of a phone. `step` is what the values were rounded to (1 us in the tool's
    log): each drawn value moves by up to half of it, so equal rounded values don't pretend to be exact. The interval
    then holds all that both medians may be: every repetition is rounded alike, so more of them don't average it away.

    >>> [round(float(x), 3) for x in bootstrap_ratio([10.0, 10.0, 10.0], [12.0, 12.0, 12.0])]
    [1.2, 1.2, 1.2]

    Raises:
        ValueError: fewer than 3 values on one side, values of 0 or below.
    """
    a, b = _checked(a), _checked(b)
    if min(a.size, b.size) < 3 or min(a.min(), b.min()) <= 0:
        raise ValueError(f"Expected three or more values above 0 on each side. Received: {a[:5]} and {b[:5]}")
    random = np.random.default_rng(seed)

    def medians(values):
        drawn = random.choice(values, (resamples, values.size))
        drawn = drawn + random.uniform(-step / 2, step / 2, drawn.shape)
        return np.log(np.median(np.maximum(drawn, 1e-3 * values.min()), axis=1))

    ratio = float(np.log(np.median(b)) - np.log(np.median(a)))
    tail = 50 * (1 - level)
    low, high = np.percentile(medians(b) - medians(a), [tail, 100 - tail])
    z = NormalDist().inv_cdf(0.5 + level / 2)
    wider = _student(z, a.size + b.size - 2) / z * np.sqrt(1 + 1 / (min(a.size, b.size) - 1))
    low, high = ratio + wider * min(low - ratio, 0.0), ratio + wider * max(high - ratio, 0.0)
    first, second, half = float(np.median(a)), float(np.median(b)), step / 2
    if step:
        low = min(low, np.log(max(second - half, 1e-3 * second) / (first + half)))
        high = max(high, np.log((second + half) / max(first - half, 1e-3 * first)))
    return tuple(float(np.exp(value)) for value in (ratio, low, high))


def _student(z: float, freedom: int) -> float:
    """The Student t quantile from the normal one: Abramowitz & Stegun 26.7.5, within 2 % from 3 degrees on."""
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def pareto(points: list[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, quality) that no other beats: none is at most as costly and at least as good.

    >>> pareto([(10, .90), (5, .91), (5, .89), (2, .80)])
    [3, 1]
    """
    front, best = [], float("-inf")
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[index][1] > best:
            front.append(index)
            best = points[index][1]
    return front


def _checked(values) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(
            f"Expected a list of one or more finite numbers. Received: {values.shape} {values.ravel()[:5]}"
        )
    return values
