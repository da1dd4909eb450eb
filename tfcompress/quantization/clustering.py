"""``Cluster``: weight sharing, a codebook of a few values a tensor that goes on training (Deep Compression)."""

import math
from dataclasses import dataclass

import numpy as np
from keras import ops

from tfcompress.method import Method, serializable


def nearest_center(values, centers):
    """Index of the nearest of the ascending ``centers`` for each value, int64; a tie takes the lower one.

    >>> nearest_center(np.array([0.1, 0.6, 0.5, 9.0]), np.array([0.0, 1.0])).tolist()
    [0, 1, 0, 1]
    """
    return np.searchsorted((centers[1:] + centers[:-1]) / 2, values)


def k_means(values, centers, fixed=None, steps=100):
    """Lloyd's k-means of numbers, from the given ascending centres: ``(centres, codes)``, float64 and int64.

    Sorted once, a step costs a look-up a centre: prefix sums give the means. Stops where nothing moves. A centre that
    is nearest to no value stays where it is; centre number ``fixed`` never moves.

    >>> found, codes = k_means(np.array([1.0, 9.0, 2.0, 10.0]), np.array([0.0, 4.0]))
    >>> found.tolist(), codes.tolist()
    ([1.5, 9.5], [0, 1, 0, 1])
    """
    centers = np.array(centers, "float64")
    ordered = np.sort(np.ravel(values).astype("float64"))
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(steps):
        edges = np.searchsorted(ordered, (centers[1:] + centers[:-1]) / 2, side="right")
        edges = np.concatenate([[0], edges, [len(ordered)]])
        count = np.diff(edges)
        new = np.where(count > 0, np.diff(sums[edges]) / np.maximum(count, 1), centers)
        if fixed is not None:
            new[fixed] = centers[fixed]
        if np.array_equal(new, centers):
            break
        centers = new
    return centers, nearest_center(np.asarray(values, "float64"), centers)


def _nearest_now(w, centroids):
    """Codes of the nearest centroids, in any order, as a tensor: training may have moved them past each other."""
    order = ops.argsort(ops.stop_gradient(centroids))
    ordered = ops.take(ops.stop_gradient(centroids), order)
    found = ops.searchsorted((ordered[1:] + ordered[:-1]) / 2, ops.reshape(w, (-1,)))
    return ops.cast(ops.reshape(ops.take(order, found), ops.shape(w)), "int32")


@serializable
@dataclass(frozen=True)
class Cluster(Method):
    """Forward ``centroids[codes]``: the tensor's weights share ``clusters`` values, found by k-means and then trained.

    Gradient of a centroid: the sum of its members' gradients; of the latent weight: straight through. Centroids are
    kept in units of the weights' deviation, so that an optimizer's step means the same in every tensor. The k-means
    starts from centres evenly spread over ``[min, max]``, the best of the paper's three starts: it gives the few large
    weights, which matter most, centres of their own. From optimizer step ``until`` on the codes stay, and only the
    centroids train; before it each weight takes the nearest centroid at every step, and each update makes the k-means
    anew, from the latent weights. Biases stay float.

    Deep Compression, Han et al. 2015 (arXiv:1510.00149), section 3.

    Args:
        clusters: distinct values of a tensor, 2..65536; 16 make codes of 4 bits, ``Chain((Prune(...), Cluster(16)))``.
        until: optimizer step; 0 as in the paper: once. Behind gradual pruning: where its schedule ends.
        keep_zero: one of the values is 0, exactly and always, and weights that come in as 0 stay 0: pruned ones.
            ``None``: from three clusters on; of two, one of which is 0, the other would have to stand for both signs.

    Raises:
        ValueError: ``clusters`` or ``until`` out of range.

    >>> method, w = Cluster(3), np.array([[-1.0, -0.8, 0.1], [0.5, 0.7, 0.0]], "float32")
    >>> state = method.init(w)
    >>> (np.array(method.apply(w, state)) * 10).round(4).tolist()
    [[-9.0, -9.0, 0.0], [6.0, 6.0, 0.0]]
    """

    clusters: int = 16
    until: int = 0
    keep_zero: bool | None = None

    trainable = ("centroids",)

    def __post_init__(self):
        if not isinstance(self.clusters, int) or not 2 <= self.clusters <= 65536 or self.until < 0:
            raise ValueError("Expected clusters in 2..65536 and an optimizer step until >= 0. Received: "
                             f"clusters={self.clusters!r}, until={self.until!r}.")

    @property
    def bits(self):
        return math.ceil(math.log2(self.clusters))

    @property
    def has_zero(self):
        return self.clusters > 2 if self.keep_zero is None else self.keep_zero

    @property
    def milestones(self):
        return (self.until,) if self.until else ()

    def _fit(self, w, centers):
        """State of ``w``: k-means from the ascending ``centers``; the one nearest to 0 is put there and stays."""
        zero = None
        if self.has_zero:
            zero = int(np.argmin(np.abs(centers)))
            centers = np.array(centers, "float64")
            centers[zero] = 0.0
        members = w if self.has_zero or self.keep_zero is False else w[w != 0]
        centers, _ = k_means(members, centers, zero)
        codes = nearest_center(w, centers)
        unit = float(np.std(w, dtype="float64")) or 1.0
        return {"centroids": (centers / unit).astype("float32"), "codes": codes.astype("float32"),
                "zero": np.float32(-1 if zero is None else zero), "unit": np.float32(unit)}

    def init(self, w):
        """``codes`` has the shape of ``w``, ``zero`` is the number of the centroid that is 0, -1 for none."""
        return self._fit(w, np.linspace(w.min(), w.max(), self.clusters)) | {"frozen": np.float32(not self.until)}

    def apply(self, w, state):
        w, centroids = ops.convert_to_tensor(w), state["centroids"] * state["unit"]
        codes = ops.cast(state["codes"], "int32")
        if self.until:
            codes = ops.where(ops.convert_to_tensor(state["frozen"]) > 0, codes, _nearest_now(w, centroids))
        shared = ops.take(centroids, codes)
        if self.has_zero:
            shared = ops.where(codes == ops.cast(state["zero"], "int32"), 0.0, shared)
        if self.keep_zero is not False:
            shared = ops.where(w == 0, 0.0, shared)
        return shared + (w - ops.stop_gradient(w))

    def idle(self, states, step):
        return all(state["frozen"] for state in states.values())

    def update(self, weights, states, step, model=None, data=None):
        if self.idle(states, step):
            return states
        frozen, new = {"frozen": np.float32(step >= self.until)}, {}
        for path, w in weights.items():
            centers = np.sort(states[path]["centroids"] * states[path]["unit"])
            new[path] = self._fit(w, centers) | frozen
        return new
