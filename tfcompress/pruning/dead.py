"""Which channels a masked model no longer needs: those that are constant, and those that nobody reads.

A zeroed filter behind a BatchNormalization and a ReLU is not zero: it gives ``relu(beta - gamma * mean / sigma)``
everywhere. That constant is followed through the graph and put into the next bias. A padded convolution sees zeros at
its border instead: there only a constant of 0 can go.
"""

import keras
import numpy as np

from tfcompress.layout import DEPTHWISE, TRANSPOSED
from tfcompress.pruning.channels import floats
from tfcompress.pruning.labels import FIXED
from tfcompress.pruning.probe import NONE, run
from tfcompress.pruning.rules import CONV, GATES, SEPARABLE
from tfcompress.wrapper import read

L = keras.layers
CANDIDATE = {L.LSTM: 2, L.GRU: 2, L.SimpleRNN: 0}        # the gate that makes new values: a unit without one stays 0


class Dead:
    """What is constant in ``channels``' model.

    Attributes:
        constant: ``{Value: (channels,)}``, NaN for a channel that changes with the input.
        keep: bool by label: what has to stay.
        blocked: ``{label: (path, constant)}`` constant channels that stay, since a padded layer or one without a
            linear kernel reads them.
    """

    def __init__(self, channels):
        self.channels, self.constant, self.blocked, self._folds = channels, {}, {}, {}
        self.dead_inside, self.read_by = [], []
        for _, value in channels.graph.inputs:
            self.constant[value] = np.full(len(channels.of[value]), np.nan)
        mixing = {node: record for node, record in channels.calls}
        for node in channels.graph.nodes:
            if node in mixing:
                self._mix(node, mixing[node])
            else:
                self._carry(node)
        self.keep = self._verdict()

    # ---- following ----------------------------------------------------------------------------------------------
    def _carry(self, node):
        for value in node.outputs:
            self.constant[value] = np.full(len(self.channels.of[value]), np.nan)
        flows = self.channels.flows.get(node)
        if flows is None:
            return
        given = [self.constant[v] for v in node.inputs]
        joined = np.append(np.concatenate(given), np.nan)
        if np.isnan(joined).all():
            return
        live = np.isnan(np.append(joined[:-1], 0.0))         # the last stands for "no source": padding, a zero
        shapes = [self.channels.shapes[v] for v in node.inputs]
        arrays = [_along(np.nan_to_num(c), shape, self.channels.axis[v])
                  for c, shape, v in zip(given, shapes, node.inputs, strict=True)]
        product = type(node.layer).__name__ == "Multiply"
        for value, flow, out in zip(node.outputs, flows, run(node.layer, node, arrays), strict=True):
            rows = np.moveaxis(out, flow.axis, 0).reshape(out.shape[flow.axis], -1)
            moving = np.ptp(rows, axis=1) > 1e-6 * (1e-3 + np.abs(rows).max(1))
            alive = live[flow.sources].any(1)
            if product:                                      # 0 times anything
                alive &= ~((joined[flow.sources] == 0) & (flow.sources != NONE)).any(1)
            self.constant[value] = np.where(alive | moving, np.nan, rows[:, 0])

    def _mix(self, node, record):
        layer = node.layer.layer if isinstance(node.layer, L.TimeDistributed) else node.layer
        labels, c = self._last((floats(node) or node.inputs)[0])
        made = [np.full(len(labels), np.nan) for labels in record.made]
        if isinstance(layer, DEPTHWISE):
            made = [_depthwise(layer, c)]
        elif isinstance(layer, (L.Dense, L.EinsumDense, *CONV, *SEPARABLE, *TRANSPOSED)):
            made = [self._linear(node, layer, labels, c)]
        else:
            made = self._other(node, layer, record, made)
        for value, constants in zip(node.outputs, made, strict=True):
            self.constant[value] = constants

    def _last(self, value):
        """``(labels, constants)`` along a tensor's last axis: no constants where its channels lie on another one."""
        labels = self.channels.last(value)
        return labels, self.constant[value] if labels is self.channels.of[value] else np.full(len(labels), np.nan)

    def _linear(self, node, layer, labels, c):
        weights, padded = _matrix(layer)
        used, total = (weights != 0).any(0), weights.sum(0)
        live = np.isnan(c)
        value = np.where(live, 0.0, c)
        border = np.zeros_like(live) if not padded else (value != 0) & used.any(1)
        self.read_by.append((labels, used.any(1)))
        self._block(labels[border], node, value[border])
        bias = read(layer.bias) if layer.bias is not None else np.zeros(1)
        if isinstance(layer, L.EinsumDense) and layer.bias is None:
            self._block(labels[value != 0], node, value[value != 0])
        else:
            self._fold(node, labels, np.where(border, 0.0, value), total)
        out = np.where((used[live | border]).any(0), np.nan, value @ total + bias)
        return _activated(layer, out)

    def _other(self, node, layer, record, made):
        """Layers without a plain matrix: constants of 0 can go, others can't."""
        live = []                                            # by input: what changes, or is a constant that stays
        for labels, c in map(self._last, floats(node)):
            given = ~np.isnan(c) & (c != 0)
            self._block(labels[given], node, c[given])
            self.read_by.append((labels, np.ones(len(labels), bool)))
            live.append(np.isnan(c) | given)
        if isinstance(layer, L.Embedding):
            table = read(layer.embeddings)
            return [np.where(np.ptp(table, axis=0) == 0, table[0], np.nan)]
        if type(layer) in GATES:
            idle = _idle_units(layer, live[0]) & ~np.any(live[1:], axis=0) if live[1:] else _idle_units(layer, live[0])
            self.dead_inside.append((record.inside, idle))   # the others read it, even where no later layer does
            return [np.where(idle, 0.0, np.nan) for _ in made]
        if isinstance(layer, L.Bidirectional):
            idle = [_idle_units(part, live[0]) for part in (layer.forward_layer, layer.backward_layer)]
            self.dead_inside.append((record.inside, np.concatenate(idle)))
            both = np.concatenate(idle) if layer.merge_mode == "concat" else idle[0] & idle[1]
            return [np.where(both, 0.0, np.nan)]
        if isinstance(layer, L.MultiHeadAttention):
            self.dead_inside.append((record.inside, _idle_heads(layer, live[min(1, len(live) - 1)])))
            last = layer._output_dense
            bias = read(last.bias) if last.bias is not None else 0.0
            return [np.where((read(last.kernel) != 0).any((0, 1)), np.nan, bias)]
        return made

    def _block(self, labels, node, values):
        for label, value in zip(self.channels.roots(labels), values, strict=True):
            self.blocked.setdefault(int(label), (node.path, float(value)))

    def _fold(self, node, labels, value, total):
        """Remember what a constant adds to a bias. A shared layer that reads two different ones blocks both."""
        given = value != 0                                   # the matrix may be large: rows that add nothing go
        _, old, _ = self._folds.setdefault(id(node.layer), (labels, value, total[given]))
        differ = ~np.isclose(old, value, atol=1e-7)
        self._block(labels[differ], node, value[differ])

    def added(self, layer, keep):
        """What the channels that go add to the layer's bias, ``(outputs,)``, before any of those go; None: nothing."""
        labels, value, total = self._folds.get(id(layer), (np.zeros(0, int), np.zeros(0), None))
        gone = np.where(keep[labels], 0.0, value)
        return gone[value != 0] @ total if gone.any() else None

    # ---- judging ------------------------------------------------------------------------------------------------
    def _verdict(self):
        channels, roots = self.channels, self.channels.roots
        idle = np.ones(channels.count, bool)
        idle[list(self.blocked)] = False
        for value, c in self.constant.items():
            idle[roots(channels.of[value][np.isnan(c)])] = False
        seen = np.zeros(channels.count, bool)                # labels that are read at all can be found unread
        unread = np.ones(channels.count, bool)
        for labels, used in self.read_by:
            seen[roots(labels)] = True
            unread[roots(labels[used])] = False
        for labels, dead in self.dead_inside:
            idle[roots(labels[~dead])] = False
            unread[roots(labels[~dead])] = False
            seen[roots(labels)] = True
        gone = idle | (unread & seen)
        gone[FIXED] = False
        return ~gone[roots(np.arange(channels.count))]


def _along(values, shape, axis):
    view = [1] * len(shape)
    view[axis] = -1
    return np.broadcast_to(values.astype("float32").reshape(view), shape)


def _activated(layer, out):
    """The constants behind the layer's own activation; NaN stays NaN."""
    activation = getattr(layer, "activation", None)
    if activation in (None, keras.activations.linear) or np.isnan(out).all():
        return out
    after = keras.ops.convert_to_numpy(activation(keras.ops.convert_to_tensor(np.nan_to_num(out)[None], "float32")))[0]
    return np.where(np.isnan(out), np.nan, after)


def _matrix(layer):
    """``((positions, inputs, outputs) of a linear layer, whether its border sees zeros)``."""
    if isinstance(layer, SEPARABLE):
        first, second = read(layer.depthwise_kernel), read(layer.pointwise_kernel)
        flat = first.reshape(-1, first.shape[-2], first.shape[-1])
        second = second.reshape(first.shape[-2], first.shape[-1], -1)
        return np.einsum("kim,imo->kio", flat, second), pads(layer)
    kernel = read(layer.kernel)
    if isinstance(layer, L.EinsumDense):
        weight = layer.equation.split("->")[0].split(",")[1]
        summed = next(i for i, x in enumerate(weight) if x not in layer.equation.split("->")[1])
        return np.moveaxis(kernel, summed, 0)[None], False
    if isinstance(layer, TRANSPOSED):
        return np.swapaxes(kernel, -1, -2).reshape(-1, kernel.shape[-1], kernel.shape[-2]), (
            max(*layer.kernel_size, *layer.strides) > 1)
    flat = kernel.reshape(-1, *kernel.shape[-2:])
    if getattr(layer, "groups", 1) > 1:
        groups, (positions, ins, outs) = layer.groups, flat.shape
        whole = np.zeros((positions, groups * ins, outs), kernel.dtype)
        for g in range(groups):
            part = slice(g * outs // groups, (g + 1) * outs // groups)
            whole[:, g * ins:(g + 1) * ins, part] = flat[:, :, part]
        flat = whole
    return flat, isinstance(layer, CONV) and pads(layer)


def pads(layer):
    """Whether a convolution sees zeros beyond its border."""
    return layer.padding != "valid" and max(layer.kernel_size) > 1


def _depthwise(layer, c):
    kernel = read(layer.kernel)
    flat = kernel.reshape(-1, kernel.shape[-2] * kernel.shape[-1])
    c, used = np.repeat(c, layer.depth_multiplier), (flat != 0).any(0)
    alive = used & (np.isnan(c) | ((c != 0) & pads(layer)))
    out = np.where(used, np.nan_to_num(c) * flat.sum(0), 0.0) + (read(layer.bias) if layer.use_bias else 0.0)
    return _activated(layer, np.where(alive, np.nan, out))


def _idle_units(layer, live):
    """Units of a recurrent layer that stay 0: nothing live and no bias makes them new values."""
    weights = [read(w) for w in layer.weights]
    gate, units = CANDIDATE[type(layer)], layer.units
    part = slice(gate * units, (gate + 1) * units)
    idle = ~(weights[0][live][:, part] != 0).any(0) & ~(weights[1][:, part] != 0).any(0)
    if len(weights) > 2:
        idle &= ~(weights[2].reshape(-1, weights[2].shape[-1])[:, part] != 0).any(0)
    return idle & (float(layer.activation(keras.ops.zeros(()))) == 0)


def _idle_heads(layer, live):
    """Heads that add nothing: no values go in, or nothing of what comes out is used."""
    values, outputs = layer._value_dense, layer._output_dense
    silent = ~(read(values.kernel)[live] != 0).any((0, 2))
    if values.bias is not None:
        silent &= ~(read(values.bias) != 0).any(1)
    return silent | ~(read(outputs.kernel) != 0).any((1, 2))
