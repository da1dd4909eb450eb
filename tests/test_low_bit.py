"""Binary, ternary, trained ternary, least squares: each method's known answers."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tfcompress import ADMM, AdaptiveFloat, Chain, Cluster, Constant, Linear, Prune, QuantizationNetwork, Uniform
from tfcompress.quantization.binary import Binary
from tfcompress.quantization.groups import check_scales
from tfcompress.quantization.least_squares import LeastSquares, quantized
from tfcompress.quantization.projection import project
from tfcompress.quantization.ternary import Ternary
from tfcompress.quantization.trained_ternary import TrainedTernary


def applied(method, w):
    return ops.convert_to_numpy(method.apply(np.asarray(w, "float32"), {}))


def column(x):
    return np.asarray(x, "float64").reshape(-1, 1)


def error(x, kind):
    x = column(x)
    return float(((x - ops.convert_to_numpy(quantized(ops.convert_to_tensor(x), kind))) ** 2).sum())


def exhaustive(x, bits):
    """The least error of ``bits`` scaled sign vectors, over all sign vectors; scales by least squares."""
    best = np.inf
    for choice in itertools.combinations_with_replacement(list(itertools.product((-1.0, 1.0), repeat=x.size)), bits):
        signs = np.array(choice).T
        scales = np.linalg.lstsq(signs, x, rcond=None)[0]
        best = min(best, float(((x - signs @ scales) ** 2).sum()))
    return best


def test_one_and_two_bits_equal_exhaustive_search():
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 4, 5, 5, 5, 5, 6):
        x = rng.standard_normal(size)
        assert np.isclose(error(x, 1), exhaustive(x, 1), rtol=1e-9, atol=1e-12)
        assert np.isclose(error(x, 2), exhaustive(x, 2), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind, constant", [(1, 0.3646), ("ternary", 0.1913), (2, 0.1183), (3, 0.0594), (4, 0.0338)])
def test_normal_weights_lose_what_the_theory_says(kind, constant):
    x = np.random.default_rng(1).standard_normal(400_000)
    assert np.isclose(error(x, kind) / (x @ x), constant, rtol=0.01)


def test_the_scales_of_normal_weights():
    x = np.random.default_rng(2).standard_normal((400_000, 1))
    high, low = np.unique(np.abs(ops.convert_to_numpy(quantized(ops.convert_to_tensor(x), 2))).round(9))[::-1]
    assert np.isclose([(high + low) / 2, (high - low) / 2], [0.979, 0.529], rtol=0.01).all()


def test_two_bits_beat_greedy_ones_and_those_beat_one():
    rng = np.random.default_rng(3)
    for _ in range(20):
        x = rng.standard_normal(50) ** 3
        residual = x - np.abs(x).mean() * np.sign(x)
        greedy = float(((residual - np.abs(residual).mean() * np.sign(residual)) ** 2).sum())
        assert error(x, 2) <= greedy * (1 + 1e-9) <= error(x, 1) * (1 + 1e-9)
        assert np.isclose(error(x, "ternary"), ((x - np.multiply(*project(x, (0, 1)))) ** 2).sum(), rtol=1e-9)


@pytest.mark.parametrize("kind", [1, 2, "ternary", 3, 4])
def test_scaling_the_weights_scales_the_answer(kind):
    w = np.random.default_rng(4).standard_normal((30, 4)).astype("float32")
    np.testing.assert_allclose(applied(LeastSquares(kind), 4 * w), 4 * applied(LeastSquares(kind), w), rtol=1e-6)


@pytest.mark.parametrize("kind", [1, 2, "ternary", 3])
def test_one_weight_and_equal_weights_are_exact(kind):
    assert applied(LeastSquares(kind), [[-0.7]]) == pytest.approx(-0.7)
    np.testing.assert_allclose(applied(LeastSquares(kind), np.full((4, 2), 0.7)), 0.7, rtol=1e-6)


def test_binary_and_ternary_by_hand():
    w = [[1.0, 0.0], [-3.0, 4.0]]
    assert applied(Binary(), w).tolist() == [[2, 0], [-2, 4]]                             # 0 is pruned
    assert applied(Binary("tensor"), [[1.0, -2.0], [-3.0, 2.0]]).tolist() == [[2, -2], [-2, 2]]
    assert applied(Ternary(scales="tensor"), [[3.0, -1.0], [0.1, 0.1]]).tolist() == [[2, -2], [0, 0]]
    assert applied(Binary(2), [[1.0, 3.0, 4.0, -4.0]]).tolist() == [[2, 2, 4, -4]]       # two gates


PRUNE = Prune(Constant(0.8))


@pytest.mark.parametrize("method", [
    Binary(), Ternary(), TrainedTernary(), LeastSquares(1), LeastSquares(2), LeastSquares("ternary"), LeastSquares(3),
    Cluster(2), Cluster(8), AdaptiveFloat(2, 1), Uniform(3), ADMM((1,), end=10, rounds=2),
    QuantizationNetwork(Linear(50.0, 0, 10, initial=5.0), (-1, 1)),
], ids=str)  # fmt: skip
def test_pruned_weights_stay_zero_and_leave_the_scales_alone(method):
    """Behind a mask of 80 % the others are quantized as if they stood alone: each column has 8 of 40 left."""
    w = np.random.default_rng(6).choice([-1.0, 1.0], (40, 3)) * np.random.default_rng(7).uniform(1, 2, (40, 3))
    chain, w = Chain((PRUNE, method)), w.astype("float32")
    states = chain.update({"w": w}, {"w": chain.init(w)}, 0)
    states = chain.update({"w": w}, states, 20)
    for made in (chain.apply(w, states["w"]), chain.bake(w, states["w"])):
        made = ops.convert_to_numpy(made)
        assert np.array_equal(made == 0, states["w"]["0.mask"] == 0) or isinstance(method, Ternary | TrainedTernary)
        assert not made[states["w"]["0.mask"] == 0].any()
        assert 0.5 < np.abs(made[made != 0]).mean() < 2.5


def test_two_bits_of_pruned_weights_are_those_of_the_others():
    x = np.array([[0.0], [1.0], [-1.0], [0.0], [3.0], [-3.0]], "float32")
    assert np.ravel(quantized(ops.convert_to_tensor(x), 2)).tolist() == [0, 1, -1, 0, 3, -3]
    same = np.array([[0.0], [2.0], [-2.0]], "float32")
    assert np.ravel(quantized(ops.convert_to_tensor(same), 2)).tolist() == [0, 2, -2]


def test_codes_compute_with_shifts_bit_planes_and_counts():
    """What an engine of few bits makes of the codes, in integers, is the plain product: survey section 3."""
    rng = np.random.default_rng(8)
    a = rng.integers(-128, 128, 97)                                              # int8 activations, an odd length
    _, q = project(rng.standard_normal(97), (0, 1, 2, 4))
    q = q.astype(int)
    shifts = np.where(q == 0, 0, np.log2(np.maximum(np.abs(q), 1)).astype(int))
    assert np.sum(np.sign(q) * (a << shifts)) == a @ q                           # powers of two: shift and add
    _, t = project(rng.standard_normal(97), (0, 1))
    t = t.astype(int)
    assert a[t > 0].sum() - a[t < 0].sum() == a @ t                              # two bit planes
    assert (t + 1) @ a - a.sum() == a @ t                                        # unsigned codes 0, 1, 2
    _, b = project(rng.standard_normal(97), (1,))
    s = np.sign(rng.standard_normal(97))
    differ = np.bitwise_xor(np.packbits(b > 0), np.packbits(s > 0))
    assert 97 - 2 * int(np.unpackbits(differ).sum()) == int(b @ s)               # xor and count


def test_trained_ternary_gradients_by_hand():
    """Six weights, delta = 0.2: two positive, two negative, two between; upstream gradients 1 to 6."""
    w = tf.Variable(np.array([[0.5], [1.0], [0.1], [-0.1], [-0.5], [-1.0]], "float32"))
    positive, negative = tf.Variable([3.0]), tf.Variable([5.0])
    upstream = np.arange(1.0, 7.0).reshape(6, 1).astype("float32")

    def gradients(average):
        with tf.GradientTape() as tape:
            method = TrainedTernary(threshold=0.2, average=average)
            q = method.apply(w, {"positive": positive, "negative": negative})
            loss = tf.reduce_sum(q * upstream)
        assert q.numpy().ravel().tolist() == [3, 3, 0, 0, -5, -5]
        return [g.numpy().ravel().tolist() for g in tape.gradient(loss, [positive, negative, w])]

    assert gradients(False) == [[1.0 + 2.0], [-(5.0 + 6.0)], [3.0, 6.0, 3.0, 4.0, 25.0, 30.0]]
    assert gradients(True)[:2] == [[1.5], [-5.5]]


def test_trained_ternary_with_equal_scales_is_ternary():
    w = np.random.default_rng(5).standard_normal((50, 1)).astype("float32")
    twin = applied(Ternary(threshold=0.05 * np.abs(w).max() / np.abs(w).mean(), scales="tensor"), w)
    scale = np.full(1, twin.max(), "float32")
    tied = ops.convert_to_numpy(TrainedTernary().apply(w, {"positive": scale, "negative": scale}))
    np.testing.assert_allclose(tied, twin, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_trained_ternary_finds_planted_codes_and_scales(seed):
    """Linear regression, 40 weights of {-0.5, 0, 2}, 400 examples; from the least-squares weights, gradient descent."""
    rng = np.random.default_rng(seed)
    planted = rng.choice([-0.5, 0.0, 2.0], 40)
    x = rng.standard_normal((400, 40))
    y = (x @ planted).astype("float32")
    x = x.astype("float32")
    start = np.linalg.lstsq(x, y, rcond=None)[0] + 0.05 * rng.standard_normal(40)
    w = tf.Variable(start.reshape(-1, 1).astype("float32"))
    method = TrainedTernary(threshold=0.1)
    state = {name: tf.Variable(value) for name, value in method.init(w.numpy()).items()}
    for _ in range(300):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((tf.squeeze(x @ method.apply(w, state)) - y) ** 2) / 2
        slots = [w, *state.values()]
        for slot, gradient in zip(slots, tape.gradient(loss, slots), strict=True):
            slot.assign_sub(0.1 * gradient if slot is not w else 0.01 * gradient)
    assert state["positive"].numpy() == pytest.approx(2.0, abs=1e-3)
    assert state["negative"].numpy() == pytest.approx(0.5, abs=1e-3)
    np.testing.assert_allclose(np.ravel(method.apply(w, state)), planted, atol=1e-3)


def test_a_scale_never_crosses_zero():
    w = np.array([[1.0], [-1.0]], "float32")
    q = np.ravel(TrainedTernary().apply(w, {"positive": np.float32([-3]), "negative": np.float32([0.5])}))
    assert q.tolist() == pytest.approx([1e-6, -0.5])


def test_a_scale_below_the_smallest_finds_its_way_back():
    scale = tf.Variable([-0.01])
    with tf.GradientTape() as tape:
        error = ops.sum(ops.square(TrainedTernary().apply([[1.0], [-0.5]], {"positive": scale, "negative": [0.5]}) - 1))
    assert tape.gradient(error, scale).numpy().tolist() == pytest.approx([-2.0], rel=1e-4)


@pytest.mark.parametrize("make, words", [
    (lambda: check_scales("row"), "scales='row'"), (lambda: Binary(0), "scales=0"), (lambda: Ternary(-1), "threshold"),
    (lambda: TrainedTernary(1.0), "threshold=1.0"), (lambda: LeastSquares(9), "kind=9"),
    (lambda: LeastSquares("two"), "kind='two'"),
])  # fmt: skip
def test_bad_arguments(make, words):
    with pytest.raises(ValueError, match=words):
        make()
