"""Granularities: which weights, blocks, runs and filters go; counts are exact, brute force agrees."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import LAYERS, compiled, image_data, image_net

from tfcompress import (
    Chain,
    CompressionCallback,
    Constant,
    Linear,
    OneShot,
    Polynomial,
    Prune,
    Uniform,
    calibrate,
    compress,
    quantize_aware,
    strip,
)
from tfcompress.batch_norm import FusedBatchNormalization
from tfcompress.layout import kernels, vectors
from tfcompress.model import compressed_tensors, leaves
from tfcompress.pruning.channels import channel_labels
from tfcompress.pruning.granularity import blocks, filters, global_filters, granularity, pattern, regrown
from tfcompress.pruning.prune import alive, filter_masks

L = keras.layers
shapes = st.tuples(st.integers(1, 7), st.integers(1, 7))


def random(*shape, seed=0):
    return np.random.default_rng(seed).random(shape)


# ---- pure functions ---------------------------------------------------------------------------------------------
@given(shapes, shapes, st.floats(0, 0.99), st.integers(0, 9))
def test_blocks_go_as_a_whole_and_the_count_is_exact(size, block, sparsity, seed):
    s = random(*size, seed=seed)
    mask = blocks({"w": s}, sparsity, block)["w"]
    means, zeros = [], 0
    for i in range(0, size[0], block[0]):
        for j in range(0, size[1], block[1]):
            part = mask[i:i + block[0], j:j + block[1]]
            assert part.min() == part.max()
            means.append((s[i:i + block[0], j:j + block[1]].mean(), part.max()))
            zeros += int(part.max() == 0)
    assert zeros == round(sparsity * len(means))
    gone, kept = ([m for m, k in means if k == value] for value in (0, 1))
    assert not gone or not kept or max(gone) <= min(kept) + 1e-12


@given(st.integers(1, 11), st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 4)]), st.integers(0, 9))
def test_a_pattern_keeps_the_best_n_of_m_in_each_run(rows, nm, seed):
    n, m = nm
    s = random(rows, 3, seed=seed)
    mask = pattern({"w": s}, 1 - n / m, n, m)["w"]
    for i in range(0, rows, m):
        for scores, kept in zip(s[i:i + m].T, mask[i:i + m].T, strict=True):
            assert kept.sum() == min(n, len(kept))
            assert set(np.flatnonzero(kept)) == set(np.argsort(-scores)[:n])


def test_half_of_a_pattern_is_in_the_runs_that_lose_least():
    s = np.array([[4.0, 9], [3, 9], [2, 9], [1, 9], [9, 9], [9, 9], [9, 9], [9, 1]])
    mask = pattern({"w": s}, 0.25, 2, 4)["w"]                        # 4 runs; they lose 3, 18, 18 and 10
    assert mask.T.tolist() == [[1, 1, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0, 0]]


def test_a_convolutions_pattern_runs_along_its_input_channels():
    mask = granularity("2:4")({"w": random(3, 3, 8, 5)}, 0.5)["w"]
    assert (mask.reshape(3, 3, 2, 4, 5).sum(3) == 2).all()


def test_filters_keep_the_same_share_of_each_layer_and_at_least_one():
    scores = {"a": random(3, 3, 2, 8), "b": random(4), "c": random(5, 1)}
    masks = filters(scores, 0.75)
    assert {path: mask.shape for path, mask in masks.items()} == {"a": (8,), "b": (4,), "c": (1,)}
    assert [int(mask.sum()) for mask in masks.values()] == [2, 1, 1]
    totals = scores["a"].sum((0, 1, 2))
    assert set(np.flatnonzero(masks["a"])) == set(np.argsort(-totals)[:2])
    assert [int(mask.sum()) for mask in filters(scores, 0.99).values()] == [1, 1, 1]


LABELS = {"a": np.array([1, 2, 3, 4]), "b": np.array([4, 3, 2, 1]), "c": np.array([7, 7, 8, 8, 9, -1])}


def test_coupled_filters_share_one_mask_and_minus_one_stays():
    scores = {"a": np.array([1.0, 8, 3, 4]), "b": np.array([1.0, 0, 0, 5]), "c": np.array([1.0, 2, 2, 2, 9, 0])}
    masks = filters(scores, 0.5, LABELS)                             # by label: 6, 8, 3, 5 and 3, 4, 9
    assert masks["a"].tolist() == [1, 1, 0, 0] and masks["b"].tolist() == [0, 0, 1, 1]
    assert masks["c"].tolist() == [0, 0, 0, 0, 1, 1]                 # round(1.5) labels of three


@given(st.floats(0, 0.99), st.integers(0, 20), st.sampled_from([0.01, 0.3, 0.5]))
def test_groups_are_ranked_globally_as_brute_force_does(sparsity, seed, floor):
    scores = {path: random(len(labels), seed=seed + i) for i, (path, labels) in enumerate(LABELS.items())}
    masks = global_filters(scores, sparsity, LABELS, floor)
    total = {label: sum(scores[p][labels == label].sum() for p, labels in LABELS.items())
             for label in (1, 2, 3, 4, 7, 8, 9)}
    safe = set()
    for labels in LABELS.values():
        own = sorted(set(labels[labels >= 0]), key=lambda label: -total[label])
        safe |= set(own[:max(1, int(np.ceil(floor * len(own))))])
    free = sorted(set(total) - safe, key=lambda label: total[label])
    gone = set(free[:round(sparsity * len(total))])
    for path, labels in LABELS.items():
        assert masks[path].tolist() == [float(label not in gone) for label in labels]


@given(st.integers(0, 30), st.floats(0, 0.9))
def test_regrowth_keeps_the_count(seed, share):
    rng = np.random.default_rng(seed)
    mask = (rng.random((5, 4)) < 0.5).astype("float32")
    new = regrown(mask, rng.random((5, 4)), rng.random((5, 4)), share)
    count = min(round(share * mask.sum()), int((mask == 0).sum()))
    assert new.sum() == mask.sum() and ((mask == 1) & (new == 0)).sum() == count


@pytest.mark.parametrize("name", ["4:2", "0:4", "0x4", "4x", "rows", None])
def test_an_unknown_granularity_names_the_known(name):
    with pytest.raises(ValueError, match="Unknown granularity.*'filter'.*'4x4'.*'2:4'"):
        Prune(Constant(0.5), granularity=name)


@pytest.mark.parametrize(("options", "message"), [
    ({"granularity": "1:4"}, "'1:4' makes a sparsity of 0.75"), ({"soft": True}, "soft=True takes whole filters"),
    ({"granularity": "filter", "regrow": 0.1}, "`regrow`"), ({"regrow": 1.0}, "`regrow`"),
    ({"granularity": "filter", "soft": True}, "needs an end"), ({"regrow": 0.1}, "needs an end"),
])
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=f"{message}.*Received"):
        Prune(Constant(0.5), **options)


def test_scores_of_filters_can_not_take_single_weights():
    with pytest.raises(ValueError, match=r"'l2_norm' gives one score a filter.*scores \(3,\) for 'w' \(2, 3\)"):
        Prune(Constant(0.5), "l2_norm").update({"w": random(2, 3)}, {"w": {}}, 0)


def test_groups_need_a_model_and_plain_networks():
    with pytest.raises(ValueError, match="Received: model=None"):
        Prune(Constant(0.5), granularity="group").update({"w": random(2, 3)}, {"w": {}}, 0)
    with pytest.raises(ValueError, match="quantization-aware.*Prune first"):
        compress(quantize_aware(image_net()), Prune(Constant(0.5), granularity="group"))


# ---- vectors ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "expected"), {
    "dense": {"bias": (3,)}, "depthwise2d": {"bias": (4,)}, "separable2d": {"bias": (3,)},
    "transpose2d": {"bias": (3,)},
    "attention": {"query/bias": (6,), "key/bias": (6,), "value/bias": (6,), "attention_output/bias": (8,)},
    "lstm": {"lstm_cell/bias": (12,)}, "gru": {"gru_cell/bias": (2, 9)}, "einsum": {},
}.items())
def test_vectors_count_the_channels_of_a_kernel(name, expected):
    layer = next(layer for _, layer in leaves(LAYERS[name]()) if kernels(layer))
    found = vectors(layer)
    assert {key: view.canonical for key, (_, view) in found.items()} == expected
    channels = {key.rpartition("/")[0]: view.canonical[-1] for key, (_, view) in kernels(layer).items()}
    for key, (_, view) in found.items():
        assert view.canonical[-1] == channels[key.rpartition("/")[0]]
        values = np.arange(np.prod(view.shape)).reshape(view.shape)
        np.testing.assert_array_equal(view.back(view.to(values, np), np), values)


def test_gamma_and_beta_of_a_batch_norm_are_vectors_those_of_a_layer_norm_not():
    model = keras.Sequential([keras.Input((4, 4, 3)), L.BatchNormalization(name="bn"), L.LayerNormalization(name="ln"),
                              L.BatchNormalization(scale=False, name="shift")])
    assert {path: list(vectors(layer)) for path, layer in leaves(model)} == {
        "bn": ["gamma", "beta"], "ln": [], "shift": ["beta"]}


def zeros_of(plain, path):
    """Which output channels of a tensor of a plain model are zero."""
    layer, _, key = path.rpartition("/")
    variable, view = {**kernels(dict(leaves(plain))[layer]), **vectors(dict(leaves(plain))[layer])}[key]
    return (view.to(variable.numpy(), np).reshape(-1, view.canonical[-1]) == 0).all(0)


def residual():
    """Two branches added, a dense block concatenated, and a convolution whose norm stands in front of it."""
    i = keras.Input((8, 8, 3))
    x = L.ReLU()(L.BatchNormalization(name="n1")(L.Conv2D(8, 3, padding="same", use_bias=False, name="c1")(i)))
    y = L.ReLU()(L.BatchNormalization(name="n2")(L.Conv2D(6, 3, padding="same", name="c2")(x)))
    y = L.BatchNormalization(name="n3")(L.Conv2D(8, 3, padding="same", name="c3")(y))
    x = L.Concatenate()([L.ReLU()(x + y), L.Conv2D(4, 1, name="c4", use_bias=False)(x)])
    x = L.DepthwiseConv2D(3, name="dw", use_bias=False)(L.ReLU()(L.BatchNormalization(name="n5")(x)))
    return keras.Model(i, L.Dense(3, name="head")(L.GlobalAveragePooling2D()(x)))


def randomized(model):
    """``model`` with noise in every weight, so that a gamma or beta is zero only where it was pruned."""
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, w.shape) for w in model.get_weights()])
    return model


def pruned_now(model, data=None):
    """The callback of ``model``, compiled, after the update at step 0."""
    callback = CompressionCallback(4, data)
    callback.set_model(compiled(model))
    callback.on_train_begin()
    return callback


BODY = {"c1": 8, "c2": 6, "c3": 8, "c4": 4, "dw": 12}               # filters; those of c1, c3, dw and of c4, dw coupled


@pytest.mark.parametrize("name", ["filter", "group", "global filter"])
def test_a_filter_takes_its_bias_gamma_and_beta_along(name):
    model = compress(randomized(residual()), Prune(OneShot(0.5), "l2_norm", name))
    pruned_now(model)
    plain = strip(model)
    x = image_data(16)[0]
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-4)
    assert type(plain.get_layer("n1")) is L.BatchNormalization and not zeros_of(plain, "head/kernel").any()
    gone = {path: zeros_of(plain, f"{path}/kernel") for path in BODY}
    count = {path: int(zeros.sum()) for path, zeros in gone.items()}
    np.testing.assert_array_equal(zeros_of(plain, "c2/bias"), gone["c2"])
    for vector in ("n2/gamma", "n2/beta"):
        np.testing.assert_array_equal(zeros_of(plain, vector), gone["c2"])
    if name == "global filter":
        assert sum(count.values()) == sum(BODY.values()) / 2         # exact, and each layer for itself
        return
    if name == "filter":
        assert count == {path: size / 2 for path, size in BODY.items()}
    else:
        assert count["c1"] + count["c2"] + count["c4"] == 9 and len({count[p] / BODY[p] for p in count}) > 1
    for coupled in ("n1/gamma", "n1/beta", "c3/kernel", "c3/bias", "n3/gamma", "n3/beta"):
        np.testing.assert_array_equal(zeros_of(plain, coupled), gone["c1"], err_msg=coupled)
    for coupled in ("dw/kernel", "n5/gamma", "n5/beta"):
        np.testing.assert_array_equal(zeros_of(plain, coupled), np.concatenate([gone["c1"], gone["c4"]]))


@pytest.mark.slow
def test_a_wrapped_batch_norm_trains_fused_and_is_saved(tmp_path):
    base = compiled(image_net(), run_eagerly=True)
    model = compiled(compress(base, Prune(Polynomial(0.5, 0, 4), "l2_norm", "group")), run_eagerly=True)
    assert type(model.get_layer("bn").layer) is FusedBatchNormalization
    x, y = image_data(64)
    for net in (base, model):                                        # no callback: nothing is masked yet
        net.fit(x, y, shuffle=False, verbose=0)
    for one, two in zip(base.get_layer("bn").variables, model.get_layer("bn").layer.variables, strict=True):
        np.testing.assert_allclose(two.numpy(), one.numpy(), rtol=1e-3, atol=1e-5, err_msg=one.path)
    model.fit(x, y, verbose=0, epochs=2, callbacks=[CompressionCallback(2)])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), model(x))
    np.testing.assert_allclose(strip(again)(x), model(x), atol=1e-5)
    assert zeros_of(strip(again), "bn/beta").sum() == 4


def test_masks_of_vectors_follow_every_kernel_of_their_label():
    """Only one of two added branches is pruned: the norm behind the sum lives on through the other."""
    plain = residual()
    scores = {"c1/kernel": np.arange(8.0)}
    weights = {"c1/kernel": np.ones((3, 3, 3, 8)), "n1/gamma": np.ones(8), "n2/beta": np.ones(6)}
    masks = filter_masks("filter", weights, scores, 0.5, plain)
    assert masks["c1/kernel"].tolist() == [0] * 4 + [1] * 4 and masks["n1/gamma"].min() == 1    # c3, dw are not zero
    for path in ("c3", "dw"):
        kernel = plain.get_layer(path).kernel
        values = kernel.numpy()
        values.reshape(-1, values.shape[-1] if path == "c3" else values.shape[-2])[:, :4] = 0
        kernel.assign(values)
    masks = filter_masks("filter", weights, scores, 0.5, plain)
    assert masks["n1/gamma"].tolist() == [0] * 4 + [1] * 4 and masks["n2/beta"].min() == 1
    labels = channel_labels(plain)
    assert not set(labels["c1/kernel"][:4]) & set(alive({"c1/kernel": masks["c1/kernel"]}, labels, plain))


@pytest.mark.parametrize("twice", [False, True])
def test_a_chain_prunes_the_vectors_and_quantizes_the_kernels_only(twice):
    prune, base = Prune(OneShot(0.5), "l2_norm", "group"), randomized(residual())
    model = compress(compress(base, prune), Uniform(4)) if twice else compress(base, Chain((prune, Uniform(4))))
    methods = {path: layer.methods[key] for path, layer, key in compressed_tensors(model)}
    assert methods["n1/gamma"] == methods["c2/bias"] == prune and methods["c1/kernel"] == Chain((prune, Uniform(4)))
    pruned_now(model)
    plain = strip(model)
    assert 0 < zeros_of(plain, "c1/kernel").sum() < 8
    for other in ("n1/gamma", "n1/beta", "n3/gamma"):
        np.testing.assert_array_equal(zeros_of(plain, "c1/kernel"), zeros_of(plain, other))


def test_a_pruned_network_becomes_quantization_aware_and_its_filters_stay_gone():
    model = compress(randomized(image_net()), Prune(OneShot(0.5), "l2_norm", "filter"))
    pruned_now(model)
    plain, x = strip(model), image_data(32)[0]
    aware = quantize_aware(plain)
    calibrate(aware, x)
    gone = zeros_of(plain, "conv/kernel")
    assert gone.sum() == 4
    np.testing.assert_array_equal((aware.get_layer("conv").baked("kernel") == 0).all((0, 1, 2)), gone)
    np.testing.assert_array_equal(aware.get_layer("conv").layer.bias.numpy() == 0, gone)
    expected = np.asarray(plain(x))
    assert np.abs(np.asarray(aware(x)) - expected).max() < 0.05 * np.abs(expected).max()


def test_criteria_see_a_plain_twin_with_the_masked_weights_and_the_loss(monkeypatch):
    from tfcompress.pruning import prune
    seen = []

    def criterion(weights, model, data):
        assert not any(type(layer).__module__.startswith("tfcompress") for _, layer in leaves(model))
        assert not any(path.endswith(("bias", "gamma", "beta")) for path in weights)
        seen.append((model, int(zeros_of(model, "c1/kernel").sum()), float(model.evaluate(*data, verbose=0))))
        return {path: np.arange(w.shape[-1]) for path, w in weights.items()}

    monkeypatch.setitem(prune.CRITERIA, "taylor", criterion)
    base, data = compiled(residual()), image_data(32)
    callback = pruned_now(compress(base, Prune(Linear(0.5, 0, 8), "taylor", "filter")), data)
    callback.update(4)
    callback.update(8)
    assert [zeros for _, zeros, _ in seen] == [0, 0, 2] and len({id(twin) for twin, _, _ in seen}) == 1
    np.testing.assert_allclose(seen[0][2], base.evaluate(*data, verbose=0)[0], rtol=1e-5)
    assert zeros_of(strip(callback.model), "c1/kernel").tolist() == [True] * 4 + [False] * 4
    callback.update(12)                                              # done: nobody looks any more
    assert len(seen) == 3


# ---- regrowth ---------------------------------------------------------------------------------------------------
def test_what_comes_back_starts_from_zero_wherever_momentum_took_it(monkeypatch):
    slopes = {"w": np.array([0.0, 0, 0, 0, 2, 1])}
    monkeypatch.setattr("tfcompress.pruning.prune.mean_slopes", lambda *_: (slopes, None))
    method, mask = Prune(Constant(0.5, end=9), regrow=0.34), np.array([1.0, 1, 1, 0, 0, 0])
    state = {"w": {**method.init(mask), "mask": mask}}
    new = method.update({"w": np.array([3.0, 1, 2, 9, 9, 9])}, state, 0)["w"]
    assert new["mask"].tolist() == [1, 0, 1, 0, 1, 0] and new["weight"].tolist() == [3, 0, 2, 0, 0, 0]
    last = method.update({"w": np.array([3.0, 1, 2, 9, 0.5, 9])}, {"w": new}, 9)["w"]
    assert last["mask"].tolist() == [1, 0, 1, 0, 1, 0] and last["weight"].tolist() == [3, 0, 2, 0, 0.5, 0]


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.34])
def test_regrowth_brings_a_useful_weight_back(share):
    """y = 3 x0: weight 0 starts at zero and is pruned with the useless; only its gradient says that it is needed."""
    x = np.random.default_rng(0).standard_normal((256, 8)).astype("float32")
    y, i, counts = 3 * x[:, :1], keras.Input((8,)), set()
    base = keras.Model(i, L.Dense(1, use_bias=False, name="out")(i))
    base.get_layer("out").kernel.assign(np.linspace(0, 0.7, 8, dtype="float32")[:, None])
    model = compress(base, Prune(Constant(0.625, end=24), regrow=share), include_head=True)
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: counts.add(
        int(np.count_nonzero(model.get_layer("out").values("kernel")["mask"]))))
    model.fit(x, y, epochs=4, batch_size=32, verbose=0, callbacks=[CompressionCallback(4, (x, y)), watch])
    w = strip(model).get_layer("out").kernel.numpy().ravel()
    assert counts == {3} and np.count_nonzero(w) == 3
    assert w[0] > 2.5 if share else w[0] == 0
