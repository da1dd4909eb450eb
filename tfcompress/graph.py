"""The flat graph of a Keras model: every call of a layer as one node, nested models opened.

Model surgery (folding, fake-quantization, baking) reads and rewrites this graph, then builds a new Keras model of it.
"""

import inspect
from collections import Counter
from dataclasses import dataclass

import keras
import numpy as np

from tfcompress.copies import copy_layer
from tfcompress.model import check_model, is_graph

HALF = ("float16", "bfloat16")


@dataclass(eq=False)
class Value:
    """A tensor of the graph. ``shape`` has ``None`` for unknown sizes, the batch first."""

    shape: tuple
    dtype: str


@dataclass(eq=False)
class Node:
    """One call ``outputs = layer(*args, **kwargs)``; ``Value`` leaves stand for tensors. A layer may have many."""

    path: str
    layer: object
    args: tuple
    kwargs: dict
    outputs: list

    @property
    def inputs(self):
        return [v for v in keras.tree.flatten((self.args, self.kwargs)) if isinstance(v, Value)]


class Graph:
    """Inputs, nodes in the order they run, and the structure of outputs."""

    def __init__(self, model):
        """The graph of ``model`` (Functional or Sequential). Layers are copied with weights, names made unique.

        Integers of 8 bits are exact in float32, not in half precision: copies of mixed-precision layers are float32.
        """
        check_model(model)
        self.name = model.name
        self.input_struct = _functional(model)._inputs_struct
        self.inputs, self.nodes, self._copies = [], [], {}
        tensors = {}
        for t in _functional(model).inputs:
            value = Value(tuple(t.shape), _full(t.dtype))
            tensors[id(t)] = value
            self.inputs.append((t._keras_history.operation.name, value))
        self.outputs = self._walk(_functional(model), tensors, "", {})
        self._rename()

    def _walk(self, functional, tensors, prefix, options):
        """Append the nodes of ``functional``; ``tensors`` maps its input tensors to values. Returns its outputs."""
        depths = functional._nodes_by_depth
        for node in (n for depth in sorted(depths, reverse=True) for n in depths[depth] if not n.is_input):
            args, kwargs = node.arguments.fill_in(tensors)
            layer = node.operation
            if isinstance(layer, keras.Model) and is_graph(layer):
                inner = _functional(layer)
                given = [v for v in keras.tree.flatten((args, kwargs)) if isinstance(v, Value)]
                own = {id(t): v for t, v in zip(inner.inputs, given, strict=True)}
                frozen = {"training": False} if kwargs.get("training", options.get("training")) is False else {}
                results = keras.tree.flatten(self._walk(inner, own, f"{prefix}{layer.name}/", frozen))
            else:
                results = [Value(tuple(t.shape), _full(t.dtype)) for t in node.outputs]
                if options and getattr(layer, "_call_has_training_arg", False):
                    kwargs = {**kwargs, **options}
                args, kwargs = _ordered(layer, args, kwargs)
                self.nodes.append(Node(prefix + layer.name, self._copy(layer), args, kwargs, results))
            tensors.update({id(t): v for t, v in zip(node.outputs, results, strict=True)})
        return keras.tree.map_structure(lambda t: tensors[id(t)], functional._outputs_struct)

    def _copy(self, layer):
        """One copy a layer, however often it is called."""
        if id(layer) not in self._copies:
            self._copies[id(layer)] = (layer, _copy_call(layer))     # the original too: its id must not be reused
        return self._copies[id(layer)][1]

    def _rename(self):
        """Layers of two sub-models may share a name: call those by their path."""
        layers = {id(node.layer): node for node in self.nodes}
        count = Counter(node.layer.name for node in layers.values())
        for node in layers.values():
            if count[node.layer.name] > 1:
                node.layer.name = node.path.replace("/", "_")

    def feed(self, x):
        """``{Value: tensor}`` of the inputs: ``x`` is an array, a list, or a dict by the inputs' names."""
        given = [x[name] for name, _ in self.inputs] if isinstance(x, dict) else keras.tree.flatten(x)
        return {v: keras.ops.cast(a, v.dtype) for (_, v), a in zip(self.inputs, given, strict=True)}

    def steps(self, tensors):
        """The nodes in order. Once a node was called, ``tensors`` that no later one reads are dropped, but outputs."""
        wanted = {v for v in keras.tree.flatten(self.outputs) if isinstance(v, Value)}
        last = {v: node for node in self.nodes for v in node.inputs if v not in wanted}
        for node in self.nodes:
            yield node
            for value in set(node.inputs):
                if last.get(value) is node:
                    del tensors[value]

    def consumers(self, value):
        """Nodes that read ``value``, once for each of their arguments that is it."""
        return [node for node in self.nodes for v in node.inputs if v is value]

    def is_output(self, value):
        return any(v is value for v in keras.tree.flatten(self.outputs))

    def users(self, layer):
        """Nodes that call ``layer``."""
        return [node for node in self.nodes if node.layer is layer]

    def drop(self, node, instead=None):
        """Remove a node of one output; whoever read it reads the value ``instead``, default its one input."""
        self.nodes.remove(node)
        swap = {id(node.outputs[0]): instead or node.inputs[0]}
        for other in self.nodes:
            other.args, other.kwargs = keras.tree.map_structure(
                lambda v: swap.get(id(v), v), (other.args, other.kwargs))
        self.outputs = keras.tree.map_structure(lambda v: swap.get(id(v), v), self.outputs)

    def replace(self, node, nodes):
        """Put ``nodes`` where ``node`` was."""
        at = self.nodes.index(node)
        self.nodes[at:at + 1] = nodes

    def chain(self, node, layers):
        """Put ``layers``, one behind the other, where the one-input ``node`` was."""
        nodes, x = [], node.inputs[0]
        for layer in layers:
            last = layer is layers[-1]
            out = node.outputs[0] if last else Value(tuple(layer.compute_output_shape(x.shape)), "float32")
            nodes.append(Node(node.path, layer, (x,), {}, [out]))
            x = out
        self.replace(node, nodes)

    def example(self, shapes=None):
        """Random inputs, a batch of two; ``shapes`` (``{Value: shape}``) where the model leaves sizes open."""
        rng, made = np.random.default_rng(0), []
        for _, value in self.inputs:
            sizes = (shapes or {}).get(value, value.shape)[1:]
            shape = (2 if value.shape[0] is None else value.shape[0], *sizes)
            whole = "float" not in value.dtype
            made.append((rng.integers(0, 2, shape) if whole else rng.standard_normal(shape)).astype(value.dtype))
        return made

    def run(self, x):
        """The outputs for ``x``, flat."""
        tensors = self.feed(x)
        for node in self.steps(tensors):
            call(node, tensors)
        return keras.tree.flatten(fill(self.outputs, tensors))

    def symbolic_inputs(self):
        """Fresh Keras inputs: ``(structure for keras.Model, {Value: KerasTensor})``."""
        fresh = [keras.Input(batch_shape=v.shape, dtype=v.dtype, name=name) for name, v in self.inputs]
        return keras.tree.pack_sequence_as(self.input_struct, fresh), {
            value: t for (_, value), t in zip(self.inputs, fresh, strict=True)}

    def build(self):
        """A plain Keras model of the graph. The graph's own layers go into it."""
        inputs, tensors = self.symbolic_inputs()
        for node in self.nodes:
            call(node, tensors)
        return keras.Model(inputs, fill(self.outputs, tensors), name=self.name)


def fill(structure, tensors):
    """``structure`` with every ``Value`` replaced by its tensor."""
    return keras.tree.map_structure(lambda v: tensors[v] if isinstance(v, Value) else v, structure)


def call(node, tensors, layer=None):
    """Call the node's layer (or another in its place) on ``tensors`` and store what comes out there."""
    args, kwargs = fill((node.args, node.kwargs), tensors)
    if getattr(node.layer, "_call_has_training_arg", False) and not any(
            isinstance(t, keras.KerasTensor) for t in keras.tree.flatten((args, kwargs))):
        kwargs["training"] = False                       # as Keras: the model's overrides a call's, and augmentation's
    results = keras.tree.flatten((layer or node.layer)(*args, **kwargs))
    tensors.update(dict(zip(node.outputs, results, strict=True)))


def batches(x, size):
    """The samples of an array, or of a structure of arrays, so many at a time."""
    flat = [np.asarray(array) for array in keras.tree.flatten(x)]
    for start in range(0, len(flat[0]), size):
        yield keras.tree.pack_sequence_as(x, [array[start:start + size] for array in flat])


def _ordered(layer, args, kwargs):
    """Tensors given by keyword by position, as far as they go: a dict would be read in the order of its names."""
    args, kwargs = list(args), dict(kwargs)
    if isinstance(layer, keras.layers.Layer):
        for name in list(inspect.signature(layer.call).parameters)[len(args):]:
            tensors = [v for v in keras.tree.flatten(kwargs.get(name)) if isinstance(v, Value)]
            if not tensors or name.endswith("mask"):
                break
            args.append(kwargs.pop(name))
    return tuple(args), kwargs


def _copy_call(layer):
    """A copy of a layer with its weights, or of an operation (``x + y``, ``keras.ops.reshape``)."""
    if isinstance(layer, keras.layers.Layer):
        copy = copy_layer(layer)
        for part in copy._flatten_layers():
            if part.compute_dtype in HALF:
                part.dtype_policy = "float32"
        return copy
    copy = type(layer).from_config(layer.get_config())
    copy.name = layer.name
    return copy


def _full(dtype):
    return "float32" if dtype in HALF else dtype


def _functional(model):
    return model._functional if isinstance(model, keras.Sequential) else model
