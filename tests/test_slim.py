"""slim: the same codes, rounded scales and biases, no batch norm; and outputs that hardly move."""

import keras
import numpy as np
import pytest

from tfcompress import Prune, compress, slim
from tfcompress.conversion.grid import grid
from tfcompress.conversion.slim import rounded
from tfcompress.schedules import Constant


def planted(shape, scale, seed=0):
    """Ternary weights with one scale."""
    return (scale * np.random.default_rng(seed).integers(-1, 2, shape)).astype("float32")


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 8))
    x = keras.layers.Conv1D(4, 3, use_bias=False, name="conv")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.LSTM(3, name="lstm")(x)
    model = keras.Model(inputs, keras.layers.Dense(5, name="out")(x))
    rng = np.random.default_rng(1)
    model.get_layer("conv").set_weights([planted((3, 8, 4), 0.3)])
    model.get_layer("norm").set_weights([rng.uniform(0.5, 2, 4) for _ in range(4)])
    gates = [planted((4, 3), scale, 2) for scale in (0.11 * 2**0.5, 0.23, 0.37 * 3**0.5, 0.53)]
    recurrent = [planted((3, 3), scale, 3) for scale in (0.13, 0.29 * 2**0.5, 0.31, 0.57 * 3**0.5)]
    model.get_layer("lstm").set_weights([np.hstack(gates), np.hstack(recurrent), rng.normal(size=12)])
    model.get_layer("out").set_weights([rng.normal(size=(3, 5)), rng.normal(size=5)])
    return model


def test_codes_stay_and_what_is_left_are_bfloat16_numbers(net):
    small = slim(net)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in small.layers)
    kernel, bias = small.get_layer("conv").get_weights()
    for before, after in zip(net.get_layer("conv").kernel.numpy().reshape(-1, 4).T, kernel.reshape(-1, 4).T,
                             strict=True):  # fmt: skip
        (codes, _), (same, scale) = grid(before), grid(after)
        assert np.array_equal(codes, same) and scale == rounded(scale)
    for weights, count in zip(small.get_layer("lstm").get_weights()[:2], (4, 4), strict=True):
        scales = [grid(gate)[1] for gate in np.split(weights, count, axis=1)]
        assert len(set(scales)) == 4 and all(scale == rounded(scale) for scale in scales)
    for found in (bias, small.get_layer("lstm").get_weights()[2], small.get_layer("out").get_weights()[1]):
        assert np.array_equal(found, rounded(found))
    assert np.array_equal(small.get_layer("out").get_weights()[0], net.get_layer("out").get_weights()[0])   # no grid


def test_outputs_move_by_the_rounding_alone(net):
    x = np.random.default_rng(5).normal(size=(20, 6, 8)).astype("float32")
    expected, found = net.predict(x, verbose=0), slim(net).predict(x, verbose=0)
    assert 0 < np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_single_numbers_are_no_grid():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3, use_bias=False)])
    w = np.float32([[0.3, 0.7 * 2**0.5, -1.1 * 3**0.5]])
    model.layers[0].set_weights([w])
    np.testing.assert_array_equal(slim(model).layers[-1].get_weights()[0], w)


def test_a_model_that_still_trains_is_refused(net):
    with pytest.raises(ValueError, match="strip"):
        slim(compress(net, Prune(Constant(0.5))))
