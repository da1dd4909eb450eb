"""Removing filters: the small model is the masked one, and as small as predicted."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from random_graphs import models
from small_models import LAYERS, inputs_for

from tfcompress.graph import call, fill
from tfcompress.layout import kernels
from tfcompress.model import leaves
from tfcompress.pruning.channels import Channels, channel_labels
from tfcompress.pruning.compensate import compensate
from tfcompress.pruning.dead import Dead
from tfcompress.pruning.labels import FIXED
from tfcompress.pruning.shrink import fenced_layers, kept, remove, shrink, silence

L = keras.layers
SETTINGS = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck),
                    phases=[Phase.explicit, Phase.generate])


def outputs(graph, x):
    tensors = {value: keras.ops.convert_to_tensor(a) for (_, value), a in zip(graph.inputs, x, strict=True)}
    for node in graph.nodes:
        call(node, tensors)
    return keras.ops.convert_to_numpy(fill(graph.outputs, tensors))


def many(model, n=8):
    x = inputs_for(model, n)
    return x if isinstance(x, list) else [x]


@SETTINGS
@given(models(), st.integers(0, 99), st.sampled_from([0.2, 0.5, 0.9]))
def test_removed_groups_of_random_graphs(model, seed, share):
    """Silenced and removed: outputs equal to 1e-5, parameters and MACs as predicted."""
    channels = Channels(model)
    gone = np.random.default_rng(seed).permutation(free(channels))[:int(share * len(free(channels)))]
    silence(channels, gone)
    predicted = kept(channels, Dead(channels).keep)
    small, x = remove(channels, gone), many(model)
    masked = outputs(channels.graph, x)
    np.testing.assert_allclose(np.asarray(small(x)), masked, atol=1e-5 * max(1, np.abs(masked).max()))
    again = Channels(small)
    everything = np.ones(again.count, bool)
    assert again.macs(everything) == channels.macs(predicted)
    assert 0 <= small.count_params() - channels.parameters(predicted) <= added_biases(channels, small)


def free(channels):
    roots = np.unique(channels.roots(np.arange(channels.count)))
    return roots[roots != FIXED]


def added_biases(channels, small):
    """Parameters of biases that took up a constant where there was none: behind a sigmoid, 0 becomes 0.5."""
    had = {node.layer.name for node in channels.graph.nodes if getattr(node.layer, "bias", None) is not None}
    return sum(int(np.prod(layer.bias.shape)) for layer in small.layers
               if getattr(layer, "bias", None) is not None and layer.name not in had)


@SETTINGS
@given(models(), st.integers(0, 99))
def test_zeroed_filters_of_random_graphs(model, seed):
    """Random filters zeroed one by one, not in groups, biases and norms left alone: still the same outputs."""
    rng = np.random.default_rng(seed)
    for _, layer in leaves(model):
        for variable, view in kernels(layer).values():
            w = view.to(keras.ops.convert_to_numpy(variable), np)
            variable.assign(view.back(w * (rng.random(w.shape[-1]) < 0.5), np))
    small, x = shrink(model), many(model)
    expected = np.asarray(model(x))
    np.testing.assert_allclose(np.asarray(small(x)), expected, atol=1e-5 * max(1, np.abs(expected).max()))


def conv_bn_net(padding="valid"):
    """Conv, BN, ReLU, conv: filter 1 is zero, and leaves relu(beta - gamma * mean / sigma) = 0.126."""
    model = keras.Sequential([
        keras.Input((8, 8, 2)), L.Conv2D(3, 3, use_bias=False, name="one"), L.BatchNormalization(epsilon=0, name="bn"),
        L.ReLU(), L.Conv2D(2, 3, padding=padding, use_bias=False, name="two"), L.Flatten(), L.Dense(2)])
    kernel = keras.ops.convert_to_numpy(model.layers[0].kernel).copy()
    kernel[..., 1] = 0
    model.layers[0].kernel.assign(kernel)
    for name, value in (("beta", 0.2), ("gamma", 0.5), ("moving_mean", 0.148), ("moving_variance", 1.0)):
        getattr(model.layers[1], name).assign(np.full(3, value))
    return model


def test_the_constant_a_removed_filter_leaves_goes_into_the_next_bias():
    model = conv_bn_net()
    small, x = shrink(model), inputs_for(model, 8)
    assert [small.get_layer(n).filters for n in ("one", "two")] == [2, 2]
    second = keras.ops.convert_to_numpy(model.get_layer("two").kernel)
    np.testing.assert_allclose(small.get_layer("two").bias, 0.126 * second[:, :, 1].sum((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(small(x), model(x), atol=1e-6)


def test_a_constant_that_a_padded_convolution_reads_stays():
    """Its border sees zeros, not .126: no bias can say that."""
    channels = Channels(conv_bn_net("same"))
    dead = Dead(channels)
    assert list(dead.blocked.values()) == [("two", pytest.approx(0.126, rel=1e-5))]
    assert shrink(conv_bn_net("same")).get_layer("one").filters == 3


def zero(layer, key, *columns):
    variable, view = kernels(layer)[key]
    w = view.to(keras.ops.convert_to_numpy(variable), np).copy()
    w[..., list(columns)] = 0
    variable.assign(view.back(w, np))
    if getattr(layer, "bias", None) is not None:
        layer.bias.assign(np.where(np.isin(np.arange(layer.bias.shape[0]), columns), 0, layer.bias))


def test_a_residual_sum_goes_only_when_all_its_branches_do():
    i = keras.Input((8, 8, 3))
    a, b = L.Conv2D(4, 1, name="a"), L.Conv2D(4, 3, padding="same", name="b")
    model = keras.Model(i, L.Dense(2)(L.GlobalAveragePooling2D()(L.Conv2D(5, 3, name="c")(a(i) + b(i)))))
    zero(a, "kernel", 0, 1)
    zero(b, "kernel", 1, 2)
    small = shrink(model)
    assert [small.get_layer(n).filters for n in "abc"] == [3, 3, 5]
    assert small.get_layer("c").kernel.shape == (3, 3, 3, 5)


def test_flattened_channels_go_at_every_position():
    model = keras.Sequential([keras.Input((6, 6, 1)), L.Conv2D(4, 3, name="a"), L.Flatten(), L.Dense(3, name="d")])
    zero(model.layers[0], "kernel", 0, 3)
    kernel = keras.ops.convert_to_numpy(model.get_layer("d").kernel)
    small = shrink(model)
    np.testing.assert_array_equal(small.get_layer("d").kernel, kernel.reshape(16, 4, 3)[:, 1:3].reshape(32, 3))


def test_a_filter_that_nobody_reads_goes():
    model = keras.Sequential([keras.Input((6, 6, 1)), L.Conv2D(4, 3, name="a"), L.Conv2D(3, 3, name="b"), L.Flatten(),
                              L.Dense(2)])
    kernel = keras.ops.convert_to_numpy(model.get_layer("b").kernel).copy()
    kernel[:, :, 2] = 0
    model.get_layer("b").kernel.assign(kernel)
    assert shrink(model).get_layer("a").filters == 3


def test_a_dead_layer_keeps_one_filter_and_round_to_keeps_more():
    model = keras.Sequential([keras.Input((6, 6, 1)), L.Conv2D(16, 3, name="a"), L.Conv2D(3, 3, name="b"), L.Flatten(),
                              L.Dense(2)])
    zero(model.layers[0], "kernel", *range(16))
    assert shrink(model).get_layer("a").filters == 1
    assert shrink(model, round_to=8).get_layer("a").filters == 8
    with pytest.raises(ValueError, match="round_to=0"):
        shrink(model, round_to=0)


def test_heads_units_and_groups_go():
    i = keras.Input((5, 6))
    x = L.MultiHeadAttention(3, 2, name="attention")(i, i)
    x = L.Bidirectional(L.GRU(4, return_sequences=True), name="both")(x)
    x = L.LSTM(4, name="lstm")(x)
    model = keras.Model(i, L.Dense(2)(x))
    channels = Channels(model)
    heads, both, units = (next(r for r in channels.records.values() if r.path == path).inside
                          for path in ("attention", "both", "lstm"))
    small = remove(channels, [heads[1], both[0], both[3], units[2]])
    assert small.get_layer("attention").get_config()["num_heads"] == 2
    assert small.get_layer("both").forward_layer.units == 2 and small.get_layer("lstm").units == 3


def test_what_cant_be_followed_is_fenced_off_and_listed():
    i = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, name="a")(i)
    x = L.LayerNormalization(name="norm")(x)
    x = L.Conv2D(4, 3, name="b")(x)
    model = keras.Model(i, L.Dense(2, name="out")(L.Flatten()(x)))
    assert fenced_layers(model) == [("norm", "LayerNormalization: a channel's value changes when others are removed")]
    labels = channel_labels(model)
    assert (labels["a/kernel"] == -1).all() and (labels["b/kernel"] > 0).all() and (labels["out/bias"] == -1).all()


class Scaled(L.Layer):
    """A user's own layer: its channels are followed, since slicing what goes in slices what comes out."""

    def call(self, one, other):
        return one + 0.3 * keras.ops.sigmoid(other)


def test_a_layer_of_the_users_own_is_followed():
    i = keras.Input((8, 8, 3))
    a, b = L.Conv2D(4, 3, name="a")(i), L.Conv2D(4, 3, name="b")(i)
    labels = channel_labels(keras.Model(i, L.Dense(2)(L.Flatten()(Scaled()(a, b)))))
    assert (labels["a/kernel"] == labels["b/kernel"]).all() and (labels["a/kernel"] > 0).all()


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_is_followed_or_fenced_off(name):
    model = LAYERS[name]()
    small, x = shrink(model), inputs_for(model)
    for got, wanted in zip(keras.tree.flatten(small(x)), keras.tree.flatten(model(x)), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("residual", [False, True])
def test_what_others_can_emulate_goes_without_a_trace(residual):
    """Planted: filter 3 gives 2.5 times filter 1 behind the ReLU, filter 0 the sum of filters 4 and 5."""
    i = keras.Input((8, 8, 3))
    x = L.Conv2D(6, 3, padding="same", use_bias=False, activation="relu", name="a")(i)
    y = L.Conv2D(6, 3, padding="same", name="b")(x)
    y = L.AveragePooling2D(2)(L.Concatenate()([x, y]) if residual else y)
    model = keras.Model(i, L.Dense(4)(L.Flatten()(y)))
    kernel = np.abs(keras.ops.convert_to_numpy(model.get_layer("a").kernel))
    kernel[..., 3], kernel[..., 0] = 2.5 * kernel[..., 1], kernel[..., 4] + kernel[..., 5]
    model.get_layer("a").kernel.assign(kernel)
    x = np.abs(np.random.default_rng(0).standard_normal((256, 8, 8, 3))).astype("float32")
    channels, plain = Channels(model), Channels(model)
    labels = channels.roots(channels.records[id(channels.graph.nodes[0].layer)].made[0])[[3, 0]]
    keep = ~np.isin(channels.roots(np.arange(channels.count)), labels)
    compensate(channels, keep, x)
    expected = np.asarray(model(x[:32]))
    scale = np.abs(expected).max()
    assert np.abs(np.asarray(remove(channels, labels)(x[:32])) - expected).max() < 1e-5 * scale
    assert np.abs(np.asarray(remove(plain, labels)(x[:32])) - expected).max() > 1e-2 * scale
