"""The channel-dependency graph: which channels of a network can be removed, and only together with which others.

Every tensor of the graph carries a label for each of its channels. Layers that mix channels read labels and make fresh
ones (``rules.py``), sums tie them, concatenation and flattening carry them on (``probe.py``). What can't be followed is
fenced off: its channels stay. Fang et al. 2023, "DepGraph", arXiv:2301.12900, is the bar.
"""

import keras
import numpy as np

from tfcompress.graph import Graph, Value, call
from tfcompress.layout import kernels, vectors
from tfcompress.pruning.labels import FIXED, Labels
from tfcompress.pruning.probe import NONE, probe
from tfcompress.pruning.rules import Record, Unfollowed, follow, mixes

UNKNOWN = {1: 16, 2: 128, 3: 32}                         # a size that the model leaves open, by number of such axes


class Channels:
    """The labels of every tensor and weight of ``model``.

    Attributes:
        graph: the flat ``Graph`` (copies of the layers).
        axis, of: channel axis and labels ``(channels,)`` of each ``Value``.
        records: ``{id(layer): Record}`` of the layers that shrink with their channels, in the order they run.
        flows: ``{Node: [Flow]}`` of the calls that carry channels on.
        fences: ``[(path, reason)]`` of the layers that could not be followed.
    """

    def __init__(self, model):
        self.graph, self.labels = Graph(model), Labels()
        self.shapes = _concrete(self.graph)
        self.axis, self.of, self.records, self.flows, self.fences, self.calls = {}, {}, {}, {}, [], []
        self._known = {}
        for _, value in self.graph.inputs:
            self._mark(value, None)
        for node in self.graph.nodes:
            self._visit(node)
        for value in keras.tree.flatten(self.graph.outputs):
            self.labels.fix(self.of[value])

    def roots(self, labels):
        """The representative of each label."""
        return self.labels.find(labels)

    @property
    def count(self):
        """How many labels there are, ``FIXED`` included: the length of every ``keep``."""
        return len(self.labels.parent)

    def _mark(self, value, labels, axis=None):
        shape = self.shapes[value]
        self.axis[value] = len(shape) - 1 if axis is None else axis
        size = shape[self.axis[value]] if len(shape) > 1 else 1
        self.of[value] = np.full(size, FIXED) if labels is None else labels

    def _visit(self, node):
        shapes = [self.shapes[v] for v in floats(node) or node.inputs], [self.shapes[v] for v in node.outputs]
        try:
            record = self._mixing(node, shapes)
            if record is None:
                self._carry(node, shapes[0])
            else:
                self.calls.append((node, record))
                for value, labels in zip(node.outputs, record.made, strict=True):
                    self._mark(value, labels)
        except Unfollowed as why:
            self._fence(node, str(why))

    def _mixing(self, node, shapes):
        if not mixes(node.layer):
            return None
        given = [self._last(node, value) for value in floats(node) or node.inputs]
        old = self.records.get(id(node.layer))
        if old is None:
            record = follow(node.layer, node.path, given, self.labels, shapes)
            if record is not None:
                self.records[id(node.layer)] = record
            return record
        if id(node.layer) in {id(record.layer) for _, record in self.calls}:
            again = follow(node.layer, node.path, given, self.labels, shapes)    # the second call of a shared layer
            if (len(old.given), len(old.made)) != (len(given), len(again.made)):
                raise Unfollowed("it is called in different ways")
            for one, other in zip((*old.given, *old.made), (*given, *again.made), strict=True):
                self.labels.tie(one, other)
            if old.inside is not None:
                self.labels.tie(old.inside, again.inside)
            old.macs += again.macs
            old.products += again.products
            return Record(node.layer, node.path, given, old.made, old.slices, old.counts, old.inside)
        return None

    def last(self, value):
        """The labels of a tensor's last axis: ``FIXED`` where its channels lie on another one."""
        size = self.shapes[value][-1] if len(self.shapes[value]) > 1 else 1
        return self.of[value] if self.axis[value] == len(self.shapes[value]) - 1 else np.full(size, FIXED)

    def _last(self, node, value):
        """``last``; channels on another axis can't be followed through a mixing layer."""
        if self.axis[value] != len(self.shapes[value]) - 1:
            if (self.roots(self.of[value]) != FIXED).any():
                self.fences.append((node.path, f"{type(node.layer).__name__}: the axis it mixes is not the channels'"))
            self.labels.fix(self.of[value])
        return self.last(value)

    def _carry(self, node, shapes):
        """A layer or operation that does not mix channels."""
        inputs = node.inputs
        free = any((self.roots(self.of[v]) != FIXED).any() for v in inputs)
        if not free or len(floats(node)) < len(inputs) or not all("float" in v.dtype for v in node.outputs):
            raise Unfollowed("" if not free else "it takes or gives whole numbers")
        found = probe(node, shapes, [self.axis[v] for v in inputs], self._known)
        if isinstance(found, str):
            raise Unfollowed(found)
        flows, weights, config = found
        given = np.concatenate([self.of[v] for v in inputs])
        for flow in flows:
            self.labels.fix(given[flow.stay])
            for other in flow.tied.T[1:]:
                self.labels.tie(given[flow.tied[:, 0]], given[other])
        self.flows[node] = flows
        for value, flow in zip(node.outputs, flows, strict=True):
            self._mark(value, self._flowed(given, flow), flow.axis)
        if weights:
            self._own(node, weights, config)

    def _flowed(self, given, flow):
        """The labels of an output; sources that meet in one channel are tied."""
        table = np.append(given, FIXED)                  # -1 picks the last
        for other in range(1, flow.sources.shape[1]):
            both = (flow.sources[:, other] != NONE) & (flow.sources[:, 0] != NONE)
            self.labels.tie(table[flow.sources[both, 0]], table[flow.sources[both, other]])
        first = np.where(flow.sources != NONE, flow.sources, flow.sources.max(1, keepdims=True))[:, 0]
        return table[first]

    def _own(self, node, weights, config):
        labels, old = self.of[node.inputs[0]], self.records.get(id(node.layer))
        if old is not None:
            self.labels.tie(old.given[0] if old.given else FIXED, labels)
            return
        self.records[id(node.layer)] = Record(
            node.layer, node.path, [labels], [labels], {i: {axis: labels} for i, axis in weights.items()},
            {path: labels for path in config})

    def _fence(self, node, reason):
        held = [v for v in node.inputs if (self.roots(self.of[v]) != FIXED).any()]
        for value in held:
            self.labels.fix(self.of[value])
        old = self.records.get(id(node.layer))
        for marks in _all_labels(old) if old else ():    # another call of a shared layer was followed: not any more
            self.labels.fix(marks)
        for value in node.outputs:
            self._mark(value, None)
        self._count(node)
        if reason and held and not any(self.graph.is_output(value) for value in node.outputs):
            self.fences.append((node.path, f"{type(node.layer).__name__}: {reason}"))

    def _count(self, node):
        """A layer that mixes channels but can't be followed still multiplies: its kernels, once for each position."""
        if isinstance(node.layer, keras.layers.Layer) and node.inputs and id(node.layer) not in self.records:
            places = {id(weight): i for i, weight in enumerate(node.layer.weights)}
            times = int(np.prod(self.shapes[node.inputs[0]][1:-1]))
            macs = [(places[id(variable)], times) for variable, _ in kernels(node.layer).values()]
            self.records[id(node.layer)] = Record(node.layer, node.path, [], [], macs=macs)

    # ---- counting -----------------------------------------------------------------------------------------------
    def parameters(self, keep):
        """Numbers in the weights of the smaller model. ``keep``: bool by label, ``(count,)``."""
        layers = {id(node.layer): node.layer for node in self.graph.nodes}.values()
        return sum(self._size(layer, i, keep) for layer in layers for i in range(len(getattr(layer, "weights", ()))))

    def macs(self, keep):
        """Multiply-accumulates of one run of the smaller model, batch of one."""
        return sum(sum(times * self._size(record.layer, i, keep) for i, times in record.macs)
                   + sum(times * int(keep[labels].sum()) for labels, times in record.products)
                   for record in self.records.values())

    def _size(self, layer, index, keep):
        shape = list(layer.weights[index].shape)
        record = self.records.get(id(layer))
        for axis, labels in (record.slices.get(index, {}) if record else {}).items():
            shape[axis] = int(keep[labels].sum())
        return int(np.prod(shape))


def floats(node):
    """The inputs of a call that carry channels: masks and indices don't."""
    kwargs = {name: value for name, value in node.kwargs.items() if not name.endswith("mask")}
    given = keras.tree.flatten((node.args, kwargs))
    return [v for v in given if isinstance(v, Value) and "float" in v.dtype and len(v.shape) > 1]


def _all_labels(record):
    inside = [] if record.inside is None else [record.inside]
    return [*record.given, *record.made, *inside, *(m for axes in record.slices.values() for m in axes.values())]


def _concrete(graph):
    """A shape for every value, batch 1 first; sizes the model leaves open are chosen."""
    if all(None not in v.shape[1:] for _, v in graph.inputs):
        values = [v for _, v in graph.inputs] + [v for node in graph.nodes for v in node.outputs]
        if all(None not in v.shape[1:] for v in values):
            return {v: (1, *v.shape[1:]) for v in values}
    tensors = {}
    for _, value in graph.inputs:
        size = UNKNOWN.get(len(value.shape) - 2, 16)
        tensors[value] = keras.KerasTensor((1, *(n or size for n in value.shape[1:])), value.dtype)
    for node in graph.nodes:
        call(node, tensors)
    return {value: tuple(1 if n is None else n for n in t.shape) for value, t in tensors.items()}


def channel_labels(model):
    """Which output channels hang together: ``{tensor path: int array}``, one label for each.

    Paths are those of ``layout.kernels`` and of the vectors that belong to channels (``"conv/bias"``, ``"bn/gamma"``);
    labels follow the last axis of the canonical view. Equal labels can only be removed together; -1 must stay.

    >>> import keras
    >>> i = keras.Input((8, 8, 3))
    >>> x = keras.layers.Conv2D(2, 3, name="one")(i)
    >>> y = keras.layers.Conv2D(2, 3, name="two")(i)
    >>> model = keras.Model(i, keras.layers.Conv2D(1, 1, name="out")(x + y))
    >>> found = channel_labels(model)
    >>> bool((found["one/kernel"] == found["two/kernel"]).all()), found["out/kernel"].tolist()
    (True, [-1])
    """
    return labels_of(Channels(model))


def labels_of(channels):
    """``channel_labels`` of a graph that has been followed already."""
    found, seen = {}, set()
    for node in channels.graph.nodes:
        layer = node.layer
        if id(layer) in seen or not isinstance(layer, keras.layers.Layer):
            continue
        seen.add(id(layer))
        places = {id(weight): i for i, weight in enumerate(layer.weights)}
        record = channels.records.get(id(layer))
        for key, (variable, view) in (kernels(layer) | vectors(layer)).items():
            axes = record.slices.get(places[id(variable)], {}) if record else {}
            labels = _last_axis(variable, view, axes)
            found[f"{node.path}/{key}"] = np.where(channels.roots(labels) == FIXED, -1, channels.roots(labels))
    return found


def _last_axis(variable, view, axes):
    """Labels along the last axis of the canonical view, which may hold several axes of the variable."""
    merged, size = [], 1
    for axis in reversed(view.order):
        if size == view.canonical[-1]:
            break
        merged, size = [axis, *merged], size * variable.shape[axis]
    whole = np.full([variable.shape[axis] for axis in merged], FIXED)
    for place, axis in enumerate(merged):
        if axis in axes:
            shape = [1] * len(merged)
            shape[place] = -1
            whole = np.broadcast_to(np.asarray(axes[axis]).reshape(shape), whole.shape)
    return whole.reshape(-1)
