"""Copies of layers that Keras itself does not read back, or not whole: weights, options, functions and statistics."""

import keras
import numpy as np
import pytest

from tfcompress import OneShot, Prune, compress, prune_filters, quantize_aware, shrink, strip

L = keras.layers
X = np.random.default_rng(0).normal(3, 2, (64, 6)).astype("float32")
Y = np.arange(64) % 3


@keras.saving.register_keras_serializable("tests")
class Block(L.Layer):
    """Layers inside, without names, and no ``build``: it has weights once it was called."""

    def __init__(self, units=6, **kwargs):
        super().__init__(**kwargs)
        self.units, self.inner = units, L.Dense(units, "tanh")

    def call(self, x):
        return x + self.inner(x)

    def get_config(self):
        return super().get_config() | {"units": self.units}


@keras.saving.register_keras_serializable("tests")
class Forgetful(L.Layer):
    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return super().get_config()


class Penalty(keras.Regularizer):
    def __call__(self, w):
        return keras.ops.sum(w * w)

    def get_config(self):
        return {}


def odd(x):
    return x + 0.1 * keras.ops.sin(x)


def normalized():
    layer = L.Normalization()
    layer.adapt(X)
    return layer


def gelu(x):
    return x * keras.ops.sigmoid(3 * x)


class Cell(L.SimpleRNNCell):
    pass


def cells():
    return keras.Sequential([L.Reshape((3, 2)), L.RNN([Cell(6), Cell(6)])])


LAYERS = {
    "normalization": normalized, "name of Keras": lambda: L.Dense(6, gelu), "cells": cells,
    "normalization inside": lambda: keras.Sequential([L.Reshape((1, 6)), L.TimeDistributed(normalized()), L.Flatten()]),
    "block": Block, "lambda": lambda: L.Lambda(lambda x: 2 * keras.ops.tanh(x)),
    "own activation": lambda: L.Dense(6, odd), "own regularizer": lambda: L.Dense(6, kernel_regularizer=Penalty()),
}  # fmt: skip


def net(layer):
    i = keras.Input((6,))
    return keras.Model(i, L.Dense(3)(L.Dense(16, "relu", name="wide")(layer(i))))


@pytest.mark.parametrize("name", LAYERS)
def test_copies_give_what_the_model_gives(name):
    model = net(LAYERS[name]())
    kernel = model.get_layer("wide").kernel
    kernel.assign(kernel * (np.arange(16) % 2))
    wanted = np.asarray(model(X))
    small = shrink(model)
    assert small.get_layer("wide").units == 8
    compressed = compress(model, Prune(OneShot(0.5)))    # nothing is pruned yet
    for copy in (small, compressed, shrink(model)):
        np.testing.assert_allclose(copy(X), wanted, atol=1e-5)
    with pytest.warns(UserWarning, match="Nothing was done"):
        np.testing.assert_allclose(strip(compressed)(X), wanted, atol=1e-5)


def test_a_layer_that_does_not_tell_its_options_is_an_error():
    with pytest.raises(ValueError, match=r"does not give what it gives: .*get_config. Own ones: \['Forgetful'\]"):
        shrink(net(Forgetful(3.0)))


@pytest.mark.slow
def test_integers_see_the_statistics_of_a_normalization():
    model = net(normalized())
    aware, wanted = quantize_aware(model), np.asarray(model(X))
    assert np.abs(aware(X, training=True) - wanted).max() < 0.05 * np.abs(wanted).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_filters_go_beside_them_and_rounds_are_taken_up_again(name, tmp_path):
    model = net(LAYERS[name]())
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    options = dict(target=0.9 if name == "cells" else 0.6, rounds=2, fit=0)
    if name in ("lambda", "name of Keras"):
        with pytest.raises(ValueError, match="`folder` can't keep rounds"):
            prune_filters(model, (X, Y), folder=tmp_path, **options)
        return
    first = prune_filters(model, (X, Y), folder=tmp_path, **options).model
    again = prune_filters(model, (X, Y), folder=tmp_path, **options).model
    np.testing.assert_allclose(again(X), first(X), atol=1e-6)


@pytest.mark.slow
def test_functions_of_one_name_are_not_mixed_up_in_a_folder(tmp_path):
    def times(factor):
        def act(x):
            return factor * keras.ops.relu(x)
        return act
    model = keras.Sequential([keras.Input((6,)), L.Dense(16, times(-0.5)), L.Dense(8, times(3.0)), L.Dense(3)])
    with pytest.raises(ValueError, match="'act' of layer .* is the name of another function"):
        prune_filters(model, (X, Y), 0.6, folder=tmp_path, fit=0)
    assert prune_filters(model, (X, Y), 0.6, fit=0, rounds=1).model.count_params() < model.count_params()


@pytest.mark.slow
def test_a_normalization_behind_a_layer_that_shrinks_keeps_its_statistics():
    i = keras.Input((6,))
    dense, norm = L.Dense(8), L.Normalization()
    wide = np.random.default_rng(0).normal(3, 2, (64, 8)).astype("float32")
    norm.adapt(wide)
    model = keras.Model(i, L.Dense(3)(norm(dense(i))))
    dense.kernel.assign(dense.kernel * (np.arange(8) % 2))
    np.testing.assert_allclose(shrink(model)(X), model(X), atol=1e-4)


def test_states_stay_what_they_were():
    lstm = L.LSTM(4, stateful=True)
    model = keras.Sequential([keras.Input(batch_shape=(2, 5, 6)), lstm, L.Dense(2)])
    small = shrink(model)
    assert not np.any(lstm.states[0]) and small.count_params() == model.count_params()


@pytest.mark.slow
def test_augmentation_inside_is_off():
    """Keras records the call with training=True, its own default, and overrides it in inference."""
    augment = keras.Sequential([keras.Input((12, 12, 3)), L.RandomFlip(seed=1), L.RandomRotation(0.2, seed=1)])
    i = keras.Input((12, 12, 3))
    model = keras.Model(i, L.Dense(2)(L.GlobalAveragePooling2D()(L.Conv2D(8, 3, name="conv")(augment(i)))))
    model.get_layer("conv").kernel.assign(model.get_layer("conv").kernel * (np.arange(8) % 2))
    x = np.random.default_rng(0).normal(size=(4, 12, 12, 3)).astype("float32")
    small = shrink(model)
    assert small.get_layer("conv").filters == 4
    np.testing.assert_allclose(small.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)


@pytest.mark.slow
def test_samples_by_name_reach_their_inputs():
    a, b = keras.Input((6,), name="zeta"), keras.Input((6,), name="alpha")
    x = L.Concatenate()([L.Dense(8, "relu")(a), L.Dense(8, "tanh")(b)])
    model = keras.Model([a, b], L.Dense(3)(L.Dense(12, "relu")(x)))
    other = X[::-1] - 3
    given = [dict(zeta=X, alpha=other), [X, other]]
    named, listed = (prune_filters(model, (x, Y), 0.6, criterion="behaviour", rounds=1, fit=0).model for x in given)
    np.testing.assert_allclose(named([X, other]), listed([X, other]), atol=1e-5)


@pytest.mark.slow
def test_losses_by_the_names_of_nested_models():
    i = keras.Input((6,))
    h = L.Dense(16, "relu")(i)
    heads = [keras.Sequential([keras.Input((16,)), L.Dense(3)], name="kind"),
             keras.Sequential([keras.Input((16,)), L.Dense(1)], name="size")]  # fmt: skip
    model = keras.Model(i, [part(h) for part in heads])
    model.compile(loss={"kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "size": "mse"},
                  loss_weights={"kind": 1.0, "size": 0.5})  # fmt: skip
    for fit in (0, 1):                                   # untrained, the second round's model has no loss of its own
        done = prune_filters(model, (X, {"size": X[:, :1], "kind": Y}), 0.6, rounds=2 - fit, fit=fit)
        assert done.steps[-1].macs <= 0.6 * done.steps[0].macs


def test_losses_by_name_and_none_at_all():
    i = keras.Input((6,))
    model = keras.Model(i, L.Dense(3, name="out")(L.Dense(16)(i)))
    model.compile(loss={"out": keras.losses.SparseCategoricalCrossentropy(from_logits=True)})
    for y in ({"out": Y}, [Y]):
        assert prune_filters(model, (X, y), 0.6, rounds=1).model.count_params() < model.count_params()
    model = net(L.Dense(6))
    model.compile("adam")
    assert prune_filters(model, (X, Y.tolist()), 0.6, rounds=1).model.count_params() < model.count_params()


def test_an_lstm_unit_that_reads_a_constant_is_not_idle():
    i = keras.Input((5, 6))
    dense, lstm = L.Dense(4), L.LSTM(3)
    model = keras.Model(i, L.Dense(2)(lstm(dense(i))))
    dense.kernel.assign(dense.kernel * [0, 1, 1, 1])
    dense.bias.assign([1, 0, 0, 0])
    lstm.cell.kernel.assign(lstm.cell.kernel * (1 - np.outer(np.arange(4) > 0, np.arange(12) == 6)))
    lstm.cell.recurrent_kernel.assign(lstm.cell.recurrent_kernel * (np.arange(12) != 6))
    x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype("float32")
    np.testing.assert_allclose(shrink(model)(x), model(x), atol=1e-6)
