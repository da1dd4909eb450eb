"""Quantization networks: soft steps become hard ones, gradients are exact, levels are exact."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tfcompress import Constant, Linear, OneShot
from tfcompress.quantization.networks import (
    QuantizationNetwork,
    hard_quantized,
    initial_steps,
    soft_quantized,
    steps_of,
)

SEVEN = (-4, -2, -1, 0, 1, 2, 4)
SETS = pytest.mark.parametrize("levels", [(-1, 1), (-1, 0, 1), (-2, -1, 0, 1, 2), SEVEN, (0, 1, 2, 3)], ids=str)
W = np.random.default_rng(0).standard_normal((64, 20)).astype("float32") * 0.1


def method(levels=SEVEN):
    return QuantizationNetwork(Linear(100.0, begin=0, end=10, initial=5.0), levels)


def test_steps_and_offset_of_the_papers_examples():
    assert steps_of(SEVEN) == ((2, 1, 1, 1, 1, 2), 4)
    assert steps_of((-1, 1)) == ((2,), 1) and steps_of((0, 1, 2)) == ((1, 1), 0)


@SETS
def test_soft_becomes_hard_and_nearer_with_every_temperature(levels):
    alpha, beta, thresholds = initial_steps(W, levels)
    away = np.abs(beta * W[..., None] - thresholds).min(-1) > 1e-3
    hard = np.array(hard_quantized(W, alpha, beta, thresholds, levels))
    gaps = [np.abs(soft_quantized(W, alpha, beta, thresholds, levels, t) - hard)[away] for t in (20.0, 200.0, 2e3, 1e5)]
    assert gaps[-1].max() < 1e-6
    assert all((one >= two).all() for one, two in zip(gaps, gaps[1:], strict=False)) and gaps[0].max() > 1e-3


@SETS
def test_hard_values_are_alpha_times_a_level_exactly_and_codes_fit(levels):
    x, m = np.maximum(W, 0) if levels[0] == 0 else W, method(levels)
    state = m.init(x)
    baked = np.array(m.bake(x, state))
    alpha = ops.exp(state["log_alpha"]).numpy()
    assert set(np.unique(baked)) == {alpha * np.float32(level) for level in levels}
    assert len(np.unique(baked)) <= 2 ** m.bits and m.bits == {2: 1, 3: 2, 4: 2, 5: 3, 7: 3}[len(levels)]
    state = m.update({"w": x}, {"w": state}, 10)["w"]                        # the schedule's end
    np.testing.assert_array_equal(m.apply(x, state), baked)


@SETS
def test_it_never_falls(levels):
    x = np.linspace(-0.5, 0.5, 2001, dtype="float32")
    steps = initial_steps(W, levels)
    for temperature in (1.0, 10.0, 1000.0):
        assert (np.diff(soft_quantized(x, *steps, levels, temperature)) >= -1e-7).all()
    assert (np.diff(hard_quantized(x, *steps, levels)) >= 0).all()


@pytest.mark.parametrize("temperature", [2.0, 7.0])
def test_gradients_are_those_of_finite_differences(temperature):
    point = [np.float64(v) for v in (0.3, 1.7)] + [np.array([-2.5, -1.4, -0.4, 0.6, 1.5, 2.4])]
    x, weight = np.linspace(-2, 2, 9), np.arange(1.0, 10.0)

    def loss(x, alpha, beta, thresholds):
        return tf.reduce_sum(weight * soft_quantized(x, alpha, beta, thresholds, SEVEN, np.float64(temperature)))

    given = [tf.constant(v, "float64") for v in (x, *point)]
    with tf.GradientTape() as tape:
        tape.watch(given)
        value = loss(*given)
    for number, gradient in enumerate(tape.gradient(value, given)):
        flat, small = np.ravel(given[number].numpy()), 1e-6
        for i in range(flat.size):
            moved = []
            for sign in (1, -1):
                shifted = flat.copy()
                shifted[i] += sign * small
                args = list(given)
                args[number] = tf.reshape(tf.constant(shifted), given[number].shape)
                moved.append(float(loss(*args)))
            np.testing.assert_allclose(np.ravel(gradient)[i], (moved[0] - moved[1]) / (2 * small), rtol=1e-6, atol=1e-6)


def test_a_step_is_made_strictly_above_its_threshold():
    x = np.array([-0.5, -0.49, 0.5, 0.51], "float32")
    assert np.array(hard_quantized(x, 1.0, 1.0, [-0.5, 0.5], (-1, 0, 1))).tolist() == [-1, 0, 0, 1]


def test_thresholds_part_planted_clusters_and_alpha_fits_them():
    rng = np.random.default_rng(1)
    codes = rng.choice(SEVEN, 3000)
    w = (0.05 * codes + rng.normal(0, 0.002, codes.size)).astype("float32")
    m = method()
    np.testing.assert_allclose(m.bake(w, m.init(w)), 0.05 * codes, rtol=5e-3)
    alpha, beta, thresholds = initial_steps(w, SEVEN)
    assert abs(beta * np.abs(w).max() - 5) < 1e-5
    np.testing.assert_allclose(thresholds / beta, 0.05 * np.array([-3, -1.5, -0.5, 0.5, 1.5, 3]), rtol=5e-3)


def test_what_is_pruned_stays_zero_and_uneven_tensors_are_fitted():
    w = np.concatenate([np.zeros(50), np.linspace(0.2, 0.9, 50)]).astype("float32")
    for m in (method(), method((-1, 0, 1)), method((-1, 1)), method((0, 1, 2, 3))):
        state = m.init(w)
        baked = np.array(m.bake(w, state))
        assert not baked[:50].any() and (baked[50:] >= 0).all()
        np.testing.assert_array_equal(np.array(m.apply(w, state))[:50] == 0, 0 not in m.levels)
        best = min(np.mean((np.abs(w[50:, None] - alpha * np.array(m.levels)).min(1)) ** 2)
                   for alpha in np.linspace(0.01, 1, 2000))
        assert np.mean((baked - w)[50:] ** 2) <= best * 1.001


def test_the_schedule_moves_the_temperature_and_then_the_steps_are_hard():
    m, seen = method(), []
    state = {"w": m.init(W)}
    for step in (0, 5, 9, 10, 99):
        state = m.update({"w": W}, state, step)
        seen.append((float(state["w"]["temperature"]), float(state["w"]["hard"])))
    assert seen == [(5.0, 0), (52.5, 0), (90.5, 0), (100.0, 1), (100.0, 1)] and m.milestones == (10,)
    assert m.idle(state, 5)                                                  # hard steps don't go soft again
    with tf.GradientTape() as tape:
        w = tf.Variable(W)
        total = tf.reduce_sum(m.apply(w, state["w"]) ** 2)
    assert np.abs(tape.gradient(total, w)).sum() > 0                         # the soft steps' gradient goes on


@pytest.mark.parametrize("bad", [
    {"levels": (1,)}, {"levels": (1, 0)}, {"levels": (-1, 0, 2)}, {"levels": (0.0, 1.0)}, {"schedule": Constant(5.0)},
    {"schedule": OneShot(5.0, at=3)}, {"schedule": Linear(9.0, 0, 5)}], ids=str)
def test_bad_arguments_name_what_came(bad):
    with pytest.raises(ValueError, match="Received"):
        QuantizationNetwork(**{"schedule": Linear(9.0, 0, 5, initial=1.0), **bad})
