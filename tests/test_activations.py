"""Activations of a few bits: where the layers go, their levels, gradients and steps, and what the file computes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from small_models import compiled, image_data, nested

from tfcompress import CompressionCallback, Linear, Uniform, compress, strip
from tfcompress.quantization.activations import (
    LeastSquaresActivation,
    QuantizedActivation,
    fitted_scales,
    quantize_activations,
    refitted,
)
from tfcompress.quantization.clustering import k_means
from tfcompress.quantization.networks import QuantizationNetwork

L = keras.layers
X = np.maximum(np.random.default_rng(0).standard_normal(5000), 0).astype("float32")
SOFT = QuantizationNetwork(Linear(50.0, begin=0, end=4, initial=5.0), (0, 1, 2, 3))
BOTH = pytest.mark.parametrize("quantizer", [SOFT, LeastSquaresActivation(2)], ids=["soft", "least squares"])


def levels_of(layer):
    return [v for v in layer.layers if isinstance(v, QuantizedActivation)]


def net():
    i = keras.Input((8, 8, 3))
    x = L.ReLU(name="relu")(L.BatchNormalization()(L.Conv2D(8, 3, name="conv")(i)))
    y = L.Conv2D(8, 3, padding="same", activation="relu", name="inside")(x)
    x = L.Activation("tanh", name="tanh")(L.Add()([x, y]))
    x = keras.ops.relu6(L.Conv2D(8, 3, name="last")(x))
    return keras.Model(i, L.Dense(3, activation="softmax", name="head")(L.GlobalAveragePooling2D()(x)))


def test_layers_go_behind_activations_but_not_behind_the_outputs():
    base = net()
    few = quantize_activations(base, LeastSquaresActivation(2), image_data(20)[0])
    names = [layer.name for layer in few.layers]
    for name in ("relu", "inside", "tanh"):
        assert names[names.index(name) + 1] == f"{name}_levels"
    assert len(levels_of(few)) == 4 and names[-1] == "head"
    i = keras.Input((4,))
    ends = keras.Model(i, [L.ReLU()(L.Dense(3)(i)), L.Dense(2)(L.Dense(3, activation="relu", name="d")(i))])
    assert [v.name for v in levels_of(quantize_activations(ends, SOFT, np.eye(4)))] == ["d_levels"]


def test_a_shared_relu_has_levels_of_its_own_at_each_call():
    i, relu = keras.Input((4,)), L.ReLU(name="relu")
    x = relu(L.Dense(4)(relu(L.Dense(4)(i))))
    few = quantize_activations(keras.Model(i, L.Dense(2)(x)), SOFT, np.eye(4))
    assert len(levels_of(few)) == 2 and len({v.name for v in levels_of(few)}) == 2


def small():
    i = keras.Input((8, 8, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(6, 3, strides=2, name="conv")(i)))
    x = L.Conv2D(6, 2, activation="relu", name="inside")(x)
    return keras.Model(i, L.Dense(3, name="head")(L.GlobalAveragePooling2D()(x)))


@BOTH
def test_each_layer_gets_levels_of_its_own_data(quantizer):
    base, x = small(), image_data(60)[0] * 30
    exact, gaps = base(x), []
    for bits in (1, 4):
        many = (QuantizationNetwork(SOFT.schedule, tuple(range(2**bits))) if quantizer is SOFT
                else LeastSquaresActivation(bits))
        few = quantize_activations(base, many, x)
        for values in keras.Model(few.input, [v.output for v in levels_of(few)])(x):
            assert 2 ** (bits - 1) < len(np.unique(values)) <= 2**bits
        gaps.append(float(ops.mean(ops.square(few(x) - exact)) / ops.mean(ops.square(exact))))
    assert gaps[1] < gaps[0] / 3 and gaps[1] < 0.1, gaps


def test_least_squares_scales_by_brute_force():
    x = np.random.default_rng(1).standard_normal(9).astype("float32")
    for terms, grid in ((1, 400), (2, 150)):
        scales = np.array(fitted_scales(x, terms))
        method = LeastSquaresActivation(terms)
        error = np.mean((x - np.array(method.rounded(x, method.init(x)))) ** 2)
        tried = np.stack(np.meshgrid(*[np.linspace(0, 2, grid)] * terms), -1).reshape(-1, terms)
        codes = np.array(np.meshgrid(*[[-1, 1]] * terms)).reshape(terms, -1)
        best = min(np.mean(np.abs(x[:, None] - scale @ codes).min(1) ** 2) for scale in tried)
        assert error <= best + 1e-6 and (np.diff(scales) <= 0).all()
    for seed in range(3):                                                    # three: near the best four levels
        x = np.abs(np.random.default_rng(seed).standard_normal(2000)).astype("float32")
        method = LeastSquaresActivation(2)
        centers, codes = k_means(x, np.quantile(x, [0.125, 0.375, 0.625, 0.875]))
        assert np.mean((x - method.rounded(x, method.init(x))) ** 2) <= 1.15 * np.mean((x - centers[codes]) ** 2)
    x = np.random.default_rng(1).standard_normal(9).astype("float32")
    with_sign, without = LeastSquaresActivation(3).init(x), LeastSquaresActivation(3).init(X)
    assert with_sign["scales"][-1] == 0 and with_sign["signed"] == 1
    assert without["scales"].min() > 0 and without["signed"] == 0        # behind a ReLU the sign is not paid for
    np.testing.assert_allclose(LeastSquaresActivation(1).init(np.abs(x))["scales"], fitted_scales(x, 2), rtol=1e-6)


@pytest.mark.parametrize(("clip", "limit"), [(1.0, 1.0), (None, 3.0)])
def test_the_straight_through_gradient_ends_at_the_clip(clip, limit):
    method = LeastSquaresActivation(2, clip=clip)
    state = {"scales": np.array([1.5, 0.75, 0.0], "float32"), "signed": np.float32(1)}      # levels -2.25 ... 2.25
    x = tf.Variable([-3.1, -2.9, -1.1, -0.9, 0.2, 0.99, 2.0, 2.95, 3.05])
    with tf.GradientTape() as tape:
        y = method.trained(x, state)
        total = tf.reduce_sum(y)
    assert y.numpy().tolist() == [-2.25, -2.25, -0.75, -0.75, 0.75, 0.75, 2.25, 2.25, 2.25]
    assert tape.gradient(total, x).numpy().tolist() == (np.abs(x.numpy()) <= limit).astype(float).tolist()


def test_scales_are_a_moving_average_in_training_alone():
    layer = QuantizedActivation(LeastSquaresActivation(1, momentum=0.9))
    layer.build((None,))
    layer.calibrate(X)
    state = dict(layer.state)
    start, batch = state["scales"].numpy(), (3 * X[:500]).astype("float32")
    layer(batch)
    np.testing.assert_array_equal(state["scales"], start)
    layer(batch, training=True)
    levels = [start[0] - start[1], start[0] + start[1]]                      # half the sum and the difference of the
    upper = batch > np.mean(levels)                                          # means of both sides: two means, one step
    means = np.array([batch[~upper].mean(), batch[upper].mean()])
    np.testing.assert_allclose(state["scales"], 0.9 * start + 0.05 * np.array([means.sum(), np.ptp(means)]), rtol=2e-3)
    assert int(layer.step) == 1


@pytest.mark.parametrize("shape", [(64, 32, 32, 16), (64, 16, 16, 64), (64, 28, 28, 32)])
def test_every_channel_counts_in_the_moving_average(shape):
    """Channel 0 is dead; an even stride over a batch of powers of two reads nothing else."""
    x = np.random.default_rng(0).uniform(1.0, 3.0, shape).astype("float32")
    x[..., 0] = 0.0
    method = LeastSquaresActivation(1, momentum=0.0)
    state = method.init(x)
    new = method.moved(ops.convert_to_tensor(x), state, 0)["scales"]
    np.testing.assert_allclose(new, refitted(x.ravel(), state["scales"]), rtol=0.02)


def test_the_temperature_rises_with_the_layers_own_steps():
    layer = QuantizedActivation(SOFT)
    layer.build((None,))
    layer.calibrate(X)
    x = tf.constant(X)
    hard, gaps = layer(x).numpy(), []
    alpha = ops.exp(dict(layer.state)["log_alpha"]).numpy()
    assert set(np.unique(hard)) == {alpha * np.float32(level) for level in (0, 1, 2, 3)} and hard[X == 0].max() == 0
    for _ in range(6):
        gaps.append(float(np.abs(layer(x, training=True) - hard).mean()))
    assert float(dict(layer.state)["temperature"]) == 50 and gaps[4:] == [0, 0]
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3] > 0


@BOTH
@pytest.mark.slow
def test_trained_saved_stripped_and_converted(quantizer, tmp_path):
    """The .tflite file has builtin operations alone: the converter is allowed no others."""
    x, y = image_data(128)
    model = compiled(compress(quantize_activations(small(), quantizer, x), Uniform(4)))
    before = model.evaluate(x, y, verbose=0)[0]
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)             # of a size that the graph doesn't know
    model.fit(batches, epochs=4, verbose=0, callbacks=[CompressionCallback()])
    assert model.evaluate(x, y, verbose=0)[0] < before
    model.save(tmp_path / "few.keras")
    again = keras.models.load_model(tmp_path / "few.keras")
    expected = model(x)
    np.testing.assert_array_equal(again(x), expected)
    assert [int(v.step) for v in levels_of(again)] == [16, 16]
    plain = strip(again)
    np.testing.assert_allclose(plain(x), expected, atol=1e-5)
    interpreter = tf.lite.Interpreter(model_content=tf.lite.TFLiteConverter.from_keras_model(plain).convert())
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    lite = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    off = np.abs(lite - expected).max(-1) > 1e-4                 # a value on a threshold may fall to either side
    assert off.mean() <= 0.02, off.mean()


def test_bad_arguments_name_what_came():
    with pytest.raises(ValueError, match="Received"):
        LeastSquaresActivation(0)
    with pytest.raises(ValueError, match="Received"):
        QuantizedActivation(Uniform(8))
    with pytest.raises(ValueError, match="no activation"):
        quantize_activations(nested(), SOFT, np.zeros((2, 4)))
    few = quantize_activations(compiled(net()), SOFT, image_data(4)[0])
    with pytest.raises(ValueError, match="already"):
        quantize_activations(few, SOFT, image_data(4)[0])
