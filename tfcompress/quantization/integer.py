"""Layers that compute on an integer grid: kernel and bias as the int8 kernel of TFLite will hold them."""

import keras
from keras import ops

from tfcompress.method import serializable, straight_through
from tfcompress.quantization.uniform import divided
from tfcompress.wrapper import Compressed, read

LEVELS = 127.0                                           # TFLite's int8 weights are symmetric, -127..127


def round_bias(bias, step):
    """``bias`` rounded to multiples of ``step``, per channel; left alone where ``step`` is 0 (a channel of zeros)."""
    safe = ops.where(step > 0, step, 1.0)
    rounded = ops.where(step > 0, ops.round(bias / safe) * safe, bias)
    return straight_through(bias, rounded)


def _whole(x):
    return straight_through(x, ops.round(x))


@serializable
class IntegerKernel(Compressed):
    """A Dense, Conv or DepthwiseConv layer as TFLite runs it in int8: ``Compressed`` kernel and int32 bias.

    TFLite adds the bias as a whole number of steps ``s_in * s_w[channel]``. Seeing that rounding in training is what
    makes the int8 file agree with the trained model: 64 % of a 6-block net's outputs were equal without.

    Called with ``(inputs, grid)``: ``grid = [low, high, step]`` comes from the input's ``FakeQuant``. Returns the
    result and the step of its integer sums ``s_in * s_w``, one a channel. Inference adds up whole numbers, as the file
    does: exact below 2 ** 24. Training takes the real values: two passes less.
    """

    strippable = False

    def build(self, inputs_shape, grid_shape=None):
        super().build(inputs_shape)

    def call(self, inputs, grid, training=False):
        slot = self.slots["kernel"]
        kernel = self.methods["kernel"].apply(slot.tensor(), slot.values())
        bias, grid = self.layer.bias.value, ops.stop_gradient(grid)
        peak = ops.stop_gradient(ops.max(ops.abs(kernel), axis=list(range(len(kernel.shape) - 1))))
        if training or self.layer.activity_regularizer is not None:     # that one must see real values
            step = grid[2] * peak / LEVELS
            return self._run(inputs, kernel, round_bias(bias, step)), step
        size = divided(peak, LEVELS)
        step = grid[2] * size                            # in float32 and in this order, as XNNPACK
        safe = ops.where(step > 0, step, 1.0)
        sums = self._run(_whole(inputs / grid[2]), _whole(kernel / ops.where(size > 0, size, 1.0)), _whole(bias / safe))
        return ops.where(step > 0, sums * safe, bias), step

    def _run(self, inputs, kernel, bias):
        slot = self.slots["kernel"]
        return self.call_with([(slot.latent, slot.view.back(kernel, ops)), (self.layer.bias, bias)], inputs)

    def compute_output_spec(self, inputs, grid, training=False):
        spec = self.layer.compute_output_spec(inputs)
        return spec, keras.KerasTensor(spec.shape[-1:], dtype="float32")

    def compute_mask(self, inputs, previous_mask=None):
        return None


@serializable
class ChannelAffine(keras.layers.Layer):
    """``x * scale + offset`` per channel (last axis): a BatchNormalization with no kernel to fold into, or a Rescaling.

    TFLite runs it as one depthwise convolution of size 1: the kernel's codes are 127 or -127, the offset is an int32
    bias, rounded here as there. Called with ``(x, grid)``, returns what an ``IntegerKernel`` returns.

    Args:
        clip: ``(low, high)`` of the result; the quantizer behind it does the clipping (hard sigmoid).
    """

    def __init__(self, clip=None, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.clip = clip and tuple(clip)

    def build(self, x_shape, grid_shape=None):
        self.scale = self.add_weight(name="scale", shape=(x_shape[-1],), initializer="ones")
        self.offset = self.add_weight(name="offset", shape=(x_shape[-1],), initializer="zeros")

    def call(self, x, grid, training=False):
        scale, offset = self.scale.value, self.offset.value
        step = ops.stop_gradient(grid[2] * divided(ops.abs(scale), LEVELS))
        if training:
            return x * scale + round_bias(offset, step), step
        safe = ops.where(step > 0, step, 1.0)
        sums = ops.round(x / grid[2]) * (ops.sign(scale) * LEVELS) + ops.round(offset / safe)
        return ops.where(step > 0, straight_through(x * scale + offset, sums * safe), offset), step

    def compute_output_spec(self, x, grid, training=False):
        return keras.KerasTensor(x.shape, dtype="float32"), keras.KerasTensor(x.shape[-1:], dtype="float32")

    def get_config(self):
        return {**super().get_config(), "clip": self.clip}

    def values(self):
        """``(scale, offset)`` as numpy."""
        return read(self.scale), read(self.offset)
