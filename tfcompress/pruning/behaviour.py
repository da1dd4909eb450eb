"""Neural behaviour: a neuron whose outputs its neighbours can emulate goes, and their outgoing weights do its work.

Kamma et al. 2020, in our reading. The code ``b_i`` of a channel is the vector of its outputs, behind normalization and
activation, over samples and positions. Everything is told by the Gram matrix ``G = B'B`` of the codes and of a
constant 1 (its last row), with which the next bias takes up the mean.
"""

import keras
import numpy as np

from tfcompress.layout import kernels
from tfcompress.pruning.gradients import batches
from tfcompress.pruning.outputs import SEPARABLE, outputs_of

L = keras.layers
POSITIONS = 64                # of each sample's map, drawn once
STEPS = 64                    # removals between two inversions
SPREADS = (L.DepthwiseConv1D, L.DepthwiseConv2D)


def gram(codes):
    """``B'B`` of ``codes`` ``(samples, channels)`` and a constant 1: float64 ``(channels + 1, channels + 1)``.

    >>> gram(np.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[10.0, 14.0, 4.0], [14.0, 20.0, 6.0], [4.0, 6.0, 2.0]]
    """
    b = np.concatenate([codes, np.ones((len(codes), 1))], axis=1, dtype="float64")
    return b.T @ b


def emulate(g, removed, kept, ridge=1e-9, constant=True):
    """Least squares ``b_i ~ sum_j c_ij b_j + d_i`` over the kept channels: ``(c, d, error)``.

    Args:
        g: ``gram(codes)``.
        removed, kept: channel numbers; one kept channel is the paper's pair, many its group.
        ridge: added to the diagonal, as a share of its mean.
        constant: False leaves ``d`` 0: in front of a convolution with padding "same", whose border has no constant.

    Returns:
        ``c`` ``(removed, kept)``, ``d`` ``(removed,)``, and ``error`` ``(removed,)``, the squared norm of the rest.

    >>> c, d, error = emulate(gram(np.array([[1.0, 5.0], [2.0, 7.0], [4.0, 11.0]])), [1], [0])       # b_1 = 2 b_0 + 3
    >>> c.round(4).tolist(), d.round(4).tolist(), error.round(4).tolist()
    ([[2.0]], [3.0], [0.0])
    """
    removed, inside = np.asarray(removed, int), np.asarray(kept, int)
    inside = np.append(inside, len(g) - 1) if constant else inside
    own, cross = g[np.ix_(inside, inside)], g[np.ix_(inside, removed)]
    c = np.linalg.solve(own + _ridge(own, ridge) * np.diag(inside < len(g) - 1), cross)
    error = g[removed, removed] - 2 * np.sum(c * cross, 0) + np.sum(c * (own @ c), 0)
    d = c[-1] if constant else np.zeros(len(removed))
    return c[:len(kept)].T, d, np.maximum(error, 0)


def greedy(g, outgoing, ridge=1e-6):
    """The order in which channels go, cheapest first, and the output's squared error after each.

    Removing channel i costs ``e_i * ||w_i||^2``: the part of its code the others can't emulate, times its outgoing
    weights. They then take its work over, ``w_j += c_ij w_i``, which changes what they cost. Residuals of later steps
    are orthogonal to earlier ones, so costs add up to the exact error at the next layer's (one-position) outputs.

    Args:
        g: ``gram(codes)``.
        outgoing: ``W W'`` of the outgoing weights ``W (channels, outputs)``, ``(channels, channels)``.
        ridge: added to the diagonal, as a share of its mean: with fewer samples than channels ``g`` is singular.

    Returns:
        ``order`` ``(channels,)`` and ``errors`` ``(channels,)``, which never falls.

    >>> codes = np.random.default_rng(0).standard_normal((50, 3))
    >>> codes[:, 2] = 4 * codes[:, 0]                                # a duplicate; channel 1 is nobody's
    >>> order, errors = greedy(gram(codes), np.eye(3))
    >>> int(order[0]) in (0, 2), bool(errors[0] < 1e-3), bool(errors[1] > 1)
    (True, True, True)
    """
    extra, m, left, order, costs = _ridge(g, ridge), np.array(outgoing, "float64"), np.arange(len(g) - 1), [], []
    while len(left):
        inside = np.append(left, len(g) - 1)
        inverse = np.linalg.inv(g[np.ix_(inside, inside)] + extra * np.diag(inside < len(g) - 1))
        picked, paid, m = _cheapest(inverse[:-1, :-1], m, extra)
        order, costs, left = order + left[picked].tolist(), costs + paid, np.delete(left, picked)
    return np.array(order, int), np.cumsum(costs)


def _cheapest(inverse, m, extra):
    """The next channels to go, up to ``STEPS``, their costs, and ``W W'`` of the others when they took over.

    ``1 / inverse_ii`` is the residual of i, ``-inverse_ji / inverse_ii`` the coefficient of j. What the steps do to
    both matrices is kept as columns, and only looked up where needed.
    """
    count, steps = len(m), min(len(m), STEPS)
    residuals, size, left = np.diag(inverse).copy(), np.diag(m).copy(), np.ones(count, bool)
    u, c, h = (np.zeros((count, steps)) for _ in range(3))
    picked, costs = [], []
    for k in range(steps):
        residual = 1.0 / np.where(left, residuals, 1) - extra
        cost = np.where(left, np.maximum(residual, 0) * np.maximum(size, 0), np.inf)
        i = int(np.argmin(cost))
        left[i] = False
        column = inverse[:, i] - u[:, :k] @ u[i, :k]
        row = m[i] + c[:, :k] @ h[i, :k] + h[:, :k] @ c[i, :k]
        c[:, k] = np.where(left, -column / column[i], 0)
        h[:, k] = row + row[i] / 2 * c[:, k]
        u[:, k] = column / np.sqrt(column[i])
        residuals, size = residuals - u[:, k] ** 2, size + 2 * c[:, k] * h[:, k]
        picked.append(i)
        costs.append(cost[i])
    return picked, costs, (m + c @ h.T + h @ c.T)[np.ix_(left, left)]


def absorb(kernel, bias, removed, kept, c, d):
    """A consumer's ``(kernel, bias)`` after the kept channels took over the removed ones' work; theirs become 0.

    ``w_j += sum_i c_ij w_i`` and ``bias += sum_i d_i sum_taps w_i``: the same outputs where the codes are emulated
    exactly, at the border of a convolution with padding "same" if ``d`` is 0.

    Args:
        kernel: ``(..., channels, outputs)`` of Dense or Conv; behind Flatten ``(positions, channels, outputs)``.
        bias: ``(outputs,)``.
        removed, kept, c, d: as in ``emulate``.

    >>> kernel, bias = absorb(np.array([[1.0], [10.0]]), np.zeros(1), [1], [0], np.array([[2.0]]), np.array([3.0]))
    >>> kernel.tolist(), bias.tolist()                               # 10 * (2 b_0 + 3) = 20 b_0 + 30
    ([[21.0], [0.0]], [30.0])
    """
    kernel, gone = np.array(kernel), np.take(kernel, removed, axis=-2)
    kernel[..., kept, :] += np.moveaxis(np.tensordot(c, gone, ((0,), (-2,))), 0, -2)
    kernel[..., removed, :] = 0
    return kernel, bias + np.tensordot(d, gone.sum(tuple(range(gone.ndim - 2))), 1)


def _ridge(g, share):
    return share * max(np.trace(g) / len(g), 1e-30)


# ---- of a network -----------------------------------------------------------------------------------------------
def behaviour(weights, model=None, data=None):
    """When a channel goes in greedy unification: the share of the layer's output energy lost by then, one a filter.

    ``errors[k] / ||B W||^2`` for the k-th to go (see ``greedy``), so layers compare; never equal, so the order is kept.
    What is dead goes first. The codes are those of up to 1024 samples at 64 positions each; outgoing weights are those
    of the next Dense and Conv layers, found through pooling, sums and the like. Plain removal loses more than the score
    says: ``emulate`` and ``absorb`` make the others take over. Where a kernel's channels can't be followed (LSTM,
    attention) its filters' share of the L2 norms stands in. Labels are not used.
    """
    parts, inner = batches(model, data, labels=False), outputs_of(model)
    grams, scores = codes_gram(inner, [path for path in weights if path in inner.ends], parts), {}
    for path, w in weights.items():
        if path not in grams:
            norms = np.sqrt(np.square(w.reshape(-1, w.shape[-1]), dtype="float64").sum(0))
            scores[path] = norms / max(norms.sum(), 1e-300)
            continue
        g, out = grams[path], outgoing_gram(inner, path, w.shape[-1])
        order, errors = greedy(g, out)
        energy = max(float(np.sum(g[:-1, :-1] * out)), 1e-300)
        scores[path] = np.empty(len(order))
        scores[path][order] = errors / energy + np.arange(len(order)) * 1e-9
    return scores


def codes_gram(inner, paths, parts):
    """``{tensor path: gram}`` at the filters' outputs, up to 64 positions a sample; ``inner`` is an ``Outputs``."""
    grams = dict.fromkeys(paths, 0.0)
    for x, _ in parts:
        for path, tensors in inner.maps(paths, x).items():
            channels = inner.kernels[path][1].canonical[-1]
            for t in tensors:
                maps = t.numpy().reshape(len(t), -1, channels)
                if maps.shape[1] > POSITIONS:
                    chosen = np.random.default_rng(0).choice(maps.shape[1], POSITIONS, replace=False)
                    maps = maps[:, chosen]
                grams[path] = grams[path] + gram(maps.reshape(-1, channels))
    return grams


def outgoing_gram(inner, path, channels):
    """``W W'`` over every layer that reads the channels of ``path``, ``(channels, channels)``; the identity for none.

    Layers that keep the channels where they are, Flatten, sums, products and depthwise convolutions are looked through.
    """
    graph, total, seen = inner.graph, 0.0, set()
    stack = list(inner.ends[path])
    while stack:
        value = stack.pop()
        for node in graph.consumers(value):
            if id(node) in seen:
                continue
            seen.add(id(node))
            found = kernels(node.layer) if isinstance(node.layer, L.Layer) else {}
            if len(found) == 1 and not isinstance(node.layer, SPREADS):
                w = next(view.to(variable.numpy(), np) for variable, view in found.values())
                total = total + _rows(w, channels)
            elif isinstance(node.layer, SEPARABLE):
                total = total + _rows(node.layer.pointwise_kernel.numpy(), channels)
            elif len(found) <= 1:
                stack += [v for v in node.outputs if _same_channels(v, value, channels)]
    return total if np.ndim(total) else np.eye(channels)


def _rows(w, channels):
    """``W W'`` of a canonical kernel ``(..., inputs, outputs)``; zeros where its inputs aren't the channels."""
    if w.shape[-2] % channels:
        return np.zeros((channels, channels))
    rows = np.moveaxis(w.reshape(-1, channels, w.shape[-1]), 1, 0).reshape(channels, -1).astype("float64")
    return rows @ rows.T


def _same_channels(value, before, channels):
    size = value.shape[-1] if len(value.shape) > 1 else None
    return size is not None and (size == channels or len(value.shape) == 2 and size % channels == 0
                                 and len(before.shape) > 2)
