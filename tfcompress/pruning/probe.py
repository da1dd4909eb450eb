"""What a layer does with channels, found by running it: where each output channel comes from, whether it may shrink.

Layers that mix channels have rules (``rules.py``). Every other layer, activation or operation, also the user's own, is
run: it can be followed where *slicing its inputs slices its outputs*, i.e. ``f(x[..., kept]) == f(x)[..., kept]``.
"""

import json
from dataclasses import dataclass, field, replace

import keras
import numpy as np

from tfcompress.graph import Value, fill
from tfcompress.pruning.resize import assign, resized

NONE = -1


@dataclass(frozen=True, eq=False)
class Flow:
    """Where the channels of one output come from.

    Attributes:
        axis: the output's channel axis.
        sources: ``(channels, n)`` positions in the inputs' channels, all inputs one behind the other; -1 is none.
        stay: positions whose channels must stay (one channel that is broadcast over many).
        tied: ``(n, k)`` positions that must go together although they meet in no channel: those of equal parts.
    """

    axis: int
    sources: np.ndarray
    stay: np.ndarray
    tied: np.ndarray = field(default_factory=lambda: np.zeros((0, 1), int))

    @property
    def together(self):
        """Rows of positions that can only be removed with one another."""
        return [row[row != NONE] for row in (*self.sources, *self.tied)]


def run(layer, node, arrays):
    """The outputs, numpy, of the node's call of ``layer`` on ``arrays``, one for each input."""
    given = dict(zip(node.inputs, (keras.ops.convert_to_tensor(a) for a in arrays), strict=False))
    args, kwargs = fill((node.args, node.kwargs), given)
    return [keras.ops.convert_to_numpy(t) for t in keras.tree.flatten(layer(*args, **kwargs))]


def probe(node, shapes, axes, known):
    """``(flows of the outputs, {weight: axis}, config counts)`` of a node, or the reason why it can't be followed.

    Args:
        shapes: shapes of its inputs, batch 1 first.
        axes: the channel axis of each input.
        known: dict that remembers what was found for layers of one config.
    """
    key = _key(node, shapes, axes)
    if key in known and _plain(shapes, axes):
        return known[key](shapes, axes)
    flows = _moved(node, shapes, axes) or _channelwise(node, shapes, axes)
    if not flows:
        return "its outputs depend on several channels"
    found = _verified(node, shapes, axes, flows)
    if not found and len(flows) > 1 and len({len(flow.sources) for flow in flows}) == 1:
        parts = np.concatenate([flow.sources[:, :1] for flow in flows], 1)       # a split stays one into equal parts
        flows = [replace(flow, tied=parts) for flow in flows]
        choices = _some(sum(len(flow.sources) for flow in flows), flows)
        found = _verified(node, shapes, axes, flows) if choices else None
    if found and len(flows) == 1 and _plain(shapes, axes) and _same(flows[0], shapes, axes):
        known[key] = lambda shapes, axes: ([_identity(shapes, axes)], *found)
    return (flows, *found) if found else "a channel's value changes when others are removed"


def _key(node, shapes, axes):
    config = {k: v for k, v in node.layer.get_config().items() if k != "name"}
    ones = [shape[axis] == 1 for shape, axis in zip(shapes, axes, strict=True)]
    rest = [repr(a) for a in keras.tree.flatten((node.args, node.kwargs)) if not isinstance(a, Value)]
    return json.dumps([type(node.layer).__module__, type(node.layer).__name__, config, [len(s) for s in shapes],
                       list(axes), ones, rest], default=repr)


def _plain(shapes, axes):
    """Whether all inputs have as many channels, more than one, on one axis."""
    return len({(shape[axis], len(shape), axis) for shape, axis in zip(shapes, axes, strict=True)}) == 1 and (
        shapes[0][axes[0]] > 1)


def _identity(shapes, axes):
    count = shapes[0][axes[0]]
    own = np.arange(count)[:, None] + count * np.arange(len(shapes))[None]
    return Flow(axes[0], own, np.zeros(0, int))


def _same(flow, shapes, axes):
    own = _identity(shapes, axes).sources
    return flow.axis == axes[0] and (np.array_equal(flow.sources, own) or (
        len(shapes) == 1 and np.array_equal(flow.sources, own[:, :1])))


def _spread(values, shape, axis):
    """``values`` along ``axis`` of an array of ``shape``, float32."""
    view = [1] * len(shape)
    view[axis] = len(values)
    return np.broadcast_to(np.asarray(values, "float32").reshape(view), shape)


def _moved(node, shapes, axes):
    """The flows of a layer that only moves or repeats values, by sending numbered channels through it."""
    if getattr(node.layer, "weights", ()):
        return None
    counts = [shape[axis] for shape, axis in zip(shapes, axes, strict=True)]
    ids = np.split(np.arange(1, 1 + sum(counts)), np.cumsum(counts)[:-1])
    other = np.random.default_rng(0).permutation(sum(counts)) + 1 + sum(counts)
    try:
        first, second = (run(node.layer, node, [_spread(v, s, a) for v, s, a in zip(values, shapes, axes, strict=True)])
                         for values in (ids, np.split(other, np.cumsum(counts)[:-1])))
    except Exception:  # noqa: BLE001 - an operation that does not take such numbers
        return None
    flows, table = [], np.concatenate([[0], other])
    for a, b in zip(first, second, strict=True):
        if a.ndim < 2 or a.dtype.kind != "f" or not np.isfinite(a).all():
            return None
        whole = np.rint(a).astype(int)
        if whole.min() < 0 or whole.max() > sum(counts) or not np.allclose(a, whole, rtol=1e-4, atol=0):
            return None
        if not np.allclose(b, table[whole], rtol=1e-4, atol=0):
            return None
        same = a.ndim == len(shapes[0])
        flows.append(_collapsed(whole, axes[0] if same else None, same and whole.shape[axes[0]] == 1))
    return flows


def _collapsed(whole, axis, alone):
    """The ``Flow`` of numbered values: rows of sources along the channel axis, the last one along which they differ."""
    varies = [k for k in range(1, whole.ndim) if whole.shape[k] > 1 and (whole != whole.take([0], k)).any()]
    axis = axis if axis in varies or alone else (varies or [whole.ndim - 1])[-1]
    rows = np.moveaxis(whole, axis, 0).reshape(whole.shape[axis], -1)
    most = rows.max(1)
    low = np.where(rows > 0, rows, most[:, None]).min(1)
    if np.array_equal(most, low):
        sources = most[:, None] - 1
    else:
        each = [np.unique(row[row > 0]) - 1 for row in rows]
        sources = np.full((len(rows), max(map(len, each))), NONE)
        for row, found in zip(sources, each, strict=True):
            row[:len(found)] = found
    return Flow(axis, sources, np.zeros(0, int))


def _channelwise(node, shapes, axes):
    """The flows of a layer whose output channel c depends on the channels c of its inputs, if it is one."""
    if len(node.outputs) != 1:
        return None
    rank = max(len(shape) for shape in shapes)
    right = {axis - len(shape) for shape, axis in zip(shapes, axes, strict=True)}
    if len(right) != 1:
        return None
    counts = [shape[axis] for shape, axis in zip(shapes, axes, strict=True)]
    most, starts = max(counts), np.concatenate([[0], np.cumsum(counts)[:-1]])
    if {1, most} < set(counts):
        return None
    sources = np.stack([np.arange(most) + start if count == most else np.full(most, NONE)
                        for count, start in zip(counts, starts, strict=True)], 1)
    stay = np.array([start for count, start in zip(counts, starts, strict=True) if count < most], int)
    return [Flow(rank + right.pop(), sources, stay)]


def _verified(node, shapes, axes, flows):
    """``({weight: axis}, counts)`` where slicing the inputs slices the outputs; ``None`` where it does not."""
    choices = _some(sum(shape[axis] for shape, axis in zip(shapes, axes, strict=True)), flows)
    found = ({}, ())
    for keep in choices:                                 # one choice may fit by chance: half of an even number does
        found = _sliced(node, shapes, axes, flows, keep)
        if found is None:
            return None
    return found


def _sliced(node, shapes, axes, flows, keep):
    counts = [shape[axis] for shape, axis in zip(shapes, axes, strict=True)]
    parts = np.split(keep, np.cumsum(counts)[:-1])
    rng = np.random.default_rng(1)
    x = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    small = [np.compress(part, a, axis) for a, part, axis in zip(x, parts, axes, strict=True)]
    try:
        layer = _varied(node, x)
        whole = run(layer, node, x)
        expected = [np.compress(keep[f.sources[:, 0]] | (f.sources[:, 0] == NONE), y, f.axis)
                    for f, y in zip(flows, whole, strict=True)]
    except Exception:  # noqa: BLE001 - it does not run on such numbers
        return None
    return next((guess for guess in _guesses(layer, counts)
                 if _agrees(layer, node, small, expected, *guess, parts[0])), None)


def _varied(node, x):
    """The node's layer, or a copy with other weights: fresh ones are often all 1, and would hide what they do."""
    if not getattr(node.layer, "weights", ()):
        return node.layer
    copy, rng = resized(node.layer, {}), np.random.default_rng(3)
    run(copy, node, x)
    for weight in copy.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape).astype("float32"))
    return copy


def _some(total, flows):
    """Choices of what to keep of ``total`` positions, as far as they don't hang together: some, or all but one."""
    parent = np.arange(total)
    for flow in flows:
        for row in (row for row in flow.together if len(row) > 1):
            parent[np.isin(parent, parent[row])] = parent[row].min()
    stay = np.isin(parent, parent[np.concatenate([flow.stay for flow in flows])])
    roots = np.unique(parent[~stay])
    if len(roots) < 2:
        return []
    order = np.random.default_rng(2).permutation(roots)
    kept = (order[:(len(roots) + 1) // 2], order[:max(1, len(roots) // 3)], roots[1:], roots[:-1])
    return [stay | np.isin(parent, some) for some in kept]


def _guesses(layer, counts):
    """What may have to shrink with the channels: weights of that size, then also numbers in the config."""
    weights, held = {}, getattr(layer, "weights", ())
    for i, weight in enumerate(held):
        axes = [k for k, size in enumerate(weight.shape) if size == counts[0]]
        if axes and counts[0] > 1:
            weights[i] = axes[-1]
        elif int(np.prod(weight.shape)) > 1:
            return
    yield weights, ()
    if held:
        config = layer.get_config()
        found = tuple((key,) for key, value in config.items() if isinstance(value, int) and value == counts[0])
        if found:
            yield weights, found


def reshaped(layer, shape):
    """``{config path: value}`` that makes a Reshape give ``shape`` (batch first); empty for any other layer."""
    if type(layer).__name__ != "Reshape":
        return {}
    return {("target_shape",) if isinstance(layer, keras.layers.Reshape) else ("newshape",):
            tuple(shape[1:]) if isinstance(layer, keras.layers.Reshape) else (-1, *shape[1:])}


def _agrees(layer, node, small, expected, weights, config, keep):
    counts = {path: int(keep.sum()) for path in config} | reshaped(layer, expected[0].shape)
    try:
        fresh = resized(layer, counts)
        found = run(fresh, node, small)
        if getattr(layer, "weights", ()):
            labels = np.arange(len(keep))
            assign(layer, fresh, {i: {axis: labels} for i, axis in weights.items()}, keep)
            found = run(fresh, node, small)
    except Exception:  # noqa: BLE001 - sizes that don't fit, an option that can't be rebuilt
        return False
    return len(found) == len(expected) and all(a.shape == b.shape and np.allclose(a, b, atol=1e-5, rtol=1e-4)
                                               for a, b in zip(found, expected, strict=True))
