"""Granularities: ``(scores, sparsity) -> masks``, dicts of arrays by tensor path; the largest scores stay.

Counts are exact: ties go by index. Element granularities give masks of the scores' shape; those of whole filters give
``(channels,)``, which multiplies the last axis of the canonical view.
"""

import functools
import re

import numpy as np

from tfcompress.layout import VECTOR_NAMES


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

    ``round(sparsity * weights)`` go, or as many as the floors leave.

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
    flat = np.concatenate(list(raised.values()))
    zeros = min(int(round(sparsity * flat.size)), int(np.sum(~np.isposinf(flat))))
    flat = _kept(flat, zeros).astype("float32")
    parts = np.split(flat, np.cumsum([s.size for s in scores.values()])[:-1])
    return {path: part.reshape(s.shape) for (path, s), part in zip(scores.items(), parts, strict=True)}


def blocks(scores, sparsity, shape=(4, 4)):
    """Blocks of ``shape = (rows, columns)``, the same share of every tensor, scored by the mean over the block.

    A tensor is cut as the matrix (everything but the last axis, output channels); blocks at its lower and right edges
    may be smaller. ``round(sparsity * number of blocks)`` of them go.

    >>> import numpy as np
    >>> scores = np.array([[1, 1, 9], [1, 1, 9], [5, 5, 0]])
    >>> blocks({"w": scores}, 0.5, (2, 2))["w"].tolist()
    [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    """
    high, wide = shape

    def mask(s):
        matrix = s.reshape(-1, s.shape[-1])
        rows, columns = (np.arange(0, n, step) for n, step in zip(matrix.shape, shape, strict=True))
        totals = np.add.reduceat(np.add.reduceat(matrix.astype("float64"), rows, axis=0), columns, axis=1)
        sizes = np.outer(np.minimum(high, matrix.shape[0] - rows), np.minimum(wide, matrix.shape[1] - columns))
        kept = keep_largest(totals / sizes, sparsity)
        return kept.repeat(high, 0)[:matrix.shape[0]].repeat(wide, 1)[:, :matrix.shape[1]].reshape(s.shape)

    return {path: mask(s) for path, s in scores.items()}


def pattern(scores, sparsity, n, m):
    """At most ``n`` of each ``m`` consecutive weights along the inputs of an output channel stay.

    The inputs are counted as the rows of the matrix (everything but the last axis, output channels), so in a
    convolution ``m`` input channels of one tap are neighbours. At ``sparsity = 1 - n / m`` or more every run has its
    pattern; below, the runs that lose least have it, in the same share of every tensor.

    >>> import numpy as np
    >>> scores = np.array([[4.0], [3.0], [2.0], [1.0], [5.0], [6.0]])
    >>> pattern({"w": scores}, 0.5, 2, 4)["w"].ravel().tolist()
    [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    """
    def mask(s):
        matrix = s.reshape(-1, s.shape[-1]).astype("float64")
        rows, columns = matrix.shape
        runs = np.full((-(-rows // m) * m, columns), -np.inf)            # what is missing of the last run ranks last
        runs[:rows] = np.where(np.isnan(matrix), np.inf, matrix)
        runs = runs.T.reshape(columns, -1, m)
        kept = np.zeros(runs.shape, bool)
        np.put_along_axis(kept, np.argsort(-runs, -1, kind="stable")[..., :n], True, -1)
        lost = np.where(kept | np.isneginf(runs), 0.0, runs).sum(-1)
        whole = keep_largest(lost, min(1.0, sparsity / (1 - n / m)))
        kept |= whole[..., None] == 1
        return kept.reshape(columns, -1).T[:rows].astype("float32").reshape(s.shape)

    return {path: mask(s) for path, s in scores.items()}


def regrown(mask, scores, slopes, share):
    """A mask with as many ones, ``round(share * ones)`` of them exchanged: the lowest scores go, and of the zeros those
    with the largest slopes come (arrays of one shape).

    >>> import numpy as np
    >>> regrown(np.array([1, 1, 0, 0]), np.array([5, 3, 0, 0]), np.array([9, 9, 1, 2]), 0.5).tolist()
    [1.0, 0.0, 0.0, 1.0]
    """
    kept, gone = np.flatnonzero(mask), np.flatnonzero(mask.reshape(-1) == 0)
    count = min(int(round(share * len(kept))), len(gone))
    new = np.zeros(mask.size, "float32")
    new[kept[_kept(scores.reshape(-1)[kept], count)]] = 1
    new[gone[_kept(slopes.reshape(-1)[gone], len(gone) - count)]] = 1
    return new.reshape(mask.shape)


def filters(scores, sparsity, labels=None):
    """Whole output channels, the same share of every layer; at least one stays.

    Args:
        scores: per weight (then a filter's score is their sum) or per output channel, ``(channels,)``.
        labels: ``{path: int (channels,)}``, of ``channel_labels``. Channels of one label go together, in whatever
            layers they are: their scores are added up. -1 stays. Without labels every layer stands alone.

    Layers whose channels are coupled throughout count as one layer: ``round(sparsity * labels)`` of theirs go.

    >>> import numpy as np
    >>> scores = {"a": np.array([3.0, 1.0, 2.0]), "b": np.array([0.0, 9.0, 0.0])}
    >>> filters(scores, 1 / 3)
    {'a': array([1., 0., 1.], dtype=float32), 'b': array([1., 1., 0.], dtype=float32)}
    >>> both = np.array([7, 8, 9])                       # added up: 3, 10, 2
    >>> filters(scores, 1 / 3, {"a": both, "b": both})["b"].tolist()
    [1.0, 1.0, 0.0]
    """
    found = _Coupled(scores, labels)
    kept = np.ones(len(found.total), bool)
    for own in found.classes():
        zeros = min(int(round(sparsity * len(own))), len(own) - 1)
        kept[own] = _kept(found.total[own], zeros)
    return found.masks(kept)


def global_filters(scores, sparsity, labels=None, floor=0.05):
    """Whole output channels, ranked over all layers together; of each layer at least a share ``floor`` stays, and one.

    Arguments as for ``filters``. ``round(sparsity * labels)`` go, or as many as the floors leave.

    >>> import numpy as np
    >>> masks = global_filters({"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0, 5.0])}, 0.6)
    >>> masks["a"].tolist(), masks["b"].tolist()         # "a" keeps one of two: the floor
    ([0.0, 1.0], [0.0, 0.0, 1.0])
    """
    found = _Coupled(scores, labels)
    safe = np.zeros(len(found.total), bool)
    for index in found.index.values():
        own = np.unique(index[index >= 0])
        if len(own):
            safe[own[_kept(found.total[own], len(own) - max(1, int(np.ceil(floor * len(own)))))]] = True
    zeros = min(int(round(sparsity * len(safe))), int(np.sum(~safe)))
    return found.masks(_kept(np.where(safe, np.inf, found.total), zeros))


class _Coupled:
    """Scores added up by label. ``index[path]``: which label, counted from 0, each channel has; -1 has none."""

    def __init__(self, scores, labels):
        scores = {path: s.reshape(-1, s.shape[-1]).sum(0, dtype="float64") for path, s in scores.items()}
        labels = own_labels(scores) if labels is None else labels
        self.index = {path: np.asarray(labels.get(path, np.full(s.shape, -1))) for path, s in scores.items()}
        for path, s in scores.items():
            if self.index[path].shape != s.shape:
                raise ValueError(f"Tensor {path!r} has {s.size} output channels. Received labels of shape "
                                 f"{self.index[path].shape} for it.")
        flat = np.concatenate(list(self.index.values())) if scores else np.zeros(0, int)
        known = np.unique(flat[flat >= 0])
        self.index = {path: np.where(own < 0, -1, np.searchsorted(known, own)) for path, own in self.index.items()}
        self.total = np.zeros(len(known))
        for path, s in scores.items():
            stays = self.index[path] < 0
            np.add.at(self.total, self.index[path][~stays], s[~stays])

    def classes(self):
        """Arrays of labels that occur in the very same layers."""
        where = np.stack([np.isin(np.arange(len(self.total)), own) for own in self.index.values()], 1)
        _, group = np.unique(where, axis=0, return_inverse=True)
        return [np.flatnonzero(group.ravel() == g) for g in range(group.max(initial=-1) + 1)]

    def masks(self, kept):
        return {path: np.where(own < 0, True, np.append(kept, True)[own]).astype("float32")
                for path, own in self.index.items()}


def own_labels(weights):
    """Labels with which every layer stands alone: ``{path: int (channels,)}``; of a path's vectors the kernel's.

    >>> import numpy as np
    >>> own_labels({"a/kernel": np.ones((3, 2)), "b/kernel": np.ones((2, 2)), "b/bias": np.ones(2)})
    {'a/kernel': array([0, 1]), 'b/kernel': array([2, 3]), 'b/bias': array([2, 3])}
    """
    labels, start, owners = {}, 0, {}
    for path, w in weights.items():
        owner = path.rpartition("/")[0]
        if path.split("/")[-1] in VECTOR_NAMES:
            continue
        labels[path] = np.arange(start, start + w.shape[-1])
        owners[owner], start = labels[path], start + w.shape[-1]
    for path, w in weights.items():
        if path not in labels:
            own = owners.get(path.rpartition("/")[0])
            labels[path] = own if own is not None and own.shape == w.shape[-1:] else np.full(w.shape[-1], -1)
    return labels


ELEMENTS = {"unstructured": unstructured, "global": globally}
FILTERS = {"filter": filters, "global filter": global_filters, "group": global_filters}


def granularity(name):
    """The function called ``name``: ``"unstructured"``, ``"filter"``, ..., blocks ``"4x4"``, patterns ``"2:4"``.

    >>> granularity("2:4").__name__
    'pattern'
    """
    if name in ELEMENTS or name in FILTERS:
        return {**ELEMENTS, **FILTERS}[name]
    found = re.fullmatch(r"(\d+)([x:])(\d+)", str(name))
    if found:
        one, two = int(found[1]), int(found[3])
        if found[2] == "x" and one > 0 and two > 0:
            return _named(blocks, shape=(one, two))
        if found[2] == ":" and 0 < one < two:
            return _named(pattern, n=one, m=two)
    raise ValueError(f"Unknown granularity {name!r}. Known: {sorted([*ELEMENTS, *FILTERS])}, blocks of rows x output "
                     "channels such as '4x4', and patterns such as '2:4' (2 of 4 stay).")


def _named(function, **options):
    return functools.update_wrapper(functools.partial(function, **options), function)
