"""The contract every method keeps. A new method adds one row to METHODS."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from small_models import compiled, image_data, image_net

from tfcompress import (
    Chain,
    CompressionCallback,
    Constant,
    Cosine,
    Float16,
    Linear,
    OneShot,
    Polynomial,
    Prune,
    Uniform,
    compress,
    strip,
)
from tfcompress.pruning.easiedge import FilterADMM
from tfcompress.pruning.keep_zeros import KeepZeros
from tfcompress.quantization.adaptive_float import AdaptiveFloat
from tfcompress.quantization.admm import ADMM
from tfcompress.quantization.binary import Binary
from tfcompress.quantization.clustering import Cluster
from tfcompress.quantization.least_squares import LeastSquares
from tfcompress.quantization.networks import QuantizationNetwork
from tfcompress.quantization.ternary import Ternary
from tfcompress.quantization.trained_ternary import TrainedTernary

METHODS = {
    "prune": Prune(Polynomial(0.8, 0, 12)),
    "prune global": Prune(Linear(0.8, 0, 12), granularity="global"),
    "prune cosine": Prune(Cosine(0.7, 2, 12)),
    "prune one-shot": Prune(OneShot(0.5, at=4)),
    "prune constant": Prune(Constant(0.5)),
    "prune 2:4": Prune(OneShot(0.5, at=4), granularity="2:4"),
    "prune soft filters": Prune(Constant(0.5, end=12), criterion="l2_norm", granularity="filter", soft=True),
    "filter ADMM": FilterADMM(Constant(0.5, end=12), criterion="l2_norm", rounds=3),
    "keep zeros": KeepZeros(),
    "uniform 8": Uniform(8),
    "uniform 4 per tensor": Uniform(4, per_channel=False),
    "float16": Float16(),
    "binary": Binary(),
    "ternary": Ternary(),
    "trained ternary": TrainedTernary(),
    "least squares 2 per tensor": LeastSquares(2, "tensor"),
    "ADMM": ADMM((0, 1, 2, 4), end=12, rounds=3),
    "quantization network": QuantizationNetwork(Linear(100.0, 0, 12, initial=5.0)),
    "adaptive float": AdaptiveFloat(2, 1),
    "cluster": Cluster(8, until=12),
    "prune + ADMM": Chain((Prune(Polynomial(0.8, 0, 6)), ADMM((0, 1, 2, 4), begin=6, end=12, rounds=3))),
    "prune + uniform": Chain((Prune(Polynomial(0.8, 0, 12)), Uniform(8))),
    "uniform + prune": Chain((Uniform(8), Prune(Polynomial(0.8, 0, 12)))),
}
VARIANTS = {  # what differs from a row above by an argument: not trained again
    "least squares 1": LeastSquares(1),
    "least squares ternary": LeastSquares("ternary"),
    "quantization network, ternary": QuantizationNetwork(Linear(100.0, 0, 12, initial=5.0), (-1, 0, 1)),
    "fixed point": AdaptiveFloat(0, 3),
    "ADMM 1 bit, channel": ADMM((1,), end=12, rounds=3, scales="channel"),
}
trained_rows = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
rows = pytest.mark.parametrize("method", (METHODS | VARIANTS).values(), ids=(METHODS | VARIANTS).keys())
WEIGHTS = {
    "normal": np.random.default_rng(1).standard_normal((3, 4, 5)).astype("float32"),
    "zeros": np.zeros((3, 4), "float32"),
    "constant": np.full((3, 4), 0.7, "float32"),
    "one element": np.full((1, 1), -2.0, "float32"),
    "huge": np.full((2, 3), 1e30, "float32"),
    "tiny": np.full((2, 3), 1e-30, "float32"),
}


def state_of(method, w, step=50):
    return method.update({"w": w}, {"w": method.init(w)}, step)["w"]


@rows
@pytest.mark.parametrize("w", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_shape_dtype_finite_deterministic(method, w):
    state = state_of(method, w)
    for function in (method.apply, method.bake):
        first, second = (ops.convert_to_numpy(function(ops.convert_to_tensor(w), state)) for _ in range(2))
        assert first.shape == w.shape and first.dtype == np.float32
        assert np.isfinite(first).all() and np.array_equal(first, second)


@rows
def test_baking_twice_changes_nothing(method):
    w = WEIGHTS["normal"]
    state = state_of(method, w)
    once = ops.convert_to_numpy(method.bake(ops.convert_to_tensor(w), state))
    twice = ops.convert_to_numpy(method.bake(ops.convert_to_tensor(once), state))
    np.testing.assert_allclose(twice, once, rtol=1e-6)


@rows
def test_at_most_two_to_the_bits_levels(method):
    w = np.random.default_rng(2).standard_normal((5000, 2)).astype("float32")
    baked = ops.convert_to_numpy(method.bake(ops.convert_to_tensor(w), state_of(method, w)))
    if method.bits is not None:
        assert max(len(np.unique(channel)) for channel in baked.T) <= 2 ** method.bits
    else:
        assert set(np.unique(baked)) <= set(np.unique(w)) | {0.0}


@rows
def test_config_round_trip(method):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(method))
    assert again == method and hash(again) == hash(method)


@rows
def test_gradient_is_finite_and_not_zero(method):
    w = tf.Variable(WEIGHTS["normal"])
    state = state_of(method, WEIGHTS["normal"])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(method.apply(w, state) ** 2)
    gradient = tape.gradient(loss, w).numpy()
    assert np.isfinite(gradient).all() and np.abs(gradient).sum() > 0


@pytest.fixture(scope="module")
def base():
    keras.utils.set_random_seed(7)
    model = compiled(image_net())
    model.fit(*image_data(), epochs=2, verbose=0)
    return model


@trained_rows
@pytest.mark.slow
def test_fit_strip_save_resume_and_convert(method, base, tmp_path):
    """strip = the model with baked weights; a run cut in two by save and load = the run that was not.

    The one exception: Keras 3 saves no state of dropout's random generator, in any model. It is handed over here.
    """
    x, y = image_data()
    model = compiled(compress(base, method, include_head=True))
    keras.utils.set_random_seed(3)
    history = model.fit(x, y, epochs=1, shuffle=False, verbose=0, callbacks=[CompressionCallback(4)]).history
    assert 0 <= history["sparsity"][-1] < 1 and (method.bits is None) == ("levels" not in history)
    model.save(tmp_path / "half.keras")
    seeds = [v.numpy() for v in model.variables if "seed_generator" in v.path]
    model.fit(x, y, epochs=1, shuffle=False, verbose=0, callbacks=[CompressionCallback(4)])

    again = keras.models.load_model(tmp_path / "half.keras")
    for variable, seed in zip((v for v in again.variables if "seed_generator" in v.path), seeds, strict=True):
        variable.assign(seed)
    again.fit(x, y, epochs=1, shuffle=False, verbose=0, callbacks=[CompressionCallback(4)])
    for one, two in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy(), err_msg=one.path)

    plain = strip(model)
    expected = model.predict(x, verbose=0)
    assert not any(type(layer).__module__.startswith("tfcompress") for layer in plain.layers)
    np.testing.assert_allclose(plain.predict(x, verbose=0), expected, atol=1e-5)
    converter = tf.lite.TFLiteConverter.from_keras_model(plain)
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    lite = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(lite, expected, atol=1e-4)
