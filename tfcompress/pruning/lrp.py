"""Layer-wise relevance propagation: how much of the true classes' logits came through each filter.

The z+ rule: ``R_i = sum_j (a_i w_ij)+ R_j / sum_i' (a_i' w_i'j)+``, in each layer made with the layer's own call on
positive-part weights and a gradient. Biases take no part, so relevance is conserved from layer to layer.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfcompress.distillation.losses import head_of
from tfcompress.graph import Graph, call, fill
from tfcompress.layout import kernels
from tfcompress.model import leaves
from tfcompress.pruning.gradients import check_data, rows
from tfcompress.pruning.outputs import SEPARABLE, output_key, trailing
from tfcompress.quantization.fold import KERNELS, activation, simplify
from tfcompress.wrapper import read

L = keras.layers
PER_CLASS, BATCH, SMALL = 10, 64, 1e-20
LINEAR = (*KERNELS, L.Conv3D, L.Conv3DTranspose, L.EinsumDense)
MOVES = (L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D, L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.Flatten,
         L.Reshape, L.Permute, L.RepeatVector, L.ZeroPadding1D, L.ZeroPadding2D, L.Cropping1D, L.Cropping2D,
         L.Concatenate, L.Maximum, L.Minimum)
MIXES = (L.Add, L.Average, L.AveragePooling1D, L.AveragePooling2D, L.GlobalAveragePooling1D, L.GlobalAveragePooling2D,
         L.UpSampling1D, L.UpSampling2D)
OPERATIONS = {"Add": MIXES, "Mean": MIXES, "Concatenate": MOVES, "Maximum": MOVES, "Reshape": MOVES, "Transpose": MOVES,
              "Squeeze": MOVES, "ExpandDims": MOVES, "GetItem": MOVES, "Max": MOVES}


def relevance(weights, model=None, data=None):
    """A filter's share of its layer's relevance, summed over samples and positions, one score a filter.

    Relevance starts as 1 at the true class's logit: see ``relevances``. Shares of a layer add up to 1, so layers
    compare. At most 10 samples a class are looked at; it is meant for few. A filter nobody reads scores 0. Where
    relevance can't be told filter by filter (LSTM, attention), filters get their share of the layer's L2 norms.

    "Pruning by explaining", Yeom et al. 2021 (arXiv:1912.08881). For cutting little, without training: on two moons it
    beats units' L1 norms when a third goes at once, and loses to them when half does.

    Raises:
        ValueError: no model or data, several outputs, labels that are no classes.
    """
    totals, scores = relevances(model, data), {}
    for path, w in weights.items():
        found = totals.get(path)
        if found is None or found.sum() <= 0:
            found = np.sqrt(np.square(w.reshape(-1, w.shape[-1]), dtype="float64").sum(0))
        scores[path] = found / max(found.sum(), 1e-300)
    return scores


def relevances(model, data):
    """``{tensor path: (channels,)}``: relevance at each filter's output, summed over samples and positions.

    Batch normalizations are folded first, activations split off. Rules, by layer:

    ===================================  ==============================================================================
    Dense, EinsumDense, convolutions     z+: in proportion to the positive ``a w``
    max pooling, reshaping, Concatenate  to where the value came from
    average pooling, Add, upsampling     in proportion to what agrees with the sign of the sum
    activations, Dropout, norms          passed on unchanged
    Multiply (squeeze-excite)            to the larger input, or the first: the gate gets nothing
    others                               in proportion to ``|a * gradient|``, a sample's total kept
    ===================================  ==============================================================================

    Where nothing positive comes in relevance ends (0, not NaN); everywhere else the total is conserved, each layer that
    all paths go through holds the number of samples.

    >>> layer = keras.layers.Dense(2, use_bias=False, name="one")
    >>> model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(2, use_bias=False, name="two")])
    >>> found = relevances(model, (np.ones((4, 3), "float32"), np.array([0, 1, 0, 1])))
    >>> found["two/kernel"].tolist()                                 # one for each sample, at its class
    [2.0, 2.0]
    """
    x, y = _few(*check_data(model, data))
    if len(model.outputs) != 1:
        raise ValueError(f"Relevance starts at the one output's classes. Received: {len(model.outputs)} outputs. "
                         "Pass a model of one of them: keras.Model(model.inputs, model.outputs[0]).")
    graph, owners = _simple(model)
    output, positive, found = keras.tree.flatten(graph.outputs)[0], {}, {}
    for start in range(0, rows(x), BATCH):
        part = slice(start, start + BATCH)
        tensors = _forward(graph, keras.tree.map_structure(lambda a, part=part: a[part], x))
        total = {output: _start(model, tensors[output], y[part])}
        for node in reversed(graph.nodes):
            if not any(v in total for v in node.outputs):
                continue
            r = [total.get(v, tf.zeros_like(tensors[v])) for v in node.outputs]
            path, channels = _scored(node, owners)
            if path:
                found[path] = found.get(path, 0.0) + r[0].numpy().reshape(-1, channels).sum(0, dtype="float64")
            for value, share in zip(node.inputs, _back(node, tensors, r, positive), strict=True):
                total[value] = total[value] + share if value in total else share
    return found


def _scored(node, owners):
    """The path of the kernel whose filters make the node's output, and their number; ``(None, 0)`` for none."""
    key = output_key(node.layer) if isinstance(node.layer, L.Layer) and node.path in owners else None
    channels = kernels(node.layer)[key][1].canonical[-1] if key else 0
    if not key or not trailing(node.outputs[0].shape, channels):
        return None, 0
    for kind in ("depthwise", "pointwise"):              # separable convolutions were split
        if node.layer.name.endswith(f"_{kind}") and not node.path.endswith(f"_{kind}"):
            key = f"{kind}_kernel"
    return f"{owners[node.path]}/{key}", channels


def _few(x, y):
    """At most ten samples of each class."""
    x, y = keras.tree.map_structure(np.asarray, x), np.asarray(y)
    classes = y.argmax(-1) if y.ndim > 1 and y.shape[-1] > 1 else y
    if classes.size != len(classes):                     # a class at each position: any sample will do
        kept = np.arange(min(len(y), PER_CLASS * 10))
    else:
        classes = classes.reshape(-1)
        kept = np.sort(np.concatenate([np.flatnonzero(classes == c)[:PER_CLASS] for c in np.unique(classes)]))
    return keras.tree.map_structure(lambda a: a[kept], x), y[kept]


def _simple(model):
    """The model's graph, its kernels split and normalizations folded, and ``{node path: path of its layer}``."""
    graph = Graph(model)
    paths = {id(graph._copies[id(layer)][1]): path for path, layer in leaves(model) if id(layer) in graph._copies}
    owners = {node.path: paths[id(node.layer)] for node in graph.nodes if id(node.layer) in paths}
    simplify(graph, spare={node.path for node in graph.nodes if type(node.layer) not in (*KERNELS, *SEPARABLE)})
    return graph, owners


def _forward(graph, x):
    tensors = graph.feed(x)
    for node in graph.nodes:
        call(node, tensors)
    return tensors


def _start(model, outputs, y):
    """1 at the true class of each sample (each position of it); 1 at the one output of a model that has one."""
    classes, y = outputs.shape[-1], np.asarray(y)
    if classes == 1:
        return tf.ones_like(outputs)
    if y.shape == tuple(outputs.shape):
        y = y.argmax(-1)
    labels = y.astype("int64")
    if labels.size != int(np.prod(outputs.shape[:-1])) or (labels != y).any() or labels.min() < 0 or (
            labels.max() >= classes):
        raise ValueError(f"Relevance starts at each sample's true class: class numbers below {classes}, or one-hot. "
                         f"Received: y of shape {y.shape} and type {y.dtype} for outputs of {tuple(outputs.shape)} "
                         f"({head_of(model)}).")
    return tf.one_hot(labels.reshape(outputs.shape[:-1]), classes)


# ---- rules ------------------------------------------------------------------------------------------------------
def _back(node, tensors, r, positive):
    """The relevance of each of the node's inputs, given that of its outputs."""
    inputs, layer = [tensors[v] for v in node.inputs], node.layer
    name, own = type(layer).__name__, not isinstance(layer, L.Layer)
    family = OPERATIONS.get(name) if own else None
    if isinstance(layer, LINEAR):
        return [_z_plus(layer, inputs[0], r[0], positive)]
    if name == "Multiply" and len(inputs) > 1:
        largest = int(np.argmax([np.prod(a.shape) for a in inputs]))
        return [_fit(r[0], a) if i == largest else tf.zeros_like(a) for i, a in enumerate(inputs)]
    if isinstance(layer, MOVES) or family is MOVES:
        return _gradients(node, inputs, r)
    same = len(inputs) == len(r) == 1 and inputs[0].shape == r[0].shape
    if same and (own or activation(layer) or not isinstance(layer, MIXES) and not kernels(layer)):
        return [r[0]]
    return _mix(node, inputs, r[0]) if isinstance(layer, MIXES) or family is MIXES else _others(node, inputs, r)


def _z_plus(layer, a, r, positive):
    """``a+ w+`` and ``a- w-`` are what is positive."""
    if id(layer) not in positive:
        positive[id(layer)] = [_part(layer, sign, a.shape) for sign in (1, -1)]
    up, down = positive[id(layer)]
    parts = [ops.relu(a), -ops.relu(-a)]
    with tf.GradientTape() as tape:
        tape.watch(parts)
        z = up(parts[0]) + down(parts[1])
    return sum(p * g for p, g in zip(parts, tape.gradient(z, parts, _ratio(r, z)), strict=True))


def _part(layer, sign, shape):
    """The layer without bias and activation, with the positive (or the negative) part of its kernel."""
    config = {**layer.get_config(), "activation": "linear", "dtype": "float32"}
    config |= {"bias_axes": None} if isinstance(layer, L.EinsumDense) else {"use_bias": False}
    copy = type(layer).from_config(config)
    copy.build(shape)
    w = read(kernels(layer)["kernel"][0])
    kernels(copy)["kernel"][0].assign(np.maximum(w, 0) if sign > 0 else np.minimum(w, 0))
    return copy


def _run(node, inputs):
    given = dict(zip(node.inputs, inputs, strict=True))
    args, kwargs = fill((node.args, node.kwargs), given)
    return keras.tree.flatten(node.layer(*args, **kwargs))


def _gradients(node, inputs, r):
    """What each input gets when ``r`` is pulled back through the node."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = _run(node, inputs)
    return [tf.zeros_like(a, "float32") if g is None else tf.convert_to_tensor(g) for a, g in
            zip(inputs, tape.gradient(outputs, inputs, r), strict=True)]


def _mix(node, inputs, r):
    """In proportion to the inputs that have the sign of the sum: they are never all 0 where it is not."""
    z, total = _run(node, inputs)[0], [tf.zeros_like(a) for a in inputs]
    for sign in (1.0, -1.0):
        parts = [ops.relu(sign * a) for a in inputs]
        s = _ratio(tf.where(sign * z > 0, r, 0.0), _run(node, parts)[0])
        total = [t + p * g for t, p, g in zip(total, parts, _gradients(node, parts, [s]), strict=True)]
    return total


def _others(node, inputs, r):
    """In proportion to ``|a * gradient|``, each sample's total kept."""
    pulled = _gradients(node, inputs, r)
    parts = [tf.abs(tf.cast(a, "float32") * g) for a, g in zip(inputs, pulled, strict=True)]
    given = sum(tf.reduce_sum(tf.reshape(a, (len(a), -1)), 1) for a in r)
    came = sum(tf.reduce_sum(tf.reshape(p, (len(p), -1)), 1) for p in parts)
    rate = _ratio(given, came)
    return [p * tf.reshape(rate, (-1,) + (1,) * (len(p.shape) - 1)) for p in parts]


def _ratio(r, z):
    """``r / z``, and 0 where ``z`` is."""
    return tf.where(z > SMALL, r / tf.maximum(z, SMALL), 0.0)


def _fit(r, a):
    """Relevance of the shape of ``a``, which was broadcast."""
    for axis, size in enumerate(a.shape):
        r = tf.reduce_sum(r, axis, keepdims=True) if size == 1 else r
    return r
