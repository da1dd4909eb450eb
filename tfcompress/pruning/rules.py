"""What each kind of layer that mixes channels does with their labels: which axis of which weight follows which."""

from dataclasses import dataclass, field

import keras
import numpy as np

from tfcompress.layout import DEPTHWISE, TRANSPOSED

L = keras.layers
CONV = (L.Conv1D, L.Conv2D, L.Conv3D)
SEPARABLE = (L.SeparableConv1D, L.SeparableConv2D)
GATES = {L.LSTM: 4, L.GRU: 3, L.SimpleRNN: 1}


@dataclass(eq=False)
class Record:
    """How one layer follows the labels.

    Attributes:
        layer, path: the layer (once, however often it is called) and its path.
        given, made: labels of the last axis of each input and each output.
        slices: ``{index into layer.weights: {axis: labels}}``; an axis that isn't there keeps its size.
        counts: ``{path into layer.get_config(): labels}``: the numbers in the config that count channels.
        inside: labels that never leave the layer (attention heads, units of a recurrent layer).
        macs: ``[(index into layer.weights, times)]``: each weight is multiplied that often in one run.
        products: ``[(labels, times)]``: multiplications of activations with activations, for each label.
    """

    layer: object
    path: str
    given: list
    made: list
    slices: dict = field(default_factory=dict)
    counts: dict = field(default_factory=dict)
    inside: np.ndarray | None = None
    macs: list = field(default_factory=list)
    products: list = field(default_factory=list)


class Unfollowed(Exception):
    """The layer can't be followed; the message says why."""


def mixes(layer):
    """Whether there is a rule for this kind of layer."""
    return any(type(layer) in kinds for kinds, _ in RULES)


def follow(layer, path, given, labels, shapes):
    """The ``Record`` of a layer that mixes channels, or ``None`` where it is not one.

    Args:
        given: labels of the last axis of each input.
        labels: the ``Labels`` to take fresh ones from, and to tie.
        shapes: ``(shapes of the inputs, shapes of the outputs)`` of this call, batch first.

    Raises:
        Unfollowed: an option of the layer that is not covered.
    """
    inputs, outputs = shapes
    rule = next((rule for kinds, rule in RULES if type(layer) in kinds), None)
    if rule is None:
        return None
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        raise Unfollowed("channels come first")
    if isinstance(getattr(layer, "activation", None), L.Layer):
        raise Unfollowed("its activation is a layer")
    record = Record(layer, path, given, [])
    rule(record, labels, inputs, outputs)
    if not _channelwise(getattr(layer, "activation", None)):
        for made in record.made:
            labels.fix(made)
    return record


def _channelwise(activation):
    """Whether an activation sees one channel at a time: not so for a softmax."""
    if activation in (None, keras.activations.linear, keras.activations.relu):
        return True
    x = np.linspace(-2.0, 2.0, 8, dtype="float32")[None]
    return np.allclose(activation(x)[:, :3], activation(x[:, :3]), atol=1e-6)


def _size(shape):
    return int(np.prod(shape)) if len(shape) else 1


def _bias(record, index, made):
    if len(record.layer.weights) > index:
        record.slices[index] = {len(record.layer.weights[index].shape) - 1: made}


def _dense(record, labels, inputs, outputs):
    made = labels.new(outputs[0][-1])
    record.made, record.counts = [made], {("units",): made}
    record.slices[0] = {0: record.given[0], 1: made}
    _bias(record, 1, made)
    record.macs = [(0, _size(outputs[0][1:-1]))]


def _conv(record, labels, inputs, outputs):
    layer, rank = record.layer, len(outputs[0])
    made, taken = labels.new(outputs[0][-1]), record.given[0]
    groups = layer.groups
    if groups > 1:
        taken = _grouped(record, labels, taken, made, groups)
    record.made = [made]
    record.counts[("filters",)] = made
    record.slices[0] = ({rank - 2: taken} if taken is not None else {}) | {rank - 1: made}
    _bias(record, 1, made)
    record.macs = [(0, _size(outputs[0][1:-1]))]


def _grouped(record, labels, taken, made, groups):
    """Many thin groups go as a whole; few thick ones each lose the same positions. Both keep the groups equal."""
    ins, outs = taken.reshape(groups, -1), made.reshape(groups, -1)
    if groups >= ins.shape[1]:
        labels.tie(ins, ins[:, :1])
        labels.tie(outs, ins[:, :1])
        record.counts[("groups",)] = ins[:, 0]
        return None
    labels.tie(ins, ins[:1])
    labels.tie(outs, outs[:1])
    return ins[0]


def _depthwise(record, labels, inputs, outputs):
    given, rank = record.given[0], len(outputs[0])
    made = np.repeat(given, record.layer.depth_multiplier)
    record.made, record.slices[0] = [made], {rank - 2: given}
    _bias(record, 1, made)
    record.macs = [(0, _size(outputs[0][1:-1]))]


def _separable(record, labels, inputs, outputs):
    given, rank = record.given[0], len(outputs[0])
    made = labels.new(outputs[0][-1])
    record.made, record.counts = [made], {("filters",): made}
    record.slices[0] = {rank - 2: given}
    record.slices[1] = {rank - 2: np.repeat(given, record.layer.depth_multiplier), rank - 1: made}
    _bias(record, 2, made)
    record.macs = [(0, _size(outputs[0][1:-1])), (1, _size(outputs[0][1:-1]))]


def _transposed(record, labels, inputs, outputs):
    rank, made = len(outputs[0]), labels.new(outputs[0][-1])
    record.made, record.counts = [made], {("filters",): made}
    record.slices[0] = {rank - 2: made, rank - 1: record.given[0]}
    _bias(record, 1, made)
    record.macs = [(0, _size(inputs[0][1:-1]))]


def _embedding(record, labels, inputs, outputs):
    made = labels.new(outputs[0][-1])
    record.made, record.counts, record.slices = [made], {("output_dim",): made}, {0: {1: made}}


def _recurrent(record, labels, inputs, outputs):
    layer, gates = record.layer, GATES[type(record.layer)]
    units = labels.new(layer.units)
    for state in record.given[1:]:
        labels.tie(state, units)
    record.made, record.counts, record.inside = [units] * len(outputs), {("units",): units}, units
    columns = np.tile(units, gates)
    record.slices = {0: {0: record.given[0], 1: columns}, 1: {0: units, 1: columns}}
    _bias(record, 2, columns)
    record.macs = [(0, inputs[0][1]), (1, inputs[0][1])]


def _bidirectional(record, labels, inputs, outputs):
    layer, count = record.layer, len(record.layer.weights) // 2
    if len(inputs) > 1 or len(outputs) > 1:
        raise Unfollowed("states go in or out of a Bidirectional layer")
    both = []
    for i, part in enumerate((layer.forward_layer, layer.backward_layer)):
        if type(part) not in GATES:
            raise Unfollowed(f"Bidirectional of {type(part).__name__}")
        own = Record(part, record.path, record.given, [])
        _recurrent(own, labels, inputs, outputs)
        both.append(own)
        record.slices |= {index + i * count: axes for index, axes in own.slices.items()}
        record.macs += [(index + i * count, times) for index, times in own.macs]
        record.counts[(("layer", "backward_layer")[i], "config", "units")] = own.inside
    units = [own.inside for own in both]
    labels.tie(*units)                                   # Keras takes both directions to be of one size
    record.inside = np.concatenate(units)
    record.made = [record.inside if layer.merge_mode == "concat" else units[0]]


def _einsum(record, labels, inputs, outputs):
    left, result = record.layer.equation.split("->")
    data, weight = left.split(",")
    summed, new = [x for x in weight if x not in result], [x for x in weight if x in result]
    if len(summed) != 1 or len(new) != 1 or data[-1] != summed[0] or result[-1] != new[0]:
        raise Unfollowed(f"EinsumDense with {record.layer.equation!r}")
    if record.layer.bias is not None and len(record.layer.bias.shape) != 1:
        raise Unfollowed("a bias for each position")
    made = labels.new(outputs[0][-1])
    record.made = [made]
    record.slices[0] = {weight.index(summed[0]): record.given[0], weight.index(new[0]): made}
    record.counts[("output_shape", len(record.layer.get_config()["output_shape"]) - 1)] = made
    _bias(record, 1, made)
    record.macs = [(0, _size(outputs[0][1:-1]))]


def _attention(record, labels, inputs, outputs):
    layer = record.layer
    if len(outputs) > 1 or len(inputs) > 3 or len(inputs[0]) != 3 or getattr(layer, "use_gate", False):
        raise Unfollowed("attention with scores, a gate or more than one axis")
    given = record.given
    query, value = given[0], given[1] if len(given) > 1 else given[0]
    key = given[2] if len(given) > 2 else value
    heads, made = labels.new(layer._num_heads), labels.new(outputs[0][-1])
    record.made, record.inside, record.counts = [made], heads, {("num_heads",): heads}
    if layer.get_config()["output_shape"] or not np.array_equal(outputs[0][-1:], inputs[0][-1:]):
        labels.fix(made)
    else:                                                # the output is as wide as the query: they go together
        labels.tie(made, query)
    step, at = (2, 0) if layer._use_bias else (1, 0)
    length, source = inputs[0][1], inputs[min(1, len(inputs) - 1)][1]
    for taken, times in ((query, length), (key, source), (value, source)):
        record.slices[at] = {0: taken, 1: heads}
        record.macs.append((at, times))
        if step == 2:
            record.slices[at + 1] = {0: heads}
        at += step
    record.slices[at] = {0: heads, 2: made}
    record.macs.append((at, length))
    _bias(record, at + 1, made)
    record.products = [(heads, length * source * (layer._key_dim + layer._value_dim))]


def _distributed(record, labels, inputs, outputs):
    inner = record.layer.layer
    own = follow(inner, record.path, record.given, labels,
                 ([s[:1] + s[2:] for s in inputs], [s[:1] + s[2:] for s in outputs]))
    if own is None:
        raise Unfollowed(f"TimeDistributed of {type(inner).__name__}")
    record.made, record.inside, record.slices = own.made, own.inside, own.slices
    record.counts = {("layer", "config", *key): value for key, value in own.counts.items()}
    record.macs = [(index, times * inputs[0][1]) for index, times in own.macs]


RULES = (
    ((L.Dense,), _dense),
    (CONV, _conv),
    (DEPTHWISE, _depthwise),
    (SEPARABLE, _separable),
    (TRANSPOSED, _transposed),
    ((L.Embedding,), _embedding),
    (tuple(GATES), _recurrent),
    ((L.Bidirectional,), _bidirectional),
    ((L.EinsumDense,), _einsum),
    ((L.MultiHeadAttention,), _attention),
    ((L.TimeDistributed,), _distributed),
)
