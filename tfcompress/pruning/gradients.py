"""Criteria made of gradients: what the loss, or the classes' probabilities, would do if a weight or a filter went.

Data are ``(x, y)``: at most 1024 samples, evenly spread, in 16 batches. Networks run in inference mode.
"""

import weakref

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfcompress.distillation.losses import head_of, recover_logits
from tfcompress.layout import tensors
from tfcompress.model import leaves
from tfcompress.pruning.outputs import outputs_of
from tfcompress.pruning.targets import fitting_labels

SAMPLES, BATCHES = 1024, 16
EXACT = 16                    # classes up to which the information gain is exact
_compiled = {}                # name of a function -> WeakKeyDictionary {model: (loss, tf.function)}


def check_data(model, data, labels=True):
    """``(x, y)``, or a ValueError: no model, no data, no labels where they are needed."""
    if model is None:
        raise ValueError("This criterion runs the network. Received: model=None. Pass model=, a plain Keras model.")
    if not (isinstance(data, (tuple, list)) and len(data) == 2) or labels and data[1] is None:
        raise ValueError(f"This criterion looks at data. Received: data={type(data).__name__}. Pass data=(x, y), "
                         "arrays of samples and their labels, e.g. CompressionCallback(data=(x, y)).")
    return data


def batches(model, data, labels=True):
    """``data = (x, y)`` as batches of one size, 16 or a few more, each with samples from everywhere."""
    x, y = check_data(model, data, labels)
    chosen = np.linspace(0, rows(x) - 1, min(rows(x), SAMPLES)).round().astype(int)
    size = max(1, len(chosen) // BATCHES)
    number = len(chosen) // size
    parts = [chosen[k:size * number:number] for k in range(number)]
    return [keras.tree.map_structure(lambda a, part=part: None if a is None else np.asarray(a)[part], (x, y))
            for part in parts]


def rows(x):
    """How many samples ``x`` (an array, or a structure of arrays) holds."""
    return len(keras.tree.flatten(x)[0])


def loss_of(model, y, outputs):
    """The mean loss of a batch: the compiled one, without penalties; else the cross-entropy with ``y``.

    Where the model is not compiled ``y`` holds class numbers or probabilities, and the model gives probabilities
    (softmax, sigmoid) or logits: see ``distillation.losses.recover_logits``.
    """
    loss = getattr(model, "_compile_loss", None)
    if loss is not None:
        shape = outputs.shape if hasattr(outputs, "shape") else ()
        return loss(fitting_labels(model.loss, y, shape), outputs)
    if not hasattr(outputs, "shape"):
        raise ValueError(f"Model '{model.name}' has several outputs and no loss. Call model.compile(loss=...) first.")
    scores = ops.log_softmax(recover_logits(outputs, head_of(model) or "logits"), axis=-1)
    y = ops.convert_to_tensor(y)
    if tuple(y.shape) == tuple(scores.shape):
        return -ops.mean(ops.sum(ops.cast(y, "float32") * scores, axis=-1))
    if int(np.prod(y.shape)) != int(np.prod(scores.shape[:-1])):
        raise ValueError(f"Without a compiled loss, labels are class numbers or one-hot. Received: y of shape "
                         f"{tuple(y.shape)} for outputs of shape {tuple(outputs.shape)}. Call model.compile(loss=...).")
    chosen = ops.one_hot(ops.cast(ops.reshape(y, scores.shape[:-1]), "int32"), scores.shape[-1])
    return -ops.mean(ops.sum(chosen * scores, axis=-1))


def _kept_function(name, model, make):
    """``make(weak reference to model)`` once per model and compiled loss; forgotten together with the model."""
    known, loss = _compiled.setdefault(name, weakref.WeakKeyDictionary()), getattr(model, "_compile_loss", None)
    if model not in known or known[model][0] is not loss:
        known[model] = (loss, tf.function(make(weakref.ref(model)), autograph=False))
    return known[model][1]


# ---- at the weights ---------------------------------------------------------------------------------------------
def weight_gradients(paths, model, data):
    """One ``{tensor path: d(mean loss)/dw}`` a batch, numpy in the canonical view, for the tensors in ``paths``."""
    known = {f"{path}/{key}": found for path, layer in leaves(model) for key, found in tensors(layer).items()}
    missing = [path for path in paths if path not in known]
    if missing:
        raise ValueError(f"The model has no tensors {missing}. It has: {list(known)}.")

    def make(link):
        def gradients(x, y):
            model = link()
            variables = [v.value for _, layer in leaves(model) for v, _ in tensors(layer).values()]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(variables)
                loss = loss_of(model, y, model(x, training=False))
            return [tf.convert_to_tensor(g) for g in
                    tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)]
        return gradients

    function = _kept_function("weights", model, make)
    for x, y in batches(model, data):
        found = dict(zip(known, function(x, y), strict=True))
        yield {path: known[path][1].to(found[path].numpy().astype("float32"), np) for path in paths}


def mean_slopes(paths, model, data):
    """``({path: mean over batches of |g|}, {path: n * mean of g ** 2})``, ``n`` the samples of a batch.

    At a minimum the second is the empirical Fisher information of one sample.
    """
    size = rows(batches(model, data)[0][0])
    first, second, count = dict.fromkeys(paths, 0.0), dict.fromkeys(paths, 0.0), 0
    for found in weight_gradients(paths, model, data):
        count += 1
        first = {path: first[path] + np.abs(g) for path, g in found.items()}
        second = {path: second[path] + g * g for path, g in found.items()}
    return {path: g / count for path, g in first.items()}, {path: g * size / count for path, g in second.items()}


def ranked_ties(scores, w):
    """``scores >= 0`` where equals are told apart by ``|w|``: those that differ by less than 1e-6 of the mean."""
    w, mean = np.abs(w).astype("float64"), np.mean(scores, dtype="float64")
    return scores + 1e-6 * (mean if mean > 0 else 1.0) * w / max(w.max(), 1e-30)


def slope(weights, model=None, data=None):
    """"Size and slope": ``|w| * mean |g|`` over the batches, divided by the tensor's mean, one score a weight.

    ``|w * g|`` is what the loss changes by when ``w`` becomes 0, to first order. ``|g|`` is averaged, not ``g``: that
    vanishes at a minimum. Where the loss is flat weights rank by magnitude. It pays in gradual pruning, not in one
    shot. SNIP (Lee et al. 2019, arXiv:1810.02340) is its form before training.

    >>> import keras, numpy as np
    >>> layer = keras.layers.Dense(1, use_bias=False, name="out")
    >>> model = keras.Sequential([keras.Input((2,)), layer])
    >>> model.compile(loss=lambda y, outputs: keras.ops.mean(outputs))
    >>> w = np.array([[0.1], [0.3]], "float32")              # f = 5 w1 + 0.1 w2: zeroing costs 0.5 and 0.03
    >>> _ = layer.kernel.assign(w)
    >>> x = np.tile([[5.0, 0.1]], (10, 1)).astype("float32")
    >>> slope({"out/kernel": w}, model, (x, np.zeros(10)))["out/kernel"].round(3).ravel().tolist()
    [1.887, 0.113]
    """
    slopes, _ = mean_slopes(weights, model, data)
    return {path: _share(ranked_ties(np.abs(w) * slopes[path], w)) for path, w in weights.items()}


def slope_both(weights, model=None, data=None):
    """A weight goes only if both are low: ``max(rank |w|, rank mean |g|) / n`` in its tensor; ties by the product.

    Unlike with ``slope`` a huge weight on a flat stretch of the loss stays.
    """
    slopes, _ = mean_slopes(weights, model, data)
    scores = {}
    for path, w in weights.items():
        product = ranked_ties(np.abs(w) * slopes[path], w)
        both = np.maximum(ranks(np.abs(w)), ranks(slopes[path]))
        scores[path] = (both + ranks(product) / (w.size + 1)) / w.size
    return scores


def taylor2(weights, model=None, data=None):
    """``1/2 * F * w ** 2``, ``F`` the empirical Fisher information: the loss's change at a minimum, one score a weight.

    Optimal brain damage (LeCun et al. 1989) with ``F`` for the Hessian's diagonal: ``n * mean g ** 2`` over batches of
    ``n``. Comparable between layers. Where it is flat weights rank by magnitude.
    """
    _, fisher = mean_slopes(weights, model, data)
    return {path: ranked_ties(0.5 * fisher[path] * w.astype("float64") ** 2, w) for path, w in weights.items()}


def ranks(a):
    """0, 1, ... by size, in ``a``'s shape; equals share the lowest rank.

    >>> ranks(np.array([0.5, 0.1, 0.5, 0.9])).tolist()
    [1, 0, 1, 3]
    """
    values, inverse, counts = np.unique(a, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - counts)[inverse].reshape(np.shape(a))


def _share(scores):
    return scores / max(np.mean(scores), 1e-300)


# ---- at the filters' outputs --------------------------------------------------------------------------------------
def taylor(weights, model=None, data=None):
    """First-order Taylor of the activations: ``mean over samples |<a_i, dL/da_i>|``, one score a filter.

    ``a_i`` is filter i's map behind its normalization and activation. Divided by the layer's L2 norm: Molchanov et al.
    2017 (arXiv:1611.06440). Where that output can't be followed (LSTM, attention): ``|<w_i, dL/dw_i>|`` a batch.
    """
    parts, found, link = batches(model, data), dict.fromkeys(weights, 0.0), weakref.ref(model)
    inner = outputs_of(model)

    def target(outputs, y):
        return loss_of(link(), y, outputs)

    for x, y in parts:
        _, at_masks, at_weights = inner.gradients("taylor", target, weights, x, y)
        for path, g in at_masks.items():
            found[path] += np.abs(g).mean(0) * len(g)    # the loss is a mean over the batch
        for path, g in at_weights.items():
            found[path] += np.abs(g)
    return {path: s / max(np.linalg.norm(s), 1e-300) for path, s in found.items()}


def information_gain(weights, model=None, data=None):
    """What removing filter i does to the classes: ``1/2 E_x Var_{c~p(.|x)}[J_ic]``, ``J_ic = <dz_c/da_i, a_i>``.

    The leading term of ``E_x KL(p(.|x) || p(.|x, filter i gone))``, the Fisher information of the filter's mask:
    EasiEdge (Fang et al., IEEE IoT-J 8(3), 2021), in our reading. ``a_i`` is the filter's map behind normalization and
    activation, ``z`` are logits. One score a filter, comparable between layers. Labels are not used.

    Up to 16 classes it is exact, at a forward and a backward pass a class and batch; beyond, and where there are logits
    at many positions, ``c`` is drawn from ``p`` (always the same draw): one pass a batch. It is never one a filter.
    Where a filter's output can't be followed (LSTM, attention), the mask is on its weights and ``c`` is drawn.
    """
    parts = batches(model, data, labels=False)
    if len(model.outputs) != 1:
        raise ValueError(f"Information gain is that of one output's classes. Received: {len(model.outputs)} outputs. "
                         "Pass a model of one of them: keras.Model(model.inputs, model.outputs[0]).")
    inner, head = outputs_of(model), head_of(model)
    shape = recover_logits(np.full((1, *(size or 1 for size in model.outputs[0].shape[1:])), 0.5), head).shape
    exact = len(shape) == 2 and shape[-1] <= EXACT

    def drawn(outputs, seed):
        z = recover_logits(outputs, head)
        noise = -tf.math.log(-tf.math.log(tf.random.stateless_uniform(tf.shape(z), seed, minval=1e-20)))
        c = ops.one_hot(ops.argmax(z + noise, axis=-1), z.shape[-1])
        return ops.sum(ops.stop_gradient(c - ops.softmax(z, axis=-1)) * z)

    found = dict.fromkeys(weights, 0.0)
    followed, lost = [path for path in weights if path in inner.ends], inner.lost(weights)
    for number, (x, _) in enumerate(parts):
        if exact and followed:
            for path, gain in _variances(inner, head, shape[-1], followed, x).items():
                found[path] += gain / len(parts)
        rest = lost if exact else weights
        seed = tf.constant([number, 0])
        _, at_masks, at_weights = inner.gradients("drawn", drawn, rest, x, seed) if rest else (None, {}, {})
        for path, j in at_masks.items():
            found[path] += 0.5 * (j * j).mean(0) / len(parts)
        for path, j in at_weights.items():               # samples' gradients are independent, of mean 0
            found[path] += 0.5 * j * j / rows(x) / len(parts)
    return found


def _variances(inner, head, classes, paths, x):
    """``{path: 1/2 * mean over samples of Var_{c~p}[J_ic]}`` of one batch, ``(channels,)``."""
    def along(outputs, c):
        return ops.sum(recover_logits(outputs, head)[:, c])

    first, second = dict.fromkeys(paths, 0.0), dict.fromkeys(paths, 0.0)
    for c in range(classes):
        outputs, at_masks, _ = inner.gradients("along", along, paths, x, tf.constant(c))
        p = ops.convert_to_numpy(ops.softmax(recover_logits(outputs, head), axis=-1))[:, c:c + 1].astype("float64")
        for path, j in at_masks.items():
            first[path], second[path] = first[path] + p * j, second[path] + p * j * j
    return {path: 0.5 * np.maximum(second[path] - first[path] ** 2, 0).mean(0) for path in paths}
