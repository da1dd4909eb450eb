"""Criteria: ``(weights, model, data) -> scores``, dicts of arrays by tensor path; the smallest scores go first.

A tensor's scores have its shape (one a weight), or ``(channels,)``: one a filter, the last axis of the canonical view.
"""

import zlib

import numpy as np

from tfcompress.pruning.behaviour import behaviour
from tfcompress.pruning.gradients import information_gain, slope, slope_both, taylor, taylor2
from tfcompress.pruning.lrp import relevance
from tfcompress.pruning.outputs import outputs_of
from tfcompress.wrapper import read


def random(weights, model=None, data=None, seed=0):
    """Uniform noise in [0, 1), one score a weight: the control. The same for the same seed, path and shape.

    >>> bool((random({"a": np.ones(3)})["a"] == random({"a": np.zeros(3), "b": np.ones(2)})["a"]).all())
    True
    """
    return {path: np.random.default_rng([seed, zlib.crc32(path.encode()), *w.shape]).random(w.shape)
            for path, w in weights.items()}


def magnitude(weights, model=None, data=None):
    """``|w|`` (Han et al. 2015, arXiv:1506.02626).

    >>> import numpy as np
    >>> magnitude({"a": np.array([-2.0, 1.0])})["a"].tolist()
    [2.0, 1.0]
    """
    return {path: np.abs(w) for path, w in weights.items()}


def l1_norm(weights, model=None, data=None):
    """``sum |w|`` over each filter (Li et al. 2017, arXiv:1608.08710), one score a filter.

    >>> l1_norm({"a": np.array([[3.0, 1.0], [-4.0, 0.0]])})["a"].tolist()
    [7.0, 1.0]
    """
    return {path: _filters(np.abs(w)).sum(0) for path, w in weights.items()}


def l2_norm(weights, model=None, data=None):
    """``sqrt(sum w ** 2)`` over each filter (He et al. 2018, arXiv:1808.06866), one score a filter.

    >>> l2_norm({"a": np.array([[3.0, 1.0], [-4.0, 0.0]])})["a"].tolist()
    [5.0, 1.0]
    """
    return {path: np.sqrt(np.square(_filters(w)).sum(0)) for path, w in weights.items()}


def geometric_median(weights, model=None, data=None):
    """Sum of a filter's distances to the others of its layer (FPGM, He et al. 2019, arXiv:1811.00250), one a filter.

    The filter nearest to the layer's geometric median says least that the others don't; its size doesn't matter.

    >>> geometric_median({"a": np.array([[0.0, 5.0, 6.0, 9.0]])})["a"].tolist()      # distances on a line
    [20.0, 10.0, 10.0, 16.0]
    """
    scores = {}
    for path, w in weights.items():
        flat, gram = _filters(w), 0.0
        flat = flat - flat.mean(1, keepdims=True, dtype="float64")
        for rows in np.array_split(flat, max(1, flat.size // 2 ** 24)):
            gram = gram + rows.T @ rows
        squares = np.diag(gram)
        scores[path] = np.sqrt(np.maximum(squares[:, None] + squares - 2 * gram, 0)).sum(0)
    return scores


def bn_scale(weights, model=None, data=None):
    """``|gamma|`` of the BatchNormalization that alone reads the kernel's output, one a filter.

    Network slimming, Liu et al. 2017 (arXiv:1708.06519). A kernel without such a layer, or with one that has no scale,
    is scored by its filters' L2 norms over their mean: within it that is sound, over layers it mixes two units.

    Raises:
        ValueError: ``model`` is None.
    """
    if model is None:
        raise ValueError("bn_scale reads the model's normalizations. Received: model=None. Pass model=.")
    norms, scores = outputs_of(model).norms, l2_norm(weights)
    for path, s in scores.items():
        norm = norms.get(path)
        scaled = norm is not None and norm.scale
        scores[path] = np.abs(read(norm.gamma)) if scaled else s / max(float(np.mean(s)), 1e-30)
    return scores


def per_cost(scores, cost):
    """``scores / cost``: what goes first is what matters least for what it costs.

    Args:
        scores: ``{tensor path: array}``, of the weight's shape or ``(channels,)``.
        cost: ``{tensor path: number or (channels,)}``, positive: FLOPs, bytes or measured milliseconds a channel.

    Raises:
        ValueError: a tensor without cost, or a cost that is not positive.

    >>> per_cost({"a": np.array([2.0, 4.0]), "b": np.array([3.0])}, {"a": 2.0, "b": [1.0]})["a"].tolist()
    [1.0, 2.0]
    """
    wrong = [path for path in scores if path not in cost or not (np.asarray(cost[path]) > 0).all()]
    if wrong:
        raise ValueError(f"Every tensor needs a positive cost a channel. Received none, or one <= 0, for: {wrong}. "
                         f"Costs were given for: {list(cost)}.")
    return {path: s / np.asarray(cost[path], "float64") for path, s in scores.items()}


def _filters(w):
    """One column a filter; a vector has one entry a filter."""
    return w.reshape(-1, w.shape[-1])


CRITERIA = {
    "random": random, "magnitude": magnitude, "l1_norm": l1_norm, "l2_norm": l2_norm,
    "geometric_median": geometric_median, "bn_scale": bn_scale,
    "slope": slope, "slope_both": slope_both, "taylor": taylor, "taylor2": taylor2,
    "information_gain": information_gain, "relevance": relevance, "behaviour": behaviour,
}
