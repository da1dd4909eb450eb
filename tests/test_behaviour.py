"""Neural behaviour: planted duplicates and combinations go at no cost; errors as told and in order."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcompress.pruning import behaviour as module
from tfcompress.pruning.behaviour import absorb, behaviour, codes_gram, emulate, gram, greedy, outgoing_gram
from tfcompress.pruning.gradients import batches
from tfcompress.pruning.outputs import outputs_of
from tfcompress.wrapper import read

L = keras.layers


def codes(n=200, channels=8, seed=0):
    return np.maximum(np.random.default_rng(seed).standard_normal((n, channels)), 0)


def test_a_planted_duplicate_is_found_and_its_factor():
    b = codes()
    b[:, 5] = 2.5 * b[:, 2]
    g = gram(b)
    c, d, error = emulate(g, [5], [2])
    np.testing.assert_allclose([c.item(), d.item(), error.item()], [2.5, 0, 0], atol=1e-6)
    w = np.random.default_rng(1).standard_normal((8, 4))
    order, errors = greedy(g, w @ w.T)
    assert order[0] in (2, 5) and errors[0] < 1e-5 * np.sum((b @ w) ** 2) < 1e-2 * errors[1]


@pytest.mark.parametrize("constant", [True, False])
def test_planted_combinations_go_without_changing_the_output(constant):
    """Three channels are combinations of others (and of a constant): the next layer says the same without them."""
    b, rng = codes(), np.random.default_rng(1)
    mix = rng.standard_normal((5, 3))
    b[:, [1, 4, 6]] = b[:, [0, 2, 3, 5, 7]] @ mix + (np.array([3.0, -1.0, 0.5]) if constant else 0)
    kernel, bias = rng.standard_normal((8, 4)), rng.standard_normal(4)
    order, errors = greedy(gram(b), kernel @ kernel.T)
    assert errors[2] < 1e-5 * np.sum((b @ kernel) ** 2) < 1e-2 * errors[3]
    gone, kept = np.sort(order[:3]), np.sort(order[3:])
    new, shift = absorb(kernel, bias, gone, kept, *emulate(gram(b), gone, kept, constant=constant)[:2])
    assert not new[gone].any() and constant == (not np.allclose(shift, bias))
    np.testing.assert_allclose(b @ new + shift, b @ kernel + bias, atol=1e-5)
    assert np.abs(b[:, kept] @ kernel[kept] - b @ kernel).max() > 1              # plain removal


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_a_group_emulates_as_well_as_any_pair_and_errors_only_rise(seed):
    g = gram(codes(60, 7, seed))
    kept = [1, 2, 4, 5, 6]
    group = emulate(g, [0, 3], kept)[2]
    for j in kept:
        assert (group <= emulate(g, [0, 3], [j])[2] + 1e-6).all()
    errors = greedy(g, np.eye(7))[1]
    assert (np.diff(errors) >= 0).all() and errors[0] >= 0


@pytest.mark.parametrize("steps", [64, 2])
def test_told_errors_are_those_of_the_output(steps, monkeypatch):
    """After any number of removals: the error that ``greedy`` tells = that of the least-squares compensated output."""
    monkeypatch.setattr(module, "STEPS", steps)
    b, w = codes(100, 6), np.random.default_rng(2).standard_normal((6, 3))
    order, errors = greedy(gram(b), w @ w.T)
    for k in range(1, 6):
        gone, kept = order[:k], order[k:]
        new, bias = absorb(w, np.zeros(3), gone, kept, *emulate(gram(b), gone, kept)[:2])
        np.testing.assert_allclose(np.sum((b @ new + bias - b @ w) ** 2), errors[k - 1], rtol=1e-4)


def test_a_dead_neuron_is_free_and_a_constant_one_too():
    b, w = codes(), np.random.default_rng(1).standard_normal((8, 4))
    b[:, 3], b[:, 6] = 0, 7.0
    order, errors = greedy(gram(b), w @ w.T)
    assert set(order[:2]) == {3, 6} and errors[1] < 1e-3 < 1 < errors[2]


def planted(padding):
    """A conv net whose channel 5 is 2.5 times channel 2, behind BN and ReLU; its maps are read by a conv."""
    i = keras.Input((9, 9, 2))
    x = L.Conv2D(6, 3, name="conv", bias_initializer="random_normal")(i)
    x = L.ReLU()(L.BatchNormalization(name="bn", beta_initializer="random_normal")(x))
    x = L.Conv2D(4, 3, padding=padding, name="next")(L.MaxPooling2D()(x))
    model = keras.Model(i, L.Dense(3, name="head")(L.Flatten()(x)))
    bn = model.get_layer("bn")
    for variable, factor in ((model.get_layer("conv").kernel, 1), (model.get_layer("conv").bias, 1), (bn.gamma, 2.5),
                             (bn.beta, 2.5)):
        value = read(variable).copy()
        value[..., 5] = factor * value[..., 2]
        variable.assign(value)
    return model


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_planted_duplicate_in_a_network_goes_without_training(padding):
    model, x = planted(padding), np.random.default_rng(0).standard_normal((64, 9, 9, 2)).astype("float32")
    inner = outputs_of(model)
    g = codes_gram(inner, ["conv/kernel"], batches(model, (x, None), labels=False))["conv/kernel"]
    first = greedy(g, outgoing_gram(inner, "conv/kernel", 6))[0][0]
    w = {path: read(variable) for path, (variable, _) in inner.kernels.items()}
    scores = behaviour(w, model, (x, None))
    assert first in (2, 5) and first == scores["conv/kernel"].argmin()
    kept, layer = [c for c in range(6) if c != first], model.get_layer("next")
    before = model.predict(x, verbose=0)
    kernel, bias = absorb(read(layer.kernel), read(layer.bias), [first], kept,
                          *emulate(g, [first], kept, constant=padding == "valid")[:2])
    model.get_layer("conv").kernel.assign(read(model.get_layer("conv").kernel) * (np.arange(6) != first))
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)
    np.testing.assert_allclose(model.predict(x, verbose=0), before, atol=1e-5)


def test_outgoing_weights_are_found_through_flatten_sums_and_depthwise():
    i = keras.Input((4, 4, 3))
    a = L.Conv2D(5, 1, name="a")(i)
    x = L.Add()([a, L.Conv2D(5, 1, name="b")(i)])
    x = L.DepthwiseConv2D(3, name="spread")(L.ReLU()(x))
    model = keras.Model(i, L.Dense(2, name="head")(L.Flatten()(x)))
    w = read(model.get_layer("head").kernel).reshape(4, 5, 2).astype("float64")      # 2x2 positions, channel, output
    expected = np.einsum("pco,pdo->cd", w, w)
    for path in ("a/kernel", "b/kernel", "spread/kernel"):
        np.testing.assert_allclose(outgoing_gram(outputs_of(model), path, 5), expected, rtol=1e-5)
    assert np.array_equal(outgoing_gram(outputs_of(model), "head/kernel", 2), np.eye(2))
