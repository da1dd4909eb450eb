"""Relevance: conserved, 0 where nobody reads, and better than weights where data are few."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import image_data, image_net

from tfcompress.pruning.criteria import l1_norm
from tfcompress.pruning.lrp import relevance, relevances
from tfcompress.wrapper import read

L = keras.layers


def sums(model, x, y):
    return {path: r.sum() for path, r in relevances(model, (x, y)).items()}


def test_one_layer_by_hand():
    """a = (1, 2), w = [[3, -1], [1, 4]], class 0: shares of 3 and 2 of 5 go to the two units below."""
    i = keras.Input((2,))
    model = keras.Model(i, L.Dense(2, name="two")(L.Dense(2, name="one", activation="relu")(i)))
    model.set_weights([np.eye(2), np.zeros(2), np.array([[3.0, -1.0], [1.0, 4.0]]), np.array([9.0, 9.0])])
    found = relevances(model, (np.array([[1.0, 2.0]], "float32"), np.array([0])))
    np.testing.assert_allclose(found["two/kernel"], [1, 0])
    np.testing.assert_allclose(found["one/kernel"], [0.6, 0.4], rtol=1e-6)


def chain():
    i = keras.Input((8, 8, 3))
    x = L.Conv2D(6, 3, padding="same", use_bias=False, activation="relu", name="c1")(i)
    x = L.MaxPooling2D()(x)
    x = L.ReLU()(L.Conv2D(8, 3, use_bias=False, name="c2")(x))
    x = L.Dropout(0.5)(L.AveragePooling2D(2, padding="same")(x))
    x = L.Dense(7, use_bias=False, activation="relu", name="d1")(L.Flatten()(x))
    return keras.Model(i, L.Dense(3, use_bias=False, activation="softmax", name="head")(x))


def strings():
    i = keras.Input((16, 4))
    x = L.ReLU()(L.Conv1D(6, 3, use_bias=False, name="c1")(i))
    x = L.GlobalAveragePooling1D()(L.SeparableConv1D(6, 3, use_bias=False, activation="relu", name="c2")(x))
    return keras.Model(i, L.Dense(3, use_bias=False, name="head")(x))


@pytest.mark.parametrize(("build", "shape"), [(chain, (8, 8, 3)), (strings, (16, 4))])
def test_conserved_in_every_layer_without_biases(build, shape):
    model, x = build(), np.random.default_rng(0).random((12, *shape)).astype("float32") - 0.1
    rng = np.random.default_rng(1)
    for layer in model.layers:                           # a tenth of them negative: no sum is without positive parts
        layer.set_weights([np.abs(w) * np.where(rng.random(w.shape) < 0.1, -1, 1) for w in layer.get_weights()])
    found = sums(model, x, np.arange(12) % 3)
    assert len(found) == 4
    np.testing.assert_allclose(list(found.values()), 12, rtol=1e-4)


def test_a_sum_splits_and_concatenation_too_and_a_gate_gets_nothing():
    """Two branches into Add, two into Concatenate, a squeeze-excite gate: shares of the parts add up to the whole."""
    i = keras.Input((6, 6, 3))
    a, b = (L.Conv2D(4, 3, use_bias=False, activation="relu", name=name)(i) for name in "ab")
    gate = L.Dense(4, activation="sigmoid", name="gate")(L.GlobalAveragePooling2D(keepdims=True)(a))
    x = L.Concatenate()([L.Multiply()([L.Add()([a, b]), gate]), L.Conv2D(5, 3, activation="relu", name="c")(i)])
    model = keras.Model(i, L.Dense(3, use_bias=False, name="head")(L.GlobalMaxPooling2D()(x)))
    found = sums(model, np.random.default_rng(0).random((9, 6, 6, 3)).astype("float32"), np.arange(9) % 3)
    assert "gate/kernel" not in found or found["gate/kernel"] == 0
    np.testing.assert_allclose(found["a/kernel"] + found["b/kernel"] + found["c/kernel"], 9, rtol=1e-4)
    assert min(found["a/kernel"], found["b/kernel"], found["c/kernel"]) > 0.3


def test_what_has_no_rule_of_its_own_keeps_the_total():
    """Norms without a kernel before them, arithmetic, attention, silu, a mean: all 6 arrive at the first layer."""
    i = keras.Input((5, 8))
    x = L.Dense(8, use_bias=False, name="first")(L.Rescaling(2.0, offset=1.0)(i))
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 3)(x, x))
    x = L.BatchNormalization()(keras.ops.silu(x) * 2.0 + 1.0)
    model = keras.Model(i, L.Dense(3, name="head")(keras.ops.mean(x, axis=1)))
    found = sums(model, np.random.default_rng(0).standard_normal((6, 5, 8)).astype("float32"), np.arange(6) % 3)
    np.testing.assert_allclose([found["first/kernel"], found["head/kernel"]], 6, rtol=1e-4)


def test_add_splits_in_proportion_to_what_comes():
    i = keras.Input((2,))
    a, b = (L.Dense(2, use_bias=False, name=name)(i) for name in "ab")
    model = keras.Model(i, L.Dense(2, use_bias=False, name="head")(L.Add()([a, b])))
    model.set_weights([np.eye(2), 3 * np.eye(2), np.eye(2)])
    found = relevances(model, (np.ones((1, 2), "float32"), np.array([1])))
    np.testing.assert_allclose([found["a/kernel"], found["b/kernel"]], [[0, 0.25], [0, 0.75]], rtol=1e-6)


def test_dead_layers_give_zero_not_nan_and_unread_units_go_first():
    i = keras.Input((5,))
    x = L.Dense(6, activation="relu", name="one")(i)
    model = keras.Model(i, L.Dense(3, name="two")(x))
    model.set_weights([np.abs(w) for w in model.get_weights()])
    model.get_layer("two").kernel.assign(read(model.get_layer("two").kernel) * (np.arange(6) != 4)[:, None])
    data = np.random.default_rng(0).random((30, 5)).astype("float32"), np.arange(30) % 3
    scores = relevance({"one/kernel": np.ones((5, 6))}, model, data)["one/kernel"]
    assert scores[4] == 0 and scores.argmin() == 4 and abs(scores.sum() - 1) < 1e-6
    model.get_layer("one").bias.assign(np.full(6, -100.0))           # every unit is silent
    found = relevances(model, data)
    assert found["two/kernel"].sum() == 30 and not found["one/kernel"].any()


def test_batch_normalization_is_folded_first():
    """A scaled and shifted copy of a network is the same function: the same relevance."""
    i = keras.Input((8, 8, 3))
    x = L.ReLU()(L.BatchNormalization(name="bn")(L.Conv2D(5, 3, name="conv")(i)))
    model = keras.Model(i, L.Dense(3, name="head")(L.GlobalAveragePooling2D()(x)))
    bn, (x, y) = model.get_layer("bn"), image_data(60)
    plain = relevances(model, (x, y))["conv/kernel"]
    bn.gamma.assign(np.linspace(-1, 3, 5))
    flipped = relevances(model, (x, y))["conv/kernel"]
    conv = model.get_layer("conv")
    conv.kernel.assign(read(conv.kernel) / np.linspace(-1, 3, 5).clip(0.5) * np.array([1, 1, 1, 1, 1]))
    bn.gamma.assign(np.linspace(-1, 3, 5).clip(0.5))
    np.testing.assert_allclose(relevances(model, (x, y))["conv/kernel"], plain, rtol=1e-3)
    assert not np.allclose(flipped, plain, rtol=0.05)


def test_at_most_ten_samples_a_class_are_looked_at_and_labels_may_be_one_hot():
    model, (x, y) = image_net(), image_data(200)
    kept = np.concatenate([np.flatnonzero(y == c)[:10] for c in range(3)])
    found = relevances(model, (x, y))
    for data in ((x[kept], y[kept]), (x, np.eye(3)[y]), (x, y[:, None])):
        np.testing.assert_allclose(relevances(model, data)["conv/kernel"], found["conv/kernel"], rtol=1e-4)
    with pytest.raises(ValueError, match="class numbers below 3, or one-hot. Received: y of shape"):
        relevances(model, (x, y + 1))


# ---- few data ---------------------------------------------------------------------------------------------------
def moons(rng, n):
    """Two interleaved half circles."""
    t, y = rng.uniform(0, np.pi, n), rng.integers(0, 2, n)
    x = np.stack([np.where(y, 1 - np.cos(t), np.cos(t)), np.where(y, 0.5 - np.sin(t), np.sin(t))], 1)
    return (x + 0.1 * rng.standard_normal((n, 2))).astype("float32"), y


HIDDEN = ("one", "two", "three")


def trained(seeds, units=64, steps=150):
    """Weights of a net of three hidden layers for each seed, trained all at once on 500 points each."""
    made = [moons(np.random.default_rng(seed), 500) for seed in seeds]
    x, y = (tf.constant(np.stack(a)) for a in zip(*made, strict=True))
    rng, sizes = np.random.default_rng(seeds[0]), [2, *[units] * len(HIDDEN), 2]
    weights = []
    for n, m in zip(sizes[:-1], sizes[1:], strict=True):
        weights.append(tf.Variable(rng.standard_normal((len(seeds), n, m)) * np.sqrt(2 / n), dtype="float32"))
        weights.append(tf.Variable(tf.zeros((len(seeds), 1, m))))
    optimizer = keras.optimizers.Adam(0.005)
    optimizer.build(weights)

    @tf.function
    def train():
        for _ in tf.range(steps):
            with tf.GradientTape() as tape:
                h = x
                for w, b in zip(weights[:-2:2], weights[1:-2:2], strict=True):
                    h = tf.nn.relu(h @ w + b)
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, h @ weights[-2] + weights[-1])
                loss = tf.reduce_sum(tf.reduce_mean(loss, 1))
            optimizer.apply(tape.gradient(loss, weights), weights)

    train()
    return [w.numpy() for w in weights]


def accuracy(model, data):
    return np.mean(np.array(model(data[0])).argmax(1) == data[1])


def accuracy_after(model, scores, share, test):
    """Accuracy when the ``share`` of all hidden units with the lowest scores is gone, ranked over the layers."""
    start, flat = model.get_weights(), np.concatenate([scores[f"{name}/kernel"] for name in HIDDEN])
    kept = np.ones(len(flat))
    kept[np.argsort(flat)[:round(share * len(flat))]] = 0
    for name, mask in zip(HIDDEN, np.split(kept, len(HIDDEN)), strict=True):
        for variable in model.get_layer(name).weights:
            variable.assign(read(variable) * mask)
    found = accuracy(model, test)
    model.set_weights(start)
    return found


def compare(seeds, share=1 / 3):
    """``(seeds, 3)`` test accuracies by relevance and by weight, both as shares of the layer, and before pruning.

    The setting of the authors' toy example: 10 samples a class, a third of all units, at once, no training; the weight
    criterion is a unit's L1 norm.
    """
    weights, rows = trained(seeds), []
    units = weights[0].shape[-1]
    model = keras.Sequential([keras.Input((2,)), *(L.Dense(units, "relu", name=name) for name in HIDDEN), L.Dense(2)])
    for k, seed in enumerate(seeds):
        model.set_weights([w[k].reshape(v.shape) for w, v in zip(weights, model.weights, strict=True)])
        rng = np.random.default_rng(10_000 + seed)
        few, test = moons(rng, 100), moons(rng, 1000)
        kernels = {f"{name}/kernel": read(model.get_layer(name).kernel) for name in HIDDEN}
        sizes = {path: s / s.sum() for path, s in l1_norm(kernels).items()}
        rows.append([accuracy_after(model, relevance(kernels, model, few), share, test),
                     accuracy_after(model, sizes, share, test), accuracy(model, test)])
    return np.array(rows)


@pytest.mark.slow
def test_with_ten_samples_a_class_relevance_beats_weights_on_two_moons():
    by_relevance, by_weight, before = compare(range(8)).mean(0)
    assert before > 0.98 and by_relevance >= by_weight
