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
    zeros = int(round(sparsity * scores.size))
    mask = np.ones(scores.size, "float32")
    if zeros:
        # From the back, so that of equal scores the later ones are zeroed: a threshold would zero all or none of them.
        order = np.argsort(scores.reshape(-1)[::-1], kind="stable")[:zeros]
        mask[scores.size - 1 - order] = 0.0
    return mask.reshape(scores.shape)


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
        best = np.argsort(-s.reshape(-1), kind="stable")[:max(1, int(np.ceil(floor * s.size)))]
        raised[path] = s.reshape(-1).astype("float64")
        raised[path][best] = np.inf
    flat = keep_largest(np.concatenate(list(raised.values())), sparsity)
    parts = np.split(flat, np.cumsum([s.size for s in scores.values()])[:-1])
    return {path: part.reshape(s.shape) for (path, s), part in zip(scores.items(), parts, strict=True)}


GRANULARITIES = {"unstructured": unstructured, "global": globally}
