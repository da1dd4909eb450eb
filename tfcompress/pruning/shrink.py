"""``shrink``: remove what pruning has zeroed, so that the file is smaller and faster. ``silence``: zero it exactly."""

import keras
import numpy as np

from tfcompress.graph import HALF, call, fill
from tfcompress.model import check_plain, leaves
from tfcompress.pruning.channels import Channels
from tfcompress.pruning.dead import Dead
from tfcompress.pruning.labels import FIXED
from tfcompress.pruning.probe import reshaped
from tfcompress.pruning.resize import assign, resized
from tfcompress.wrapper import read

TOLERANCE = 1e-4  # of the largest output: how far the small model may lie from the masked one
RANDOM = ("'{}' gives other outputs each time it is run: a smaller model can't be proved to do the same. Does a layer "
          "add noise in inference too? Build it without.")


def shrink(model, *, round_to=1):
    """A smaller copy of ``model`` without the channels that are constant or that nobody reads; same outputs.

    Filters, units, attention heads and groups whose weights are zero go, with everything that belonged to them, through
    sums, products, concatenation, depthwise and grouped convolutions, flattening, nested and shared layers. A constant
    that a removed filter leaves (behind a BatchNormalization) is put into the next bias. At least one channel of each
    layer stays. The result is run beside ``model`` on random inputs before you get it.

    Args:
        model: a built Functional or Sequential model; one from ``compress`` needs ``strip`` first. Not changed.
        round_to: keep a multiple of so many channels in each layer (8 or 16: some kernels like that), by keeping some
            that could go.

    Returns:
        A plain float32 Keras model, nested models opened.

    Raises:
        ValueError: a subclassed, unbuilt or still compressed model, a ``round_to`` below 1, a model with layers that
            can't be copied, or whose outputs are random in inference, or not finite without what goes.
        RuntimeError: the small model does not give what ``model`` gives: a bug, please report it.

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Conv2D(2, 3)])
    >>> kernel = keras.ops.convert_to_numpy(model.layers[0].kernel) * [0.0, 1.0, 1.0, 0.0]
    >>> _ = model.layers[0].kernel.assign(kernel)
    >>> [layer.filters for layer in shrink(model).layers[1:]]
    [2, 2]
    """
    if not isinstance(round_to, int) or round_to < 1:
        raise ValueError(f"`round_to` is a number of channels, an int >= 1. Received: round_to={round_to!r}.")
    check_plain(model)
    channels = Channels(model)
    check_copy(model, channels)
    return _without(channels, Dead(channels), round_to)


def remove(channels, labels, *, round_to=1):
    """The model without the channels of these ``labels``: silenced first, so that what goes is exactly zero."""
    silence(channels, labels)
    return _without(channels, Dead(channels), round_to)


def check_copy(model, channels):
    """ValueError where ``channels``' graph, a copy of ``model``, does not give what ``model`` gives."""
    if any(part.compute_dtype in HALF or getattr(part, "stateful", False) for part in model._flatten_layers()):
        return                                           # the copy is float32; running the model would change it
    example = channels.graph.example(channels.shapes)
    given = keras.tree.pack_sequence_as(channels.graph.input_struct, example)
    once = keras.tree.flatten(model(given, training=False))
    gap = _furthest(once, channels.graph.run(example))
    if gap <= TOLERANCE:
        return
    if not _furthest(once, keras.tree.flatten(model(given, training=False))) <= TOLERANCE:
        raise ValueError(RANDOM.format(model.name))
    own = {type(layer).__name__ for _, layer in leaves(model) if not type(layer).__module__.startswith("keras.")}
    raise ValueError(f"A copy of '{model.name}' does not give what it gives: outputs differ by {gap:.1e} of the "
                     f"largest. Do all layers tell their options in get_config? Own ones: {sorted(own) or 'none'}.")


def fenced_layers(model):
    """``[(layer path, reason)]`` of the layers whose channels ``shrink`` and ``prune_filters`` must leave alone."""
    return list(dict.fromkeys(Channels(model).fences))


def silence(channels, labels):
    """Zero every weight that belongs to ``labels`` in the layers of ``channels``' graph, biases and norms included."""
    gone = np.zeros(channels.count, bool)
    gone[channels.roots(np.asarray(labels, int))] = True
    gone[FIXED] = False
    gone = gone[channels.roots(np.arange(channels.count))]
    for record in channels.records.values():
        for index, axes in record.slices.items():
            w = record.layer.weights[index]
            if "variance" in w.name or not any(gone[marks].any() for marks in axes.values()):
                continue
            value = read(w).copy()
            for axis, marks in axes.items():
                np.moveaxis(value, axis, 0)[gone[marks]] = 0
            w.assign(value)


def _without(channels, dead, round_to):
    keep = kept(channels, dead.keep, round_to)
    small = _rebuilt(channels, keep, dead)
    example = channels.graph.example(channels.shapes)
    before = channels.graph.run(example)
    after = keras.tree.flatten(small(keras.tree.pack_sequence_as(channels.graph.input_struct, example), training=False))
    gap = _furthest(before, after)
    if gap <= TOLERANCE:
        return small
    if not _furthest(before, channels.graph.run(example)) <= TOLERANCE:
        raise ValueError(RANDOM.format(channels.graph.name))
    if not all(np.isfinite(keras.ops.convert_to_numpy(a)).all() for a in before):
        raise ValueError(f"'{channels.graph.name}' gives numbers that are not finite once these channels are zero: is "
                         "something divided by a channel? Add a small constant to what divides.")
    raise RuntimeError(f"The small model is not the masked one: its outputs differ by {gap:.1e} of the largest. "
                       f"Please report this model ({channels.graph.name}).")


def _furthest(ones, others):
    """The largest ``_gap`` of several outputs."""
    return max(_gap(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))
               for a, b in zip(ones, others, strict=True))


def _gap(one, other):
    """The largest difference, as a share of the largest output. What is not finite must be so in both."""
    one, other = np.asarray(one, "float64"), np.asarray(other, "float64")
    finite = np.isfinite(one)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return np.inf
    largest = np.abs(one[finite]).max(initial=0)
    return float(np.abs(one[finite] - other[finite]).max(initial=0)) / max(1e-6, float(largest))


def kept(channels, keep, round_to=1, scores=None):
    """``keep`` with at least one channel in each layer, and a multiple of ``round_to`` where it can be had.

    ``scores``, one a label, say which come back first.
    """
    scores = np.zeros(channels.count) if scores is None else scores
    roots = channels.roots(np.arange(channels.count))
    keep, before = keep.copy(), None
    while before is None or not np.array_equal(keep, before):
        before = keep.copy()
        for record in channels.records.values():
            for labels in (*record.given, *record.counts.values()):
                own = roots[labels]
                counted = any(labels is counts for counts in record.counts.values())
                kept = int(keep[own].sum())
                wanted = max(1, -(-kept // round_to) * round_to) if counted else 1
                gone = np.unique(own[~keep[own]])
                for root in gone[np.argsort(-scores[gone], kind="stable")]:
                    if int(keep[own].sum()) >= wanted:
                        break
                    keep[roots == root] = True
    return keep


def _rebuilt(channels, keep, dead):
    """The smaller model, weights and all."""
    graph, fresh, names = channels.graph, {}, set()
    inputs, tensors = graph.symbolic_inputs()
    for node in graph.nodes:
        key = id(node.layer) if type(node.layer).__name__ != "Reshape" else node     # shared, it may get two targets
        if key not in fresh:
            fresh[key] = _smaller(channels, node, keep, dead)
            if key is node and fresh[key].name in names:
                fresh[key].name = f"{fresh[key].name}_{len(names)}"
            names.add(fresh[key].name)
        call(node, tensors, fresh[key])
    for key, record in channels.records.items():
        if not record.made:
            continue
        extra = dead.added(record.layer, keep)
        extra = None if extra is None else extra[keep[record.made[0]]]
        assign(record.layer, fresh[key], record.slices, keep, extra)
    return keras.Model(inputs, fill(graph.outputs, tensors), name=graph.name)


def _smaller(channels, node, keep, dead):
    """The layer of ``node`` in its new size, unbuilt; its own where it does not change."""
    record = channels.records.get(id(node.layer))
    if record is None or not record.made:
        shape = list(channels.shapes[node.outputs[0]])
        value = node.outputs[0]
        if type(node.layer).__name__ == "Reshape":
            shape[channels.axis[value]] = int(keep[channels.of[value]].sum())
            return resized(node.layer, _open(node, reshaped(node.layer, shape)))
        plain = isinstance(node.layer, keras.layers.Layer) and not node.layer.weights
        return resized(node.layer, {}) if plain else node.layer
    counts = {path: int(keep[labels].sum()) for path, labels in record.counts.items()}
    return resized(node.layer, counts, bias=dead.added(node.layer, keep) is not None)


def _open(node, counts):
    """A Reshape's new target with -1 where the old one had it: sizes that the model leaves open stay open."""
    (path, target), = counts.items()
    old = node.layer.get_config()[path[0]]
    return {path: tuple(-1 if o == -1 else n for o, n in zip(old, target, strict=True))}
