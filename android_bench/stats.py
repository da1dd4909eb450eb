"""Numbers about a list of run times. Pure numpy; no unit is assumed."""

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
    """Median, 95th percentile, mean, population standard deviation, smallest and largest value.

    >>> summary([1.0, 2.0, 3.0])["mean"]
    2.0
    """
    values = _checked(values)
    return {
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


def _checked(values) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(
            f"Expected a list of one or more finite numbers. Received: {values.shape} {values.ravel()[:5]}"
        )
    return values
