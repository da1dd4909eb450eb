"""Granularities: ``(scores, sparsity) -> masks``, dicts of arrays by tensor path.

Counts are exact: ties go by index.
"""

import numpy as np


def keep_largest(scores, sparsity):
    """A float32 0/1 mask of ``scores``' shape with exactly ``round(sparsity * size)`` zeros.

    >>> import numpy as np
    >>> keep_largest(np.array([3.0, 1.0, 1.0, 1.0]), 0.5).tolist()      # of equals the first are kept
    [1.0, 1.0, 0.0, 0.0]
    """
    return _kept(scores.reshape(-1), int(round(sparsity * scores.size))).astype("float32").reshape(scores.shape)


def _kept(scores, zeros):
    """Which of a flat array stay when exactly ``zeros`` go; of equals the first stay. In linear time: no sorting."""
    if zeros == 0:
        return np.ones(scores.size, bool)
    threshold = np.partition(scores, zeros - 1)[zeros - 1]
    kept = ~(scores <= threshold)                        # NaN ranks last, as in a sort: it stays
    ties = np.flatnonzero(scores == threshold)
    kept[ties[:scores.size - zeros - np.count_nonzero(kept)]] = True
    return kept


def unstructured(scores, sparsity):
    """Single weights, the same share of every tensor."""
    return {path: keep_largest(s, sparsity) for path, s in scores.items()}


def globally(scores, sparsity, floor=0.01):
    """Single weights, ranked over all tensors together; every tensor keeps at least ``floor`` of its weights.

    >>> import numpy as np
    >>> masks = globally({"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0])}, 0.5)
    >>> masks["a"].tolist(), masks["b"].tolist()        # "a" keeps one weight of two: the floor
    ([0.0, 1.0], [0.0, 1.0])
    """
    raised = {}
    for path, s in scores.items():                       # the floor: its best weights rank above everything
        flat = s.reshape(-1).astype("float64")
        best = _kept(flat, flat.size - max(1, int(np.ceil(floor * flat.size))))
        raised[path] = np.where(best, np.inf, flat)
    flat = keep_largest(np.concatenate(list(raised.values())), sparsity)
    parts = np.split(flat, np.cumsum([s.size for s in scores.values()])[:-1])
    return {path: part.reshape(s.shape) for (path, s), part in zip(scores.items(), parts, strict=True)}


GRANULARITIES = {"unstructured": unstructured, "global": globally}
