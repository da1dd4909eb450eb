"""Activations of a few bits: a layer behind each activation rounds it, in training and in the ``.tflite`` file."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from tfcompress.graph import Graph, Node, Value, call
from tfcompress.method import Config, serializable, straight_through
from tfcompress.model import check_model
from tfcompress.quantization.least_squares import one_bit, signs, two_bits

L = keras.layers
ACTIVATIONS = (L.ReLU, L.LeakyReLU, L.PReLU, L.ELU, L.Activation)
WITH_ACTIVATION = (L.Dense, L.EinsumDense, L.Conv1D, L.Conv2D, L.Conv3D, L.DepthwiseConv1D, L.DepthwiseConv2D,
                   L.SeparableConv1D, L.SeparableConv2D, L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)
OPERATIONS = ("Relu", "Relu6", "LeakyRelu", "Elu", "Silu", "HardSilu", "Gelu", "Sigmoid", "HardSigmoid", "Tanh")
MOST_SAMPLES, BATCH, MOST_VALUES = 1000, 100, 16384     # values of a tensor: a batch's share when scales are fitted
GOLDEN = 0.6180339887


def sign_vectors(x, scales):
    """``s_i = sign(x - v_1 s_1 - ... - v_(i-1) s_(i-1))`` for ``scales`` (k,): a list of k tensors like ``x``."""
    rest, found = x, []
    for i in range(scales.shape[0]):
        found.append(signs(rest))
        rest = rest - scales[i] * found[-1]
    return found


def refitted(x, scales):
    """The least squares scales of ``x`` (n,) for the sign vectors that ``scales`` give; a scale of 0 stays 0."""
    columns = ops.stack(sign_vectors(x, scales), axis=1) * ops.cast(scales > 0, x.dtype)
    columns, x = ops.cast(columns, "float64"), ops.cast(x, "float64")
    count = ops.cast(ops.shape(x)[0], "float64")
    ridge = 1e-6 * ops.eye(scales.shape[0], dtype="float64")         # two equal sign vectors share their scale
    normal, right = ops.matmul(ops.transpose(columns), columns), ops.matmul(ops.transpose(columns), x[:, None])
    return ops.cast(ops.abs(ops.solve(normal / count + ridge, right / count))[:, 0], "float32")


def fitted_scales(x, terms, rounds=20):
    """``(terms,)`` scales for the values ``x``, float32: the optimum for one and two, near it from three on.

    There the signs are fitted to the scales and the scales to the signs in turn, from halves of three root mean squares
    on. Greedy scales are far off where values are never negative: a relative squared error of 0.16 in place of 0.044
    for three scales behind a ReLU of normal values.

    >>> [round(float(v), 3) for v in fitted_scales(np.array([1.0, -1.0, 3.0, -3.0], "float32"), 2)]
    [2.0, 1.0]
    """
    x = ops.reshape(ops.convert_to_tensor(x, "float32"), (-1,))
    if terms < 3:
        return ops.stack([v[0, 0] for v in (two_bits(x[:, None]) if terms == 2 else (one_bit(x[:, None]),))])
    scales = 3.0 * ops.sqrt(ops.mean(ops.square(x))) * ops.convert_to_tensor(0.5 ** np.arange(1, terms + 1), "float32")
    for _ in range(rounds):
        scales = refitted(x, scales)
    return scales


@serializable
@dataclass(frozen=True)
class LeastSquaresActivation(Config):
    """Forward ``v_1 s_1 + ... + v_k s_k`` with sign vectors ``s_i = sign(x - v_1 s_1 - ... - v_(i-1) s_(i-1))``.

    One set of scales ``v`` a tensor: ``fitted_scales`` of the calibration data, then a moving average of each training
    batch's least squares fit. Gradient: straight through, and 0 where ``|x|`` is above ``clip``. Where the calibration
    data held no negative value (behind a ReLU) the first sign is always +: then ``k = bits + 1``.

    Pouransari et al. 2020, "Least squares binary quantization of neural networks" (arXiv:2001.02786).

    Args:
        bits: 1..8; a tensor has at most ``2**bits`` values.
        momentum: of the moving average.
        clip: the paper's is 1.0, for inputs that a batch normalization made; ``None``: the largest level and half the
            smallest distance between two.

    Raises:
        ValueError: bits, momentum or clip out of range.

    >>> method, x = LeastSquaresActivation(1), np.array([0.0, 0.1, 0.2, 1.0, 1.2], "float32")
    >>> (method.rounded(x, method.init(x)).numpy() * 10).round(3).tolist()      # the best two values
    [1.0, 1.0, 1.0, 11.0, 11.0]
    """

    bits: int = 2
    momentum: float = 0.99
    clip: float | None = None

    trainable = ()

    def __post_init__(self):
        if self.bits not in range(1, 9) or not 0 <= self.momentum < 1 or not (self.clip is None or self.clip > 0):
            raise ValueError("Expected bits in 1..8, momentum in [0, 1) and clip above 0 or None. "
                             f"Received: {self}.")

    def init(self, x):
        """``scales`` is (bits + 1,), the last one 0 for signed values; ``signed`` is 1 for those."""
        signed = np.min(x, initial=0.0) < 0
        scales = ops.convert_to_numpy(fitted_scales(x, self.bits if signed else self.bits + 1))
        return {"scales": np.append(scales, np.zeros(int(signed), "float32")), "signed": np.float32(signed)}

    def moved(self, x, state, step):
        """The moving average of the scales, from values evenly drawn from the batch, always as many."""
        flat = ops.reshape(ops.stop_gradient(x), (-1,))
        size = ops.cast(ops.shape(flat)[0], "float64")           # in int32 the products overflow
        order = ops.arange(MOST_VALUES, dtype="float64")
        order = order + ops.mod(GOLDEN * order, 1.0)             # an even stride would read the same channels always
        places = ops.cast(order * size / MOST_VALUES, "int32")
        new = refitted(ops.take(flat, places), ops.convert_to_tensor(state["scales"]))
        return {"scales": self.momentum * state["scales"] + (1 - self.momentum) * new}

    def rounded(self, x, state):
        scales = ops.convert_to_tensor(state["scales"])
        return sum(scales[i] * s for i, s in enumerate(sign_vectors(x, scales)))

    def trained(self, x, state):
        limit = self.clip
        if limit is None:
            scales = state["scales"]
            limit = ops.sum(scales) + ops.where(ops.cast(state["signed"], "bool"), scales[-2], scales[-1])
        passed = x * ops.cast(ops.abs(x) <= limit, x.dtype)
        return straight_through(passed, ops.stop_gradient(self.rounded(x, state)))


@serializable
class QuantizedActivation(keras.layers.Layer):
    """Rounds its input to the few levels of ``quantizer``: softly in training where the quantizer does, else hard.

    It counts its own steps in training, so ``fit`` needs no callback for it and a resumed run goes on where it was.

    Args:
        quantizer: a ``QuantizationNetwork`` or a ``LeastSquaresActivation``.

    Input: any shape, float32; output: the same. Start it from data with ``calibrate(values)``.
    """

    def __init__(self, quantizer, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        if not hasattr(quantizer, "moved"):
            raise ValueError("`quantizer` is a QuantizationNetwork or a LeastSquaresActivation. "
                             f"Received: {quantizer!r}.")
        self.quantizer, self.supports_masking = quantizer, True

    def build(self, input_shape=None):
        self.step = self.add_weight(name="step", shape=(), dtype="int32", initializer="zeros", trainable=False,
                                    aggregation="only_first_replica")
        self.state = tuple(
            (name, self.add_weight(name=name, shape=np.shape(value), trainable=name in self.quantizer.trainable,
                                   aggregation="mean", initializer=keras.initializers.Constant(value)))
            for name, value in self.quantizer.init(np.ones(2, "float32")).items())

    def calibrate(self, values):
        """Start the levels from an array of activations."""
        found = self.quantizer.init(values)
        for name, variable in self.state:
            variable.assign(found[name])

    def call(self, x, training=False):
        state = {name: variable.value for name, variable in self.state}
        if not training:
            return self.quantizer.rounded(x, state)
        new = self.quantizer.moved(x, state, self.step.value)
        for name, variable in self.state:
            if name in new:
                variable.assign(new[name])
        self.step.assign(self.step + 1)
        return self.quantizer.trained(x, state | new)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "quantizer": keras.saving.serialize_keras_object(self.quantizer)}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        return cls(keras.saving.deserialize_keras_object(config.pop("quantizer")), **config)


def quantize_activations(model, quantizer, calibration):
    """A copy of a trained ``model`` with a ``QuantizedActivation`` behind each activation that the model goes on with.

    That is: behind ReLU-like layers, sigmoids and tanh, and behind Dense and convolution layers with an activation of
    their own; not behind softmax, in recurrent layers, or where the model ends. Train what it returns (``compress`` may
    quantize its kernels too) and ``strip`` it: the layers stay, with hard levels, and are plain builtin operations in
    the ``.tflite`` file.

    Args:
        model: built Functional or Sequential model; nested models are flattened.
        quantizer: a ``QuantizationNetwork`` (levels ``(0, 1, 2, 3)`` behind a ReLU) or a ``LeastSquaresActivation``.
        calibration: inputs as the model takes them, arrays; the first 1,000 samples start the levels.

    Raises:
        ValueError: a model that is not a graph, or without such an activation, or quantized already.

    >>> model = keras.Sequential([keras.Input((4,)), L.Dense(8, activation="relu", name="hidden"), L.Dense(2)])
    >>> few = quantize_activations(model, LeastSquaresActivation(2), np.eye(4, dtype="float32"))
    >>> [layer.name for layer in few.layers][1:3]
    ['hidden', 'hidden_levels']
    """
    check_model(model)
    graph = Graph(model)
    if any(isinstance(node.layer, QuantizedActivation) for node in graph.nodes):
        raise ValueError(f"The activations of model '{model.name}' are quantized already.")
    chosen = [node for node in graph.nodes if _activates(node.layer) and not graph.is_output(node.outputs[0])]
    if not chosen:
        raise ValueError(f"Model '{model.name}' has no activation that is read by another layer. Layers: "
                         f"{[node.path for node in graph.nodes]}.")
    used = {node.layer.name for node in graph.nodes}
    for node, values in _observed(graph, chosen, calibration).items():
        _insert(graph, node, quantizer, values, used)
    return graph.build()


def _activates(layer):
    """Whether the layer or operation ends in an activation that is worth rounding."""
    if type(layer).__module__.startswith("keras.src.ops"):
        return type(layer).__name__ in OPERATIONS
    inner = getattr(layer, "layer", layer)               # of a compressed layer
    if not isinstance(inner, ACTIVATIONS + WITH_ACTIVATION):
        return False
    function = getattr(inner, "activation", None)
    plain = isinstance(inner, ACTIVATIONS) and not isinstance(inner, L.Activation)
    return plain or function not in (None, keras.activations.linear, keras.activations.softmax)


def _observed(graph, chosen, x):
    """``{node: values of its output}``: a sample, with the largest and the smallest of all."""
    rng, found = np.random.default_rng(0), {node: [] for node in chosen}
    count = min(len(keras.tree.flatten(x)[0]), MOST_SAMPLES)
    for start in range(0, count, BATCH):
        part = slice(start, min(start + BATCH, count))
        tensors = graph.feed(keras.tree.map_structure(lambda a, part=part: a[part], x))
        for node in graph.steps(tensors):
            call(node, tensors)
            if node in found:
                values = np.ravel(ops.convert_to_numpy(tensors[node.outputs[0]]))
                drawn = values[rng.integers(0, len(values), MOST_VALUES)] if len(values) > MOST_VALUES else values
                found[node].append(np.append(drawn, [values.min(), values.max()]))
    return {node: np.concatenate(parts) for node, parts in found.items()}


def _insert(graph, node, quantizer, values, used):
    """Put a calibrated layer between ``node`` and all that read it."""
    value, name = node.outputs[0], f"{node.layer.name}_levels"
    while name in used:
        name += "_"
    used.add(name)
    layer, fresh = QuantizedActivation(quantizer, name=name), Value(value.shape, value.dtype)
    layer.build(value.shape)
    layer.calibrate(values)
    for other in graph.consumers(value):
        other.args, other.kwargs = keras.tree.map_structure(
            lambda v: fresh if v is value else v, (other.args, other.kwargs))
    graph.nodes.insert(graph.nodes.index(node) + 1, Node(f"{node.path}_levels", layer, (value,), {}, [fresh]))
