"""Activations on the integer grid: the fake-quantization layers of training, and the fixed one of conversion."""

import keras
import tensorflow as tf
from keras import ops

from tfcompress.method import serializable, straight_through
from tfcompress.wrapper import read


def _round(x, low, high, bits):
    return tf.quantization.fake_quant_with_min_max_vars(x, low, high, num_bits=bits)


def _grid(low, high, bits):
    """Step, and codes from ``low`` to zero, in float64 as the converter: of +-2.5 the file's zero is 128, not 127."""
    low, high = ops.cast(low, "float64"), ops.cast(high, "float64")
    step = (high - low) / (2**bits - 1)
    return ops.cast(step, "float32"), ops.cast(ops.floor(0.5 - low / step), "float32")


def _of_all(limits):
    """The range of the whole batch, where ``tf.distribute`` gives each replica a part: ``limits`` are this part's."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return limits
    parts = replica.all_gather(limits[None], axis=0)
    return ops.stack([ops.min(parts[:, 0]), ops.max(parts[:, 1])])


# The arithmetic of XNNPACK, operation by operation. In another order ties fall otherwise: one code in a million, which
# six residual blocks spread to 1 % of the logits.
def _rescaled(x, unit, step):
    """``x / step`` where ``x = sums * unit``, the integer sums of a kernel; a channel of zeros has ``unit`` 0."""
    safe = ops.where(unit > 0, unit, 1.0)
    return ops.where(unit > 0, ops.round(x / safe) * (safe / step), x * (1.0 / step))


def _sum(terms, step):
    """Rounded codes of ``a + b``, ``terms = [(a, grid_a), (b, grid_b)]``: codes times whole numbers, shifted."""
    ratios = [grid[2] / step for _, grid in terms]
    exponent = tf.bitwise.right_shift(tf.bitcast(tf.maximum(*ratios), "int32"), 23) - 127
    scale = 2.0 ** ops.cast(20 - exponent, "float64")
    total = sum(ops.cast(ops.round(x / grid[2]), "float64") * ops.round(ops.cast(ratio, "float64") * scale)
                for (x, grid), ratio in zip(terms, ratios, strict=True))
    return ops.cast(ops.floor(total / scale + 0.5), "float32")


@serializable
class FakeQuant(keras.layers.Layer):
    """Round a tensor to ``2**bits`` levels between ``low`` and ``high``; zero is always one of the levels.

    Forward: ``s * round(clip(x, low, high) / s)`` with ``s = (high - low) / (2**bits - 1)``, the range nudged so that
    zero is exact. Gradient: that of ``x`` inside the range, 0 outside (Jacob et al. 2018, arXiv:1712.05877).

    Input: any shape, float32. Output: ``(x', grid)``; ``grid`` is the tensor ``[low, high, s]``, for the layers that
    compute on ``x'`` and round to multiples of its step. In inference it rounds as XNNPACK does, to the last bit: what
    an ``IntegerKernel`` made (``unit`` is the step of its integer sums, one a channel), and the sum of two tensors
    (``terms``: both, each with its grid).

    Args:
        bits: 2..16.
        fixed: ``(low, high)`` where TFLite fixes the range (sigmoid, softmax, tanh); then nothing is learned.
        nonnegative: ``low`` is 0 (behind a ReLU), which saves a pass over the tensor.
        members: how many tensors share the grid (inputs of a concatenation): the range is the union of theirs, and
            each call says with ``member`` which one it brings.
        momentum: of the moving average of batch minima and maxima. It moves in training only, starts at the first
            batch's range, and stands still while ``layer.trainable`` is False (``freeze_ranges``).
        fence: the tensor comes from a layer that stays float: see ``Fence``.
        final: these are probabilities that the model returns, and training sees them unrounded: the cross-entropy of a
            class that is rounded to 0 has no gradient, and the samples that are most wrong would teach nothing.

    >>> x, grid = FakeQuant(fixed=(0.0, 2.55))(ops.array([-1.0, 0.014, 9.0]))
    >>> [round(float(v), 4) for v in x], [round(float(v), 4) for v in grid]
    ([0.0, 0.01, 2.55], [0.0, 2.55, 0.01])
    """

    def __init__(self, bits=8, fixed=None, nonnegative=False, members=1, momentum=0.99, fence=False,
                 final=False, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.bits, self.fixed, self.nonnegative = bits, fixed and tuple(fixed), nonnegative
        self.members, self.momentum, self.fence, self.final = members, momentum, fence, final
        self.observing = False                           # calibrate() sets it: learn the range outside training, too

    def build(self, input_shape=None):
        if self.fixed is None:                           # rows of zeros: nothing seen yet
            self.range = self.add_weight(name="range", shape=(self.members, 2), initializer="zeros", trainable=False,
                                         aggregation="only_first_replica")       # all have the same: see _of_all

    @property
    def limits(self):
        """``(low, high)`` as floats; ``(0.0, 0.0)`` before any data was seen."""
        if self.fixed:
            return self.fixed
        known = read(self.range)
        return float(known[:, 0].min()), float(known[:, 1].max())

    def call(self, x, member=0, unit=None, terms=None, training=False):
        if self.fixed:
            low, high = (ops.convert_to_tensor(v, "float32") for v in self.fixed)
        else:
            known = self.range.value
            if self.observing or (training and self.trainable):
                known = self._observe(x, known, member)
                self.range.assign(known)
            else:                                        # nothing seen yet: the range of this batch
                known = tf.cond(ops.max(known) > 0, lambda: known, lambda: self._batch(x)[None])
            low, high = ops.min(known[:, 0]), ops.max(known[:, 1])
        if training:
            step = (high - low) / float(2**self.bits - 1)
            return x if self.final else _round(x, low, high, self.bits), ops.stack([low, high, step])
        step, zero = _grid(low, high, self.bits)
        codes = _sum(terms, step) if terms else _rescaled(x, unit, step) if unit is not None else x * (1.0 / step)
        codes = ops.clip(ops.round(codes), -zero, 2.0**self.bits - 1 - zero)
        return straight_through(ops.clip(x, low, high), codes * step), ops.stack([low, high, step])

    def _batch(self, x):
        x = ops.stop_gradient(x)
        low = ops.zeros(()) if self.nonnegative else ops.minimum(ops.min(x), 0.0)
        return ops.stack([low, ops.maximum(ops.max(x), 1e-6)])

    def _observe(self, x, known, member):
        """The ranges with the row of ``member`` moved towards this batch's."""
        row, batch = known[member], _of_all(self._batch(x))
        moved = ops.where(row[1] > row[0], row + (1.0 - self.momentum) * (batch - row), batch)
        if self.members == 1:
            return moved[None]
        return ops.where(ops.arange(self.members)[:, None] == member, moved, known)

    def compute_output_spec(self, x, member=0, unit=None, terms=None, training=False):
        return keras.KerasTensor(x.shape, dtype="float32"), keras.KerasTensor((3,), dtype="float32")

    def get_config(self):
        names = ("bits", "fixed", "nonnegative", "members", "momentum", "fence", "final")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@serializable
class IntegerAverage(keras.layers.Wrapper):
    """An average pool (or bilinear resize) on integers: TFLite rounds its result to the grid of its input.

    Called with ``(x, grid)``. It pools the whole numbers ``x / step``, so that ties (the mean of 1 and 2) are exact.
    Ties go where TFLite's kernels send them: of pools away from code 0 (codes run from -128), of resizes up.
    """

    def __init__(self, layer, bits=8, **kwargs):
        super().__init__(layer, **{"dtype": "float32", **kwargs})
        self.bits = bits

    def build(self, x_shape, grid_shape=None):
        super().build(x_shape)

    def call(self, x, grid):
        codes = x / grid[2]
        mean = self.layer(straight_through(codes, ops.round(codes)))
        if isinstance(self.layer, keras.layers.UpSampling2D):
            rounded = ops.floor(mean + 0.5)
        else:
            zero = _grid(grid[0], grid[1], self.bits)[1] - 2.0**(self.bits - 1)
            rounded = ops.sign(mean + zero) * ops.floor(ops.abs(mean + zero) + 0.5) - zero
        return straight_through(mean, rounded) * grid[2]

    def get_config(self):
        return {**super().get_config(), "bits": self.bits}

    def compute_output_spec(self, x, grid):
        return self.layer.compute_output_spec(x)


@serializable
class FixedQuant(keras.layers.Layer):
    """What ``bake_aware`` leaves of a ``FakeQuant``: one op with constant limits, which the TFLite converter reads."""

    def __init__(self, low, high, bits=8, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.low, self.high, self.bits = low, high, bits

    def call(self, x):
        return tf.quantization.fake_quant_with_min_max_args(x, self.low, self.high, num_bits=self.bits)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, dtype="float32")

    def get_config(self):
        return {**super().get_config(), "low": self.low, "high": self.high, "bits": self.bits}


@serializable
class Fence(keras.layers.Layer):
    """The identity, as an op that has no int8 form: what is before it stays float in the converter's eyes.

    Without it a Conv that was kept float, between two fake-quantized tensors, is made int8 nevertheless.
    """

    def call(self, x):
        return tf.cast(tf.cast(x, tf.float64), tf.float32)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, dtype="float32")
