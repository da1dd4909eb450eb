"""Recurrent cells whose kernels are products of two thin ones: what `factorize` puts in the place of an LSTM or GRU."""

import keras
from keras import ops

from tfcompress.method import serializable


class _LowRankCell:
    """``x -> (x @ input_factor) @ kernel`` and ``h -> (h @ recurrent_factor) @ recurrent_kernel``.

    A rank of ``None`` leaves that kernel whole. Dropout draws one mask for all gates.
    """

    def __init__(self, units, *, input_rank=None, recurrent_rank=None, **kwargs):
        super().__init__(units, **kwargs)
        self.input_rank, self.recurrent_rank = input_rank, recurrent_rank
        self.implementation, self.dropout_mask_count = 2, None

    def build(self, input_shape):
        width, outputs = input_shape[-1], self.gates * self.units
        self.input_factor = self._weight("input_factor", (width, self.input_rank), "kernel")
        self.kernel = self._weight("kernel", (self.input_rank or width, outputs), "kernel")
        self.recurrent_factor = self._weight("recurrent_factor", (self.units, self.recurrent_rank), "recurrent")
        self.recurrent_kernel = self._weight("recurrent_kernel", (self.recurrent_rank or self.units, outputs),
                                             "recurrent")
        self.bias = self._weight("bias", self.bias_shape(), "bias") if self.use_bias else None
        self.built = True

    def _weight(self, name, shape, kind):
        if None in shape:
            return None
        options = {word: getattr(self, f"{kind}_{word}") for word in ("initializer", "regularizer", "constraint")}
        return self.add_weight(name=name, shape=shape, **options)

    def bias_shape(self):
        return (self.gates * self.units,)

    def dropped(self, inputs, state, training):
        """Inputs and state after dropout."""
        if training and 0.0 < self.dropout < 1.0:
            inputs = inputs * self.get_dropout_mask(inputs)
        if training and 0.0 < self.recurrent_dropout < 1.0:
            state = state * self.get_recurrent_dropout_mask(state)
        return inputs, state

    def from_inputs(self, inputs):
        inputs = inputs if self.input_factor is None else ops.matmul(inputs, self.input_factor)
        return ops.matmul(inputs, self.kernel)

    def from_state(self, state, columns=slice(None)):
        state = state if self.recurrent_factor is None else ops.matmul(state, self.recurrent_factor)
        return ops.matmul(state, self.recurrent_kernel[:, columns])

    def get_config(self):
        return {**super().get_config(), "input_rank": self.input_rank, "recurrent_rank": self.recurrent_rank}


@serializable
class LowRankLSTMCell(_LowRankCell, keras.layers.LSTMCell):
    """``keras.layers.LSTMCell`` with an ``input_rank`` and a ``recurrent_rank``; both ``None`` is Keras's own.

    The kernels then are ``input_factor @ kernel`` and ``recurrent_factor @ recurrent_kernel``, for all gates together.

    >>> layer = keras.layers.RNN(LowRankLSTMCell(8, input_rank=2, recurrent_rank=3))
    >>> layer(ops.ones((1, 5, 4))).shape, [tuple(w.shape) for w in layer.weights]
    (TensorShape([1, 8]), [(4, 2), (2, 32), (8, 3), (3, 32), (32,)])
    """

    gates = 4

    def call(self, inputs, states, training=False):
        state, carry = states
        inputs, state = self.dropped(inputs, state, training)
        z = self.from_inputs(inputs) + self.from_state(state)
        z = z if self.bias is None else z + self.bias
        carry, gate = self._compute_carry_and_output_fused(ops.split(z, 4, axis=1), carry)
        state = gate * self.activation(carry)
        return state, [state, carry]


@serializable
class LowRankGRUCell(_LowRankCell, keras.layers.GRUCell):
    """``keras.layers.GRUCell`` with an ``input_rank`` and a ``recurrent_rank``; see ``LowRankLSTMCell``."""

    gates = 3

    def bias_shape(self):
        return (2, 3 * self.units) if self.reset_after else (3 * self.units,)

    def call(self, inputs, states, training=False):
        before = states[0] if keras.tree.is_nested(states) else states
        inputs, state = self.dropped(inputs, before, training)
        x = self.from_inputs(inputs)
        if self.bias is not None:
            x = x + (self.bias[0] if self.reset_after else self.bias)
        x_update, x_reset, x_new = ops.split(x, 3, axis=-1)
        if self.reset_after:
            h = self.from_state(state)
            h = h if self.bias is None else h + self.bias[1]
            h_update, h_reset, h_new = ops.split(h, 3, axis=-1)
        else:
            h_update, h_reset = ops.split(self.from_state(state, slice(0, 2 * self.units)), 2, axis=-1)
        update = self.recurrent_activation(x_update + h_update)
        reset = self.recurrent_activation(x_reset + h_reset)
        h_new = reset * h_new if self.reset_after else self.from_state(reset * state, slice(2 * self.units, None))
        new = update * before + (1 - update) * self.activation(x_new + h_new)
        return new, [new] if keras.tree.is_nested(states) else new
