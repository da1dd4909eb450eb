"""Networks that once went wrong when filters were removed: each gives what it gave before, or is fenced off."""

import keras
import numpy as np
import pytest
from keras import ops

from tfcompress import prune_filters
from tfcompress.pruning.channels import Channels
from tfcompress.pruning.labels import FIXED
from tfcompress.pruning.shrink import remove, shrink

L = keras.layers


def head(x):
    return L.Dense(2, name="head")(L.Flatten()(x))


def convs(x, *widths):
    return [L.Conv2D(width, 3, padding="same", name=f"c{i}")(x) for i, width in enumerate(widths)]


def cross_attention():
    q, v = keras.Input((4, 6)), keras.Input((7, 5))
    return [q, v], head(L.MultiHeadAttention(3, 2)(value=L.Dense(5)(v), query=L.Dense(6)(q), key=L.Dense(5)(v)))


def masked_attention():
    q, mask = keras.Input((4, 6)), keras.Input((4, 4))
    x = L.Dense(8)(q)
    return [q, mask], head(L.MultiHeadAttention(2, 2)(x, x, attention_mask=mask))


def one_layer_called_twice(layer):
    def build():
        i = keras.Input((6, 6, 4))
        return i, head(L.Conv2D(4, 1)(layer(L.Conv2D(4, 1)(layer(i)))))
    return build


def free_then_fixed():
    i, norm = keras.Input((6, 6, 4)), L.BatchNormalization()
    return i, head(L.Concatenate()([norm(L.Conv2D(4, 1)(i)), norm(i)]))


def with_and_without_state():
    i, lstm = keras.Input((5, 3)), L.LSTM(4, return_state=True)
    x, h, c = lstm(i)
    return i, head(lstm(i, initial_state=[h, c])[0] + x)


def parts(take):
    def build():
        i = keras.Input((6, 6, 3))
        x = L.Conv2D(8, 3, name="a")(i)
        return i, head(L.Conv2D(3, 1)(take(x)))
    return build


def shared_reshape():
    i = keras.Input((4, 4, 3))
    a, b = convs(i, 6, 6)
    flat = L.Reshape((16, 6))
    return i, head(L.Concatenate()([flat(a), flat(b)]))


def padded_single_channel():
    i = keras.Input((4, 4, 3))
    a, b = convs(i, 1, 4)
    return i, head(L.Conv2D(3, 3)(L.Concatenate()([L.ZeroPadding2D(1)(a), L.ZeroPadding2D(1)(b)])))


def augmented():
    i = keras.Input((8, 8, 3))
    return i, head(L.Conv2D(4, 3)(L.RandomFlip()(i)))


def bias_for_each_position():
    i = keras.Input((5, 4))
    return i, head(L.EinsumDense("abc,cd->abd", output_shape=(5, 3), bias_axes="bd")(L.Dense(4)(i)))


def activation_with_weights():
    i = keras.Input((8,))
    return i, L.Dense(2)(L.Dense(6, activation=L.PReLU())(i))


def transposed_with_gaps():
    i = keras.Input((4, 4, 2))
    x = L.BatchNormalization(beta_initializer="ones")(L.Conv2D(4, 1, name="a")(i))
    return i, head(L.Conv2DTranspose(5, 1, strides=2)(x))


def across(*layers, width=9):
    """Layers that mix another axis than the channels'."""
    def build():
        i = keras.Input((6, 3))
        x = L.Permute((2, 1))(L.Conv1D(width, 1, bias_initializer="ones", name="a")(i))
        for layer in layers:
            x = layer(x)
        return i, head(x)
    return build


def behind_a_constant(layer, shape=(6, 4)):
    """A unit that is zeroed leaves the 1 of its bias."""
    def build():
        i = keras.Input(shape)
        return i, head(layer(L.Dense(8, bias_initializer="ones")(i)))
    return build


def units_as_two_axes():
    i = keras.Input((6, 5))
    return i, head(L.Dense(7)(L.Reshape((3, 4))(L.LSTM(12)(i))))


CASES = {
    "keywords in another order": cross_attention,
    "float mask": masked_attention,
    "shared norm, fixed first": one_layer_called_twice(L.BatchNormalization()),
    "shared norm, fixed last": free_then_fixed,
    "shared LSTM, with and without state": with_and_without_state,
    "split": parts(lambda x: ops.split(x, 2, -1)[0]),
    "all but the last": parts(lambda x: x[..., :-1]),
    "every other": parts(lambda x: x[..., ::2]),
    "the last two": parts(lambda x: x[..., -2:]),
    "shared reshape": shared_reshape,
    "padded single channel": padded_single_channel,
    "augmentation inside": augmented,
    "bias for each position": bias_for_each_position,
    "activation with weights": activation_with_weights,
    "transposed convolution with gaps": transposed_with_gaps,
    "Dense across": across(L.Dense(5, activation="gelu"), L.Dense(6)),
    "LSTM across": across(L.LSTM(5)),
    "depthwise across": across(L.DepthwiseConv1D(3)),
    "attention across": across(lambda x: L.MultiHeadAttention(2, 4)(x, x)),
    "Dense across an axis of the same size": across(L.Dense(5), width=6),
    "LSTM units as two axes": units_as_two_axes,
    "EinsumDense that takes up a constant": behind_a_constant(
        L.EinsumDense("abc,cd->abd", output_shape=(6, 5), bias_axes="d")),
    "EinsumDense without a bias": behind_a_constant(L.EinsumDense("abc,cd->abd", output_shape=(6, 5))),
    "wrapped twice": behind_a_constant(L.TimeDistributed(L.Bidirectional(L.LSTM(4))), (3, 6, 4)),
    "wrapped, takes up a constant": behind_a_constant(L.TimeDistributed(L.Dense(5, use_bias=False))),
}


@pytest.mark.parametrize("build", CASES.values(), ids=CASES.keys())
def test_half_of_the_channels_go_or_are_fenced_off(build):
    """``remove`` and ``shrink`` run the small model beside the masked one: RuntimeError where they differ."""
    model = keras.Model(*build())
    channels = Channels(model)
    roots = np.unique(channels.roots(np.arange(channels.count)))
    free = roots[roots != FIXED]
    small = remove(channels, free[::2])
    assert small.count_params() < model.count_params() or not len(free)
    for layer in model.layers:                           # one filter zeroed alone, its bias and norm left as they are
        if isinstance(layer, (L.Conv1D, L.Conv2D, L.Dense)):
            layer.kernel.assign(layer.kernel * np.where(np.arange(layer.kernel.shape[-1]) == 1, 0.0, 1.0))
    shrink(model)


def test_a_constant_across_the_axis_that_a_layer_mixes_stays():
    i = keras.Input((6, 3))
    mixes = L.Dense(5, name="mixes")
    x = L.Permute((2, 1))(L.Conv1D(6, 1, bias_initializer="ones", name="a")(i))
    model = keras.Model(i, head(mixes(x)))
    for layer, alive in ((model.get_layer("a"), np.arange(6) != 1), (mixes, np.eye(6, 5, -1) > 0)):
        layer.kernel.assign(layer.kernel * alive)
    assert shrink(model).get_layer("a").filters == 6


def test_an_lstm_unit_that_no_later_layer_reads_still_feeds_the_others():
    i = keras.Input((5, 3))
    model = keras.Model(i, L.Dense(2, name="head")(L.LSTM(4, name="lstm")(i)))
    kernel = np.array(model.get_layer("head").kernel)
    kernel[2] = 0
    model.get_layer("head").kernel.assign(kernel)
    assert shrink(model).get_layer("lstm").units == 4


def test_what_attention_adds_to_goes_with_it():
    i = keras.Input((5, 6))
    x = L.Dense(16, name="wide")(i)
    model = keras.Model(i, head(x + L.MultiHeadAttention(2, 4)(x, x)))
    channels = Channels(model)
    stream = channels.roots(next(r for r in channels.records.values() if r.path == "wide").made[0])
    assert remove(channels, stream[:8]).get_layer("wide").units == 8


def test_channels_on_another_axis_are_followed_until_a_layer_mixes_that_one():
    i = keras.Input((6, 6, 3))
    x = L.ReLU()(L.Permute((3, 1, 2))(L.Conv2D(8, 3, name="a")(i)))
    channels = Channels(keras.Model(i, L.Dense(2)(L.GlobalAveragePooling2D()(L.Permute((2, 3, 1))(x)))))
    filters = channels.records[id(channels.graph.nodes[0].layer)].made[0]
    assert remove(channels, filters[:3]).get_layer("a").filters == 5 and not channels.fences
    channels = Channels(keras.Model(i, L.Dense(2)(L.Flatten()(L.Dense(3, name="mixes")(x)))))
    assert channels.fences == [("mixes", "Dense: the axis it mixes is not the channels'")]


def test_what_is_divided_by_a_channel_that_goes_is_no_bug_of_ours():
    i = keras.Input((6, 6, 3))
    a, b = ops.split(L.Conv2D(8, 3, name="a")(i), 2, -1)
    channels = Channels(keras.Model(i, head(a / b)))
    with pytest.raises(ValueError, match="not finite once these channels are zero"):
        remove(channels, channels.records[id(channels.graph.nodes[0].layer)].made[0][:2])


def test_two_channels_may_be_unstacked():
    i = keras.Input((6, 6, 3))
    a, b = ops.unstack(L.Conv2D(2, 3)(i), axis=-1)
    model = keras.Model(i, head(a + b))
    assert shrink(model).count_params() == model.count_params()


class Noise(L.Layer):
    def call(self, x):
        return x + keras.random.normal(ops.shape(x))


def test_random_outputs_are_no_bug_of_ours():
    i = keras.Input((6, 6, 3))
    model = keras.Model(i, head(Noise()(L.Conv2D(8, 3, name="a")(i))))
    channels = Channels(model)
    with pytest.raises(ValueError, match="other outputs each time it is run.*noise in inference"):
        remove(channels, channels.records[id(channels.graph.nodes[0].layer)].made[0][:3])
    with pytest.raises(ValueError, match="other outputs each time it is run"):
        shrink(model)


def test_answers_that_are_no_numbers_are_compared_too():
    i = keras.Input((4,))
    x = L.Dense(6, name="a")(i)
    model = keras.Model(i, [ops.greater(L.Dense(2)(x), 0.0), ops.log(L.Dense(2)(x))])
    channels = Channels(model)
    units = channels.records[id(channels.graph.nodes[0].layer)].made[0]
    assert remove(channels, units[:3]).get_layer("a").units == 3


def gated(x):
    a, b = ops.split(x, 2, -1)
    return a * ops.sigmoid(b)


def partial(x):
    """A cross-stage partial block (CSPNet): one half goes by, the other one through a convolution."""
    one, two = ops.split(x, 2, axis=-1)
    return L.Concatenate()([one, L.Conv2D(6, 3, padding="same", name="half")(two)])


@pytest.mark.parametrize(("take", "left"), [(gated, 4), (lambda x: gated(gated(x)), 4), (partial, 4)])
def test_equal_parts_lose_the_same_channels(take, left):
    i = keras.Input((6, 6, 3))
    model = keras.Model(i, head(L.Conv2D(3, 1)(take(L.Conv2D(8, 3, name="a")(i)))))
    channels = Channels(model)
    filters = np.unique(channels.roots(next(r for r in channels.records.values() if r.path == "a").made[0]))
    assert FIXED not in filters and not channels.fences
    small = remove(channels, filters[:len(filters) // 2])
    assert small.get_layer("a").filters == left


@pytest.mark.slow
def test_a_budget_that_rounding_puts_out_of_reach_is_said():
    i = keras.Input((8, 8, 3))
    model = keras.Model(i, head(L.Conv2D(12, 3)(L.Conv2D(12, 3)(i))))
    with pytest.raises(ValueError, match="can't be met: .*round_to=8"):
        prune_filters(model, None, 0.2, criterion="l2_norm", rounds=1, round_to=8)


def test_sizes_that_the_model_leaves_open_are_followed_but_not_timed():
    i = keras.Input((None, None, 3))
    x = L.Conv2D(8, 3, name="b")(L.Conv2D(8, 3, name="a")(i))
    model = keras.Model(i, L.Dense(2)(L.GlobalAveragePooling2D()(x)))
    channels = Channels(model)
    filters = channels.records[id(channels.graph.nodes[0].layer)].made[0]
    assert remove(channels, filters[:3]).get_layer("a").filters == 5
    with pytest.raises(ValueError, match="leave sizes open"):
        prune_filters(model, None, 0.5)
