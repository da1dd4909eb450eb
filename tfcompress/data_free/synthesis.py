"""Calibration inputs made from a trained network: its batch normalizations remember what they have seen.

Inputs are changed by a few gradient steps until the batch means and variances in front of every BatchNormalization come
near to its moving ones. ZeroQ (Cai et al., arXiv:2001.00281) and DeepInversion (Yin et al., arXiv:1912.08795) go all
the way in hundreds of steps from white noise; from noise with the spectrum of pictures four steps go most of it.
"""

import contextlib
from dataclasses import dataclass

import numpy as np

from tfcompress.conversion import keras_model
from tfcompress.data_free import prior

RANGES = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-128.0, 127.0), None)  # of inputs; None: mean 0, deviation 1
RATE = 0.05  # of Adam, in halves of the range
WORK = 10e9  # multiply-accumulates that a synthesis may take
FEWEST, MOST = 4, 64  # inputs
FEW = 2  # inputs that a range is judged by
STEPS = 4, 12
LAYERS = 300  # of a model whose gradient is made; it takes seconds to trace more
EPSILON = 1e-3
TRUSTED = 0.6  # nats a channel between synthetic inputs and what is remembered; real inputs have .2 to .5


@dataclass(frozen=True)
class Synthetic:
    """Inputs and where they come from.

    Attributes:
        inputs: ``{input name: array}``, samples first.
        limits: the range that was found or read from the model; None: mean 0, deviation 1, or no floats.
        norms: how many batch normalizations the inputs were fitted to; 0: the model remembers nothing.
        given: the model itself tells the range of its inputs, by a first Rescaling.
        before, after: mean divergence (KL of normal distributions, nats a channel) from what they remember.
    """

    inputs: dict
    limits: tuple | None
    norms: int = 0
    before: float | None = None
    after: float | None = None
    given: bool = False

    def doubts(self, kernels):
        """Why what so many kernels see of these inputs can't be trusted; "" where it can."""
        if not self.norms or 2 * self.norms < kernels:
            return f"{self.norms} batch normalizations tell too little about {kernels} kernels"
        if not self.after < TRUSTED:
            return f"the batch normalizations remember other inputs (divergence {self.after:.2f})"
        return ""

    def __str__(self):
        size = len(next(iter(self.inputs.values())))
        if not self.norms:
            return f"{size} inputs of noise: the model has no batch normalization that could say what it has seen"
        scale = "of mean 0, deviation 1" if self.limits is None else f"in {self.limits[0]:g}..{self.limits[1]:g}"
        return (f"{size} inputs {scale}, fitted to {self.norms} batch normalizations: divergence {self.before:.2f} -> "
                f"{self.after:.2f} nats a channel")


def synthesize(source, inputs, macs, seed=0):
    """Inputs for a model.

    Args:
        source: a ``conversion.source.Source``; of files that aren't Keras models nothing but the inputs is known.
        inputs: ``{name: Tensor}`` of what goes in.
        macs: multiply-accumulates of one sample; they limit how many inputs are made, and the steps.
        seed: the same seed, the same inputs.

    Returns:
        A ``Synthetic``.
    """
    layers, known = source.layers(), prior.limits_of(source.layers())
    norms = [layer for layer in dict.fromkeys(layers) if type(layer).__name__ == "BatchNormalization"]
    count, steps = _affordable(macs)
    floats = all(np.dtype(spec.dtype).kind == "f" for spec in inputs.values())
    floats = floats and not any(type(layer).__name__ == "Embedding" for layer in layers)
    if not norms or source.kind != "keras":
        return Synthetic(prior.draw(inputs, layers, count, known, seed), known)
    run, tried = _Divergence(source, norms), [known] if known or not floats else RANGES
    few = [prior.draw(inputs, layers, FEW, limits, seed) for limits in tried]
    found = run([np.concatenate([each[name] for each in few]) for name in inputs], len(tried)).numpy()
    at = int(np.nanargmin(found)) if np.isfinite(found).any() else 0
    limits, start = tried[at], prior.draw(inputs, layers, count, tried[at], seed)
    if not floats or not steps or len(layers) > LAYERS:
        return Synthetic(start, limits, run.counted, float(found[at]), float(found[at]), known is not None)
    before, after, arrays = _descend(run, list(start.values()), limits, steps)
    return Synthetic(dict(zip(start, arrays, strict=True)), limits, run.counted, before, after, known is not None)


def _affordable(macs):
    """``(inputs, steps)``: more of both for small models.

    >>> _affordable(1e3), _affordable(4e8), _affordable(6e9)
    ((64, 12), (4, 2), (4, 0))
    """
    forwards = WORK / max(macs, 1.0)  # a step with its gradient takes three
    count = int(np.clip(forwards / 3 / STEPS[0], FEWEST, MOST))
    steps = int(forwards / 3 / count)
    return count, 0 if steps < 1 else min(max(steps, 1), STEPS[1])


class _Divergence:
    """How far a batch's statistics are from those that the norms remember: mean KL divergence a channel, a tensor."""

    def __init__(self, source, norms):
        self.source, self.norms, self.counted = source, norms, len(norms)
        self.goals = {id(norm): (norm.moving_mean.numpy(), norm.moving_variance.numpy() + EPSILON) for norm in norms}

    def __call__(self, arrays, groups=1):
        """A divergence for each group of inputs; groups are of equal size and follow one another."""
        import tensorflow as tf

        model = self.source.value
        with _recorded(self.norms) as seen:
            arrays = [tf.convert_to_tensor(array) for array in arrays]
            model(tf.nest.pack_sequence_as(keras_model.structure(model), arrays), training=False)
        means, squares, goals = [], [], []
        for norm, value in seen:
            axis = (norm.axis if isinstance(norm.axis, int) else norm.axis[0]) % len(value.shape)
            others = [at for at in range(len(value.shape)) if at != axis]
            value = tf.transpose(value, [*others, axis]) if axis != len(others) else value
            value = tf.reshape(value, (groups, -1, value.shape[-1]))
            means.append(tf.reduce_mean(value, axis=1))
            squares.append(tf.reduce_mean(value**2, axis=1))
            goals.append(self.goals[id(norm)])
        self.counted = len({id(norm) for norm, _ in seen})
        if not seen:
            return tf.zeros(groups)
        goal, spread = (np.concatenate(part) for part in zip(*goals, strict=True))
        share = np.concatenate([np.full(len(mean), 1 / len(mean) / len(goals)) for mean, _ in goals]).astype("float32")
        mean, square = tf.concat(means, axis=1), tf.concat(squares, axis=1)
        ratio = (tf.maximum(square - mean**2, 0) + EPSILON) / spread
        return tf.reduce_sum(share * (ratio + (mean - goal) ** 2 / spread - 1 - tf.math.log(ratio)), axis=1) / 2


@contextlib.contextmanager
def _recorded(norms):
    """Within it, what goes into the layers is kept: a list of ``(layer, tensor)``."""
    seen = []

    def recording(norm, call):
        def recorded(inputs, *args, **kwargs):
            seen.append((norm, inputs))
            return call(inputs, *args, **kwargs)

        return recorded

    for norm in norms:
        object.__setattr__(norm, "call", recording(norm, norm.call))
    try:
        yield seen
    finally:
        for norm in norms:
            object.__delattr__(norm, "call")


def _descend(run, arrays, limits, steps):
    """``(divergence before, after, the inputs changed)`` by Adam, kept within the limits."""
    import keras
    import tensorflow as tf

    @tf.function(autograph=False)  # eager, kernels get gradients, too: slow, and of 1x1 with strides oneDNN's crash
    def slope():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            loss = run(variables)[0]
        return loss, tape.gradient(loss, variables)

    half = 1.0 if limits is None else (limits[1] - limits[0]) / 2
    variables = [tf.Variable(array) for array in arrays]
    optimizer, first, best = keras.optimizers.Adam(RATE * half, beta_1=0.8, beta_2=0.9), None, (np.inf, arrays)
    for step in range(steps + 1):
        loss, gradients = slope()
        value = float(loss)
        first = value if first is None else first
        if value < best[0]:
            best = value, [variable.numpy() for variable in variables]
        if step == steps or not np.isfinite(value):
            break
        optimizer.apply_gradients([(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None])
        if limits is not None:
            for variable in variables:
                variable.assign(tf.clip_by_value(variable, *limits))
    return first, best[0], best[1]
