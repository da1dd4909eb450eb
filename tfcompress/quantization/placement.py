"""The one walk along the graph that puts fake-quantization where the integer file will round, and nowhere else."""

import keras

from tfcompress.graph import call, fill
from tfcompress.layout import kernels
from tfcompress.quantization.fake_quant import FakeQuant, IntegerAverage
from tfcompress.quantization.fold import with_bias
from tfcompress.quantization.integer import ChannelAffine, IntegerKernel
from tfcompress.quantization.kinds import AVERAGE, BINARY, FIXED, FLOAT, KERNEL, RELU, SAME, UNION, kind, limits
from tfcompress.wrapper import Compressed

RECURRENT = (keras.layers.RNN, keras.layers.Bidirectional, keras.layers.TimeDistributed)
UNFENCED = (keras.layers.LayerNormalization, keras.layers.MultiHeadAttention)   # many ops: the converter leaves them


class Placement:
    """Builds the quantization-aware Keras model of a simplified ``Graph``.

    Args:
        graph: from ``simplify``; its layers go into the model.
        spare: paths of layers that stay float.
        method: ``Method`` of the kernels.
        integer: False keeps activations float everywhere.
    """

    def __init__(self, graph, spare, method, integer=True):
        self.graph, self.spare, self.method = graph, spare, method
        self.kinds = {id(n): FLOAT if n.path in spare or not integer else kind(n) for n in graph.nodes}
        self.source = {v: n for n in graph.nodes for v in n.outputs}
        self.inputs, self.tensors = graph.symbolic_inputs()
        self.grids = {}                                  # Value -> its [low, high, step] tensor
        self.exact = {}                                  # Value -> of what it was made: arguments for its FakeQuant
        self.wrapped, self.used = {}, {n.layer.name for n in graph.nodes}
        self.groups = self._groups()                     # Value -> the _Group whose range it shares
        self.owners = {}                                 # Value -> the _Group it was rounded by

    def run(self):
        for node in self.graph.nodes:
            getattr(self, f"_{self.kinds[id(node)]}")(node)
        return keras.Model(self.inputs, fill(self.graph.outputs, self.tensors), name=self.graph.name)

    # ---- ranges -------------------------------------------------------------------------------------------------
    def kind_of(self, value):
        return self.kinds[id(self.source[value])] if value in self.source else None

    def quantize(self, value, fixed=None):
        """Make sure that ``value`` is on a grid; returns the grid."""
        if value not in self.grids:
            group = self.groups.get(value)
            if group:
                self.tensors[value], self.grids[value] = self._share(group, value)
                self.owners[value] = group
            else:
                final = bool(fixed) and self.graph.is_output(value)
                layer = FakeQuant(8, fixed, self.kind_of(value) == RELU, fence=self._fenced(value), final=final,
                                  name=self._name(value))
                self.tensors[value], self.grids[value] = layer(self.tensors[value], **self.exact.get(value, {}))
        return self.grids[value]

    def _share(self, group, value):
        if group.layer is None:
            positive = all(self.kind_of(v) == RELU for v in group.values)
            fence = any(self._fenced(v) for v in group.values)
            group.layer = FakeQuant(8, None, positive, group.size, fence=fence, name=self._name(value))
        group.calls += 1
        return group.layer(self.tensors[value], member=group.calls - 1, **self.exact.get(value, {}))

    def _name(self, value):
        inputs = dict((v, "input" if len(self.graph.inputs) == 1 else name) for name, v in self.graph.inputs)
        name = f"{inputs.get(value) or self.source[value].layer.name}_quant"
        while name in self.used:
            name += "_"
        self.used.add(name)
        return name

    def _fenced(self, value):
        """Whether ``value`` comes out of a float layer that the converter would take for an integer one."""
        node = self.source.get(value)
        if node is None:
            return False
        if self.kinds[id(node)] in (SAME, RELU) and node.inputs[0] not in self.grids:
            return self._fenced(node.inputs[0])
        return self.kinds[id(node)] == FLOAT and (node.path in self.spare or not isinstance(node.layer, UNFENCED))

    def _root(self, value):
        """The value whose grid ``value`` inherits, through pools and reshapes."""
        node = self.source.get(value)
        if node is None or self.kinds[id(node)] not in (SAME, AVERAGE, UNION):
            return value
        root = self._root(node.inputs[0]) if self.kinds[id(node)] != UNION else value
        return value if self.kind_of(root) in (None, FLOAT) else root

    def _groups(self):
        """Concatenation and maximum need one grid for inputs and result: join those, and what they inherit from."""
        groups = {}
        for node in self.graph.nodes:
            if self.kinds[id(node)] == UNION:
                joined = _Group({node.outputs[0]}, len(node.inputs))
                for value in map(self._root, node.inputs):
                    if self.kind_of(value) != FIXED:
                        other = groups.get(value) or _Group({value}, 1)
                        joined = joined if other is joined else joined.join(other)
                        groups |= dict.fromkeys(joined.values, joined)
                groups |= dict.fromkeys(joined.values, joined)
        return groups

    def _result(self, node):
        """Quantize what ``node`` computed, unless a ReLU alone reads it: TFLite fuses that."""
        value = node.outputs[0]
        readers = self.graph.consumers(value)
        alone = len(readers) == 1 and not self.graph.is_output(value)
        if not (alone and self.kinds[id(readers[0])] == RELU and getattr(node.layer, "clip", None) is None):
            self.quantize(value, limits(node.layer))

    # ---- one method a kind ----------------------------------------------------------------------------------------
    def _kernel(self, node):
        value = node.inputs[0]
        grid = self.quantize(value)
        layer = node.layer
        if not isinstance(layer, ChannelAffine):
            layer = self._wrap(layer, lambda: with_bias(node.layer, value.shape), IntegerKernel)
        self.tensors[node.outputs[0]], unit = layer(self.tensors[value], grid)
        self.exact[node.outputs[0]] = {"unit": unit}
        self._result(node)

    def _binary(self, node):
        for value in node.inputs:
            self.quantize(value)
        call(node, self.tensors)
        same_rank = len({len(v.shape) for v in node.inputs}) == 1    # Keras aligns other ranks in its own way
        if type(node.layer).__name__ == "Add" and len(node.inputs) == 2 and same_rank:
            self.exact[node.outputs[0]] = {"terms": [(self.tensors[v], self.grids[v]) for v in node.inputs]}
        self._result(node)

    def _unary(self, node):
        self.quantize(node.inputs[0])
        call(node, self.tensors)
        self.quantize(node.outputs[0])

    def _relu(self, node):
        value = node.inputs[0]
        if self.kind_of(value) not in (KERNEL, BINARY, FLOAT):
            self.quantize(value)
        call(node, self.tensors)
        made = self.exact.get(value, {}) if value not in self.grids else {}
        if made and not ("terms" in made and node.outputs[0] in self.groups):    # a wider range would not clip the sum
            self.exact[node.outputs[0]] = made
        self.quantize(node.outputs[0])

    def _fixed(self, node):
        self.quantize(node.inputs[0])
        call(node, self.tensors)
        self.quantize(node.outputs[0], limits(node.layer))

    def _inherit(self, node, value):
        if value in self.grids:
            self.grids |= dict.fromkeys(node.outputs, self.grids[value])
            self.owners |= dict.fromkeys(node.outputs, self.owners.get(value))

    def _same(self, node):
        call(node, self.tensors)
        self._inherit(node, node.inputs[0])

    def _average(self, node):
        value = node.inputs[0]
        grid = self.quantize(value)
        layer = self.wrapped.setdefault(id(node.layer), IntegerAverage(node.layer, name=node.layer.name))
        self.tensors[node.outputs[0]] = layer(self.tensors[value], grid)
        self._inherit(node, value)

    def _union(self, node):
        group, tensors = self.groups[node.outputs[0]], dict(self.tensors)
        for value in node.inputs:
            self.quantize(value)
            tensors[value], grid = self.tensors[value], self.grids[value]
            if self.owners.get(value) is not group:      # a sigmoid's range is fixed: rounded once more
                tensors[value], grid = self._share(group, value)
        call(node, tensors)
        self.tensors[node.outputs[0]], self.grids[node.outputs[0]] = tensors[node.outputs[0]], grid
        self.owners[node.outputs[0]] = group

    def _float(self, node):
        """Attention and the like: float arithmetic with the weights that the file will hold."""
        layer = node.layer
        skip = not isinstance(layer, keras.layers.Layer) or isinstance(layer, RECURRENT) or node.path in self.spare
        found = {} if skip else kernels(layer)
        call(node, self.tensors, self._wrap(layer, lambda: layer, Compressed, found) if found else None)

    def _wrap(self, layer, inner, wrapper, keys=("kernel",)):
        """The one wrapper of a layer, however often it is called."""
        if id(layer) not in self.wrapped:
            new = wrapper(inner(), {key: self.method for key in keys})
            new.build_from_config({"layer": None})
            self.wrapped[id(layer)] = new
        return self.wrapped[id(layer)]


class _Group:
    """Values that share one grid, and the one ``FakeQuant`` that makes it."""

    def __init__(self, values, size):
        self.values, self.size, self.layer, self.calls = values, size, None, 0

    def join(self, other):
        return _Group(self.values | other.values, self.size + other.size)


