"""ADMM: feasible, close to the enumerated optimum, under a mask, with the best round kept; extragradient steps."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcompress import Chain, CompressionCallback, Constant, Linear, Prune, compress, strip
from tfcompress.quantization.admm import ADMM
from tfcompress.quantization.extragradient import ExtraGradient
from tfcompress.quantization.projection import project


def least_squares(seed, size=8):
    """A random problem: minimise ``||x w - y||^2 / n`` over ternary directions with a free scale."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((20, size)).astype("float32")
    return x, (x @ rng.standard_normal(size)).astype("float32")


def loss_of(x, y, w):
    return float(np.mean((x @ w - y) ** 2))


def enumerated(x, y):
    best = np.inf
    for codes in itertools.product((-1.0, 0.0, 1.0), repeat=x.shape[1]):
        made = x @ np.array(codes, "float32")
        if made @ made > 0:
            best = min(best, float(np.mean(y**2) - (made @ y) ** 2 / (made @ made) / len(y)))
    return best


class Regression(keras.Sequential):
    """A linear net whose ``evaluate`` takes microseconds."""

    def evaluate(self, x, y, verbose=0):
        return loss_of(x, y, np.ravel(self.layers[0].kernel))


def trained(x, y, rounds=80):
    """The weights after ADMM whose inner problems are solved exactly; and the frozen codes with their best scale."""
    model = Regression([keras.Input((x.shape[1],)), keras.layers.Dense(1, use_bias=False, name="d")])
    hessian = 2 * x.T @ x / len(y)
    rho = np.trace(hessian) / 300 * np.array([1, 1.08 ** (rounds - 1)])
    method = ADMM((0, 1), end=rounds, rounds=rounds, rho=rho, keep_best=True)
    w = np.linalg.lstsq(x, y, rcond=None)[0].reshape(-1, 1)
    state = method.init(w)
    for step in range(rounds):
        state = method.update({"d/kernel": w}, {"d/kernel": state}, step, model, (x, y))["d/kernel"]
        right = 2 * x.T @ y / len(y) + np.ravel(state["rho"] * (state["z"] - state["u"]))
        w = np.linalg.solve(hessian + state["rho"] * np.eye(len(w)), right).reshape(-1, 1).astype("float32")
    state = method.update({"d/kernel": w}, {"d/kernel": state}, rounds, model, (x, y))["d/kernel"]
    made = x @ np.ravel(state["z"])
    return np.ravel(method.bake(w, state)), float(np.mean(y**2) - (made @ y) ** 2 / (made @ made) / len(y))


def test_it_beats_projecting_once_and_often_finds_the_optimum():
    close = []
    for seed in range(20):
        x, y = least_squares(seed)
        w, refitted = trained(x, y)
        alpha, q = project(np.linalg.lstsq(x, y, rcond=None)[0], (0, 1))
        assert len(np.unique(np.abs(w[w != 0]))) == 1
        assert loss_of(x, y, w) <= loss_of(x, y, alpha * q) * (1 + 1e-5)
        close.append(refitted <= enumerated(x, y) * 1.01)
    assert np.mean(close) >= 0.5, close


def test_rounds_as_the_formula_says():
    """Two weights by hand: z, then u = w - z, shrunk as rho grows, then the penalty's value and slope."""
    method = ADMM((0, 1), end=10, rounds=2, rho=(1.0, 2.0))
    w = np.array([[1.0], [0.1]], "float32")
    first = method.update({"w": w}, {"w": method.init(w)}, 0)["w"]
    assert first["z"].ravel().tolist() == [1, 0] and not first["u"].any() and first["rho"] == 1
    assert method.update({"w": w}, {"w": first}, 4)["w"] is first            # between rounds nothing moves
    second = method.update({"w": w}, {"w": first}, 5)["w"]
    np.testing.assert_allclose(second["u"].ravel(), [0, 0.05], atol=1e-7)    # (0 + 0.1 - 0) / 2
    assert second["rho"] == 2
    latent = tf.Variable(w)
    with tf.GradientTape() as tape:
        penalty = method.penalty(latent, second)
    assert float(penalty) == pytest.approx(0.15**2)                          # 2 / 2 * (0.1 - 0 + 0.05) ** 2
    np.testing.assert_allclose(tape.gradient(penalty, latent).numpy().ravel(), [0, 0.3], atol=1e-6)


def test_pruned_weights_stay_zero_and_codes_stay_frozen_through_training():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(16, "relu", name="a"), keras.layers.Dense(2)])
    chain = Chain((Prune(Constant(0.75, end=0)), ADMM((0, 1, 2, 4), end=8, rounds=4, scales="channel")))
    small = compress(model, chain)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 6)), rng.standard_normal((64, 2))
    small.compile("adam", "mse")
    small.fit(x, y, batch_size=8, verbose=0, callbacks=[CompressionCallback()])
    layer = small.layers[0]
    codes, before = layer.values("kernel")["1.z"], layer.baked("kernel")
    assert layer.values("kernel")["1.frozen"] == 1 and set(np.unique(np.abs(codes))) <= {0, 1, 2, 4}
    small.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[CompressionCallback()])
    after = layer.values("kernel")
    assert np.array_equal(after["1.z"], codes) and not np.array_equal(layer.baked("kernel"), before)
    plain = strip(small).layers[0].kernel.numpy()
    np.testing.assert_allclose(plain, codes * after["1.scale"] * after["1.gain"], rtol=1e-6)
    assert np.mean(plain == 0) >= 0.75 and not plain[after["0.mask"] == 0].any()


@pytest.mark.parametrize("levels, masked, frozen", [((1,), 80, 80), ((0, 1, 2, 4), 80, 40), ((1,), 75, 80)])
def test_a_mask_that_still_grows_is_kept(levels, masked, frozen):
    w = np.random.default_rng(0).standard_normal((20, 64)).astype("float32")
    chain = Chain((Prune(Linear(0.8, 0, masked)), ADMM(levels, end=frozen, rounds=4)))
    state = chain.init(w)
    for step in range(0, 81, 5):
        state = chain.update({"w": w}, {"w": state}, step)["w"]
    for made in (chain.apply(w, state), chain.bake(w, state)):
        assert np.mean(np.asarray(made) == 0) >= 0.8 and not np.asarray(made)[state["0.mask"] == 0].any()


def test_keep_best_also_judges_where_training_ends():
    """The weights reach the planted optimum after the last round has begun."""
    x = np.random.default_rng(1).standard_normal((30, 4)).astype("float32")
    planted = np.array([[1.0], [-1.0], [0.0], [1.0]], "float32")
    y = np.ravel(x @ planted)
    model = Regression([keras.Input((4,)), keras.layers.Dense(1, use_bias=False, name="d")])
    method, far = ADMM((0, 1), end=10, rounds=1, keep_best=True), np.float32([[-1.0], [0.3], [0.9], [0.1]])
    state = method.update({"d/kernel": far}, {"d/kernel": method.init(far)}, 0, model, (x, y))["d/kernel"]
    state["u"] = np.zeros_like(far)
    state = method.update({"d/kernel": planted}, {"d/kernel": state}, 10, model, (x, y))["d/kernel"]
    assert loss_of(x, y, np.ravel(method.bake(planted, state))) < 1e-10


def test_an_lstm_has_a_scale_for_each_gate():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4, name="lstm"), keras.layers.Dense(2)])
    small = compress(model, [("lstm/.*kernel", ADMM((0, 1, 2, 4), end=4, rounds=2, scales=4))])
    rng = np.random.default_rng(0)
    small.compile("adam", "mse")
    small.fit(rng.standard_normal((32, 5, 3)), rng.standard_normal((32, 2)), batch_size=4, verbose=0,
              callbacks=[CompressionCallback()])  # fmt: skip
    for w in strip(small).get_weights()[:2]:
        scales = [np.abs(gate[gate != 0]).min() for gate in np.split(w, 4, axis=1)]
        assert len({round(float(scale), 6) for scale in scales}) == 4
        for gate, scale in zip(np.split(w, 4, axis=1), scales, strict=True):
            codes = gate / scale
            np.testing.assert_allclose(codes, np.round(codes), atol=1e-5)
            assert len(np.unique(np.round(np.abs(codes)))) <= 4


def test_keep_best_needs_data():
    method, w = ADMM((1,), end=2, rounds=1, keep_best=True), np.ones((2, 2), "float32")
    with pytest.raises(ValueError, match="CompressionCallback"):
        method.update({"w": w}, {"w": method.init(w)}, 0)


@pytest.mark.parametrize("options", [
    dict(end=0), dict(rounds=0), dict(rho=(0, 1)), dict(rho=(2, 1)), dict(levels=(2, 1)),
])  # fmt: skip
def test_bad_arguments(options):
    with pytest.raises(ValueError, match="Received"):
        ADMM(**options)


def test_extragradient_turns_inward_where_gradient_descent_turns_outward():
    """The bilinear game x * y: plain gradient steps spiral out from the saddle, extragradient steps spiral in."""
    def distance(optimizer, steps):
        x, y = keras.Variable([1.0]), keras.Variable([1.0])
        for _ in range(steps):
            optimizer.apply([y.value, -x.value], [x, y])
        return float(np.hypot(x[0], y[0]))

    assert distance(keras.optimizers.SGD(0.3), 40) > 2
    assert distance(ExtraGradient(0.3), 80) < 0.3


def test_extragradient_trains_and_saves(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(ExtraGradient(0.1), "mse")
    x = np.random.default_rng(0).standard_normal((64, 3))
    y = x @ [1.0, -2.0, 0.5]
    losses = model.fit(x, y, epochs=40, batch_size=32, verbose=0).history["loss"]
    assert losses[-1] < 0.05 * losses[0]
    model.save(tmp_path / "m.keras")
    assert isinstance(keras.models.load_model(tmp_path / "m.keras").optimizer, ExtraGradient)
