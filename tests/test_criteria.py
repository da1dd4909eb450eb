"""Criteria against closed forms, brute force and planted structure."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import ops
from small_models import LAYERS, compiled, image_data, image_net, inputs_for

from tfcompress.layout import kernels
from tfcompress.model import leaves
from tfcompress.pruning import gradients, outputs
from tfcompress.pruning.criteria import CRITERIA, per_cost
from tfcompress.wrapper import read

L = keras.layers
FILTERS = ("l1_norm", "l2_norm", "geometric_median", "bn_scale", "taylor", "information_gain", "relevance", "behaviour")


def weights_of(model):
    return {f"{path}/{key}": view.to(read(variable), np) for path, layer in leaves(model)
            for key, (variable, view) in kernels(layer).items()}


def linear(w, loss, outputs=1):
    """A model of one Dense layer without bias whose kernel is ``w``."""
    model = keras.Sequential([keras.Input((len(w),)), L.Dense(outputs, use_bias=False, name="out")])
    model.compile(loss=loss)
    model.layers[0].kernel.assign(np.reshape(w, (len(w), outputs)))
    return model, {"out/kernel": np.reshape(w, (len(w), outputs)).astype("float32")}


def spearman(a, b):
    return np.corrcoef(gradients.ranks(a), gradients.ranks(b))[0, 1]


# ---- all of them ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_scores_every_layer_deterministically(name):
    model, data = image_net(), image_data(64)
    model.get_layer("bn").gamma.assign(np.linspace(0.5, 2, 8))
    weights = weights_of(model)
    first, second = (CRITERIA[name](weights, model, data) for _ in range(2))
    assert list(first) == list(weights)
    for path, scores in first.items():
        assert scores.shape == (weights[path].shape[-1:] if name in FILTERS else weights[path].shape)
        assert np.isfinite(scores).all() and (scores >= 0).all()
        assert path == "head/kernel" or scores.std() > 0
        np.testing.assert_array_equal(scores, second[path])


@pytest.mark.parametrize("case", ["separable1d", "einsum", "attention", "time_distributed",
                                  "masked_lstm", "shared", "nested", "transpose2d"])
def test_layers_whose_channels_are_not_the_outputs_are_scored_too(case):
    model = LAYERS[case]()
    model.compile(loss="mse")
    x, weights = inputs_for(model, 12), weights_of(model)
    y = model.predict(x, verbose=0) + 1
    for name in FILTERS[4:]:
        if name == "relevance":
            y = np.zeros(np.shape(y)[:-1], int)
        for path, scores in CRITERIA[name](weights, model, (x, y)).items():
            assert scores.shape == weights[path].shape[-1:] and np.isfinite(scores).all() and scores.max() > 0, name


@pytest.mark.parametrize("name", ["slope", "taylor2", "information_gain", "relevance", "behaviour"])
@pytest.mark.parametrize(("model", "data"), [(None, (np.ones((4, 8, 8, 3)), np.ones(4))), (image_net, None)])
def test_what_is_missing_is_said(name, model, data):
    with pytest.raises(ValueError, match="Received: (model|data)="):
        CRITERIA[name]({}, model and model(), data)


def test_a_model_that_was_scored_can_go():
    model = compiled(image_net())
    for name in ("slope", "information_gain", "taylor", "behaviour"):
        CRITERIA[name](weights_of(model), model, image_data(32))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_scores_follow_weights_assigned_later():
    model, data = image_net(), image_data(32)
    before = {name: CRITERIA[name](weights_of(model), model, data)["conv/kernel"] for name in FILTERS[4:]}
    conv = model.get_layer("conv")
    conv.kernel.assign(ops.flip(conv.kernel, -1))
    for name, scores in before.items():
        assert not np.allclose(CRITERIA[name](weights_of(model), model, data)["conv/kernel"], scores), name


# ---- no data ----------------------------------------------------------------------------------------------------
def test_random_knows_seed_path_and_shape():
    w = {"a": np.ones((3, 4)), "b": np.ones((3, 4))}
    one, other = CRITERIA["random"](w), CRITERIA["random"](w, seed=1)
    assert not np.array_equal(one["a"], one["b"]) and not np.array_equal(one["a"], other["a"])
    assert not np.array_equal(CRITERIA["random"]({"a": np.ones((4, 3))})["a"].ravel(), one["a"].ravel())


def test_geometric_median_is_brute_force_and_finds_planted_duplicates():
    w = np.random.default_rng(0).standard_normal((3, 3, 8, 16)).astype("float32")
    w /= np.sqrt(np.square(w).sum((0, 1, 2)))                        # of one size: only direction is left
    w[..., 11] = w[..., 3]
    scores = CRITERIA["geometric_median"]({"w": w * 1000})["w"] / 1000
    flat = w.reshape(-1, 16).astype("float64")
    np.testing.assert_allclose(scores, [np.linalg.norm(flat.T - f, axis=1).sum() for f in flat.T], rtol=1e-5)
    assert set(np.argsort(scores)[:2]) == {3, 11}


def test_bn_scale_orders_by_planted_gamma_and_falls_back_where_no_norm_follows():
    model = image_net()
    gamma = np.array([0.3, -2.0, 0.1, 1.0, 0.7, -0.2, 3.0, 0.5], "float32")
    model.get_layer("bn").gamma.assign(gamma)
    scores = CRITERIA["bn_scale"](weights_of(model), model)
    np.testing.assert_array_equal(scores["conv/kernel"], np.abs(gamma))
    norms = np.linalg.norm(read(model.get_layer("head").kernel), axis=0)
    np.testing.assert_allclose(scores["head/kernel"], norms / norms.mean(), rtol=1e-6)


def test_cost_decides_between_equal_scores():
    scores = per_cost({"a": np.ones(2), "b": np.ones((3, 2))}, {"a": 2.0, "b": [1.0, 4.0]})
    assert scores["a"].tolist() == [0.5, 0.5] and scores["b"].tolist() == [[1.0, 0.25]] * 3
    with pytest.raises(ValueError, match=r"\['b'\].*given for: \['a', 'b'\]"):
        per_cost({"a": np.ones(2), "b": np.ones(2)}, {"a": 1, "b": [1.0, 0.0]})


# ---- slopes -----------------------------------------------------------------------------------------------------
def test_product_is_the_exact_change_of_a_linear_loss():
    w, x = np.array([0.5, -2.0, 0.01, 1.0]), np.tile([[3.0, 0.1, 50.0, -1.0]], (20, 1))
    model, weights = linear(w, lambda y, z: ops.mean(z))
    slopes, _ = gradients.mean_slopes(weights, model, (x, np.zeros(20)))
    change = [abs(float(model.evaluate(x * (np.arange(4) != i), np.zeros(20), verbose=0)) - x[0] @ w) for i in range(4)]
    np.testing.assert_allclose(np.abs(w) * slopes["out/kernel"][:, 0], change, rtol=1e-5)
    scores = CRITERIA["slope"](weights, model, (x, np.zeros(20)))["out/kernel"][:, 0]
    np.testing.assert_allclose(scores, change / np.mean(change), rtol=1e-5)


def test_the_two_weights_of_the_source():
    """f = 5 w1 + 0.1 w2 at (0.1, 0.3): zeroing costs 0.5 and 0.03. Size takes the wrong one; neither is low twice."""
    model, weights = linear([0.1, 0.3], lambda y, z: ops.mean(z))
    data = np.tile([[5.0, 0.1]], (10, 1)), np.zeros(10)
    first = {name: int(CRITERIA[name](weights, model, data)["out/kernel"].argmin())
             for name in ("magnitude", "slope", "slope_both")}
    assert first == {"magnitude": 0, "slope": 1, "slope_both": 1}
    both = CRITERIA["slope_both"](weights, model, data)["out/kernel"]
    assert (np.floor(both * 2) == 1).all()                           # max of ranks: 1 for each, the product decides


def test_rank_rule_spares_a_huge_weight_on_a_flat_stretch_where_the_product_does_not():
    w, slopes = np.array([9.0, 1.0, 2.0, 0.5]), np.array([0.0, 1.0, 2.0, 0.5])
    model, weights = linear(w, lambda y, z: ops.mean(z))
    data = np.tile([slopes], (10, 1)), np.zeros(10)
    assert CRITERIA["slope"](weights, model, data)["out/kernel"].argmin() == 0
    assert CRITERIA["slope_both"](weights, model, data)["out/kernel"][:, 0].argsort().tolist() == [3, 1, 0, 2]


@pytest.mark.parametrize("name", ["slope", "slope_both", "taylor2"])
def test_a_flat_loss_leaves_the_order_to_magnitude(name):
    w = np.array([0.5, -2.0, 0.01, 1.0])
    model, weights = linear(w, lambda y, z: ops.mean(0.0 * z))
    scores = CRITERIA[name](weights, model, (np.ones((12, 4)), np.zeros(12)))["out/kernel"][:, 0]
    assert scores.argsort().tolist() == np.abs(w).argsort().tolist()


def test_second_order_is_the_brute_force_change_of_a_separable_quadratic():
    """y = x w* + noise with orthogonal inputs at the minimum: the loss changes by 1/2 h w^2, h = mean x^2."""
    signs = np.array([[(-1) ** bin(i & j).count("1") for j in range(16)] for i in range(16)])      # Hadamard
    x, w = signs[:, 1:6] * np.array([3.0, 0.2, 1.0, 5.0, 0.5]), np.array([0.1, 2.0, 0.7, 0.05, 1.1])
    model, weights = linear(w, lambda y, z: ops.mean((y - z) ** 2) / 2)
    y = (x @ w + signs[:, 9])[:, None]                               # residuals of size 1: Fisher = Hessian
    base = np.mean((y[:, 0] - x @ w) ** 2) / 2
    change = [np.mean((y[:, 0] - x @ np.where(np.arange(5) == i, 0, w)) ** 2) / 2 - base for i in range(5)]
    scores = CRITERIA["taylor2"](weights, model, (x, y))["out/kernel"][:, 0]
    np.testing.assert_allclose(scores, change, rtol=1e-4)


def test_slopes_of_batches_not_their_signed_mean():
    """Two halves pull in opposite directions: the mean gradient is 0, the slope is not."""
    x = np.tile([[1.0], [-1.0]], (8, 1))
    model, weights = linear([0.5], lambda y, z: ops.mean(z))
    assert gradients.mean_slopes(weights, model, (x, np.zeros(16)))[0]["out/kernel"].item() == 1.0


def test_cross_entropy_stands_in_where_no_loss_is_compiled():
    model, (x, y) = image_net(), image_data(64)
    probabilities = keras.Sequential([model, L.Softmax()])
    paths = list(weights_of(model))
    expected = gradients.mean_slopes(paths, compiled(keras.Model(model.inputs, model.outputs)), (x, y))[0]
    nested = (y[:, None], probabilities, model.name + "/")
    for labels, net, prefix in ((y, model, ""), (np.eye(3)[y], model, ""), nested):
        found = gradients.mean_slopes([prefix + p for p in paths], net, (x, labels))[0]
        for path in paths:
            np.testing.assert_allclose(found[prefix + path], expected[path], rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match=r"y of shape \(4, 2\) for outputs of shape \(4, 3\)"):
        gradients.mean_slopes(paths, model, (x, np.ones((64, 2))))


# ---- filters ----------------------------------------------------------------------------------------------------
def mlp(units=12, classes=4):
    i = keras.Input((10,))
    x = L.Dense(units, activation="relu", name="one")(i)
    x = L.ReLU()(L.BatchNormalization(name="bn")(L.Dense(units, name="two")(x)))
    return keras.Model(i, L.Dense(classes, activation="softmax", name="head")(x))


@pytest.mark.parametrize("loss", ["categorical_crossentropy", keras.losses.CategoricalCrossentropy(from_logits=True),
                                  "sparse_categorical_crossentropy", keras.losses.categorical_crossentropy,
                                  ["categorical_crossentropy"]])
@pytest.mark.parametrize("name", ["slope", "taylor"])
def test_labels_may_be_numbers_or_one_hot_whatever_the_loss_was_compiled_for(name, loss):
    model, (x, y) = image_net(), image_data(32)
    model.compile(loss=loss)
    numbers, one_hot = (CRITERIA[name](weights_of(model), model, (x, labels))
                        for labels in (y, np.eye(model.output_shape[-1])[y]))
    for path, scores in numbers.items():
        np.testing.assert_allclose(scores, one_hot[path], rtol=1e-4)


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(7)
    model, rng = mlp(), np.random.default_rng(0)
    x = rng.standard_normal((256, 10)).astype("float32")
    y = (x @ rng.standard_normal((10, 4))).argmax(1)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=8, verbose=0)
    model.get_layer("bn").beta.assign(rng.uniform(0, 0.5, 12))       # a filter gone takes its relu(beta) along
    return model, x, y


def removal(model, x):
    """``{path: mean KL(p || p without unit i)}``, each unit really removed behind its activation."""
    one, bn, two, head = (model.get_layer(name) for name in ("one", "bn", "two", "head"))
    p, found = np.array(model(x)), {"one/kernel": [], "two/kernel": []}
    for path, scores in found.items():
        for i in range(12):
            keep = np.ones(12)
            keep[i] = 0
            h = one(x) * (keep if path == "one/kernel" else 1)
            h = ops.relu(bn(two(h))) * (keep if path == "two/kernel" else 1)
            scores.append(float(ops.mean(ops.sum(p * (ops.log(p + 1e-12) - ops.log(head(h) + 1e-12)), axis=-1))))
    return found


@pytest.mark.parametrize("exact", [True, False])
def test_information_gain_ranks_as_brute_force_removal(trained, monkeypatch, exact):
    model, x, _ = trained
    monkeypatch.setattr(gradients, "EXACT", 16 if exact else 1)
    scores, brute = CRITERIA["information_gain"](weights_of(model), model, (x, None)), removal(model, x)
    for path, expected in brute.items():
        assert spearman(scores[path], expected) >= (0.95 if exact else 0.9), path


def test_information_gain_is_half_the_kl_of_a_small_mask(trained):
    """Second order, exactly: KL(p || p with mask 1 - t) -> t^2 * score."""
    model, x, _ = trained
    score = CRITERIA["information_gain"](weights_of(model), model, (x, None))["one/kernel"]
    one, bn, two, head = (model.get_layer(name) for name in ("one", "bn", "two", "head"))
    t, p = 0.05, np.array(model(x), "float64")
    for i in np.argsort(score)[-3:]:
        q = np.array(head(ops.relu(bn(two(one(x) * (1 - t * (np.arange(12) == i)))))), "float64")
        np.testing.assert_allclose(np.mean(np.sum(p * np.log(p / q), -1)) / t ** 2, score[i], rtol=0.15)


@pytest.mark.parametrize("exact", [True, False])
def test_passes_do_not_grow_with_the_filters(monkeypatch, exact):
    monkeypatch.setattr(gradients, "EXACT", 16 if exact else 1)
    real, calls = outputs.Outputs.gradients, []
    monkeypatch.setattr(outputs.Outputs, "gradients", lambda self, *a: calls.append(1) or real(self, *a))
    counts = []
    for units in (4, 40):
        model = mlp(units)
        CRITERIA["information_gain"](weights_of(model), model, (np.ones((32, 10)), None))
        counts.append(len(calls))
        calls.clear()
    assert counts == ([16 * 4] * 2 if exact else [16] * 2)


@pytest.mark.parametrize("name", ["information_gain", "taylor", "relevance", "behaviour"])
def test_a_filter_nobody_reads_scores_least(trained, name):
    model, x, y = trained
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    kernel = read(copy.get_layer("two").kernel)
    kernel[5] = 0                                                    # row 5: what unit 5 of layer one says
    copy.get_layer("two").kernel.assign(kernel)
    scores = CRITERIA[name](weights_of(copy), copy, (x, y))["one/kernel"]
    assert scores[5] <= (1e-6 if name == "behaviour" else 0) and scores.argmin() == 5


def test_taylor_is_the_exact_change_of_a_linear_loss_when_a_filter_goes():
    """Conv + BN with beta, mean pooled: the loss is linear in each map, so its removal changes it by |<a, g>|."""
    i = keras.Input((6, 6, 2))
    x = L.BatchNormalization(name="bn", beta_initializer="random_normal")(L.Conv2D(5, 3, name="conv")(i))
    model = keras.Model(i, L.Dense(1, name="head")(L.GlobalAveragePooling2D()(x)))
    model.compile(loss=lambda y, z: ops.mean(z))
    x = np.tile(np.random.default_rng(0).standard_normal((1, 6, 6, 2)), (10, 1, 1, 1)).astype("float32")
    maps = np.array(model.get_layer("bn")(model.get_layer("conv")(x)))[0].mean((0, 1))
    change = np.abs(maps * read(model.get_layer("head").kernel)[:, 0])
    scores = CRITERIA["taylor"](weights_of(model), model, (x, np.zeros(10)))["conv/kernel"]
    np.testing.assert_allclose(scores, change / np.linalg.norm(change), rtol=1e-4)
