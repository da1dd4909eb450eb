"""`factorize` on whole models: budgets, rules, recurrent layers, resuming, and what comes before and after it."""

import re

import keras
import numpy as np
import pytest

import tfcompress as tc
from tfcompress.lowrank import factorize as module
from tfcompress.lowrank.factorize import factorize
from tfcompress.measure import run

L = keras.layers


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((12, 12, 3), name="image")
    for i, (filters, strides) in enumerate(((16, 1), (24, 2), (32, 1))):
        x = L.Conv2D(filters, 3, strides, padding="same", use_bias=False, name=f"conv{i}")(x)
        x = L.ReLU(name=f"relu{i}")(L.BatchNormalization(name=f"norm{i}")(x))
    x = L.Dense(64, "relu", name="hidden")(L.Flatten(name="flat")(x))
    model = keras.Model(inputs, L.Dense(4, "softmax", name="classes")(x), name="net")
    for weight in model.weights:                               # as if it had been trained
        if "variance" in weight.path or "gamma" in weight.path:
            weight.assign(np.random.default_rng(1).uniform(0.5, 1.5, weight.shape))
    return model


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(2).standard_normal((96, 12, 12, 3)).astype("float32")
    return x, np.arange(96) % 4


def low_rank(model, name, rank):
    """Make one kernel of a model of low rank."""
    kernel = model.get_layer(name).kernel
    flat = kernel.numpy().reshape(-1, kernel.shape[-1])
    u, s, vt = np.linalg.svd(flat, full_matrices=False)
    kernel.assign((u[:, :rank] * s[:rank] @ vt[:rank]).reshape(kernel.shape))


@pytest.mark.parametrize("kinds", ["auto", "svd", "tucker", "separable", ("svd", "cp")])
def test_budget_of_macs_is_held_by_the_file(net, kinds):
    found = factorize(net, 0.45, kinds=kinds)
    file = tc.convert(found.model)
    assert tc.inspect(file).macs == found.macs <= 0.45 * found.macs_before
    assert tc.inspect(tc.convert(net)).macs == found.macs_before
    assert found.parameters == sum(int(np.prod(w.shape)) for w in found.model.weights if "kernel" in w.name)
    for layer in found.layers:
        assert (layer.kind is None) == (layer.macs == layer.macs_before)
        assert layer.macs <= layer.macs_before and layer.parameters <= layer.parameters_before


def test_two_budgets_and_the_least_there_is(net):
    found = factorize(net, {"flops": 0.6, "bytes": 0.3})
    assert found.macs <= 0.6 * found.macs_before and found.parameters <= 0.3 * found.parameters_before
    with pytest.raises(ValueError, match=r"flops: .* asked, .* at least") as caught:
        factorize(net, 0.01)
    least = int(re.search(r"asked, ([\d,]+) at least", str(caught.value))[1].replace(",", ""))
    assert factorize(net, least).macs <= least


def test_the_programme_takes_the_least_damage():
    """Two kernels, all pairs of options tried by hand."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((30,)), L.Dense(40, name="a"), L.Dense(50, name="b")])
    from tfcompress.graph import Graph
    from tfcompress.lowrank.items import found as items_of
    from tfcompress.lowrank.options import options
    items, _, macs, _ = items_of(Graph(model))
    tables = [[(0.0, item.macs), *((-np.log(1 - o.error), o.macs) for o in options(item, ("svd",)))] for item in items]
    for share in (0.8, 0.5, 0.3):
        best = min(a[0] + b[0] for a in tables[0] for b in tables[1] if a[1] + b[1] <= share * macs)
        rows = factorize(model, share).layers
        assert sum(-np.log(1 - row.error) for row in rows) == pytest.approx(best, rel=1e-6)


def test_names_shapes_and_activations_stay(net):
    small = factorize(net, 0.4).model
    assert [t.shape for t in small.inputs] == [t.shape for t in net.inputs] and small.name == net.name
    kept = {layer.name for layer in net.layers if not isinstance(layer, L.BatchNormalization)}
    assert kept <= {layer.name for layer in small.layers}
    for name in ("conv1", "conv2", "hidden"):
        assert small.get_layer(name).output.shape == net.get_layer(name).output.shape
    assert small.get_layer("hidden").activation is keras.activations.relu


@pytest.mark.parametrize(("rule", "target"), [("energy", 0.999), ("vbmf", None), ("ebic", None)])
def test_planted_ranks_are_found_and_the_outputs_stay(data, rule, target):
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((12, 12, 3)), L.Conv2D(32, 3, padding="same", name="conv"), L.ReLU(),
                              L.Flatten(), L.Dense(96, name="hidden"), L.Dense(4, name="out")])
    low_rank(model, "conv", 5)
    low_rank(model, "hidden", 6)
    for name in ("conv", "hidden"):                            # a little noise: rules need some
        kernel = model.get_layer(name).kernel
        noise = np.random.default_rng(5).standard_normal(kernel.shape)
        kernel.assign(kernel.numpy() + 1e-4 * kernel.numpy().std() * noise)
    found = factorize(model, target, rule, kinds="svd")
    ranks = {layer.name: layer.ranks for layer in found.layers}
    assert ranks["conv"] == (5,) and ranks["hidden"] == (6,) and ranks["out"] == ()
    y, made = model.predict(data[0], verbose=0), found.model.predict(data[0], verbose=0)
    np.testing.assert_allclose(made, y, atol=2e-3 * np.abs(y).max())


def test_data_makes_outputs_nearer_and_tells_sensitivities(net, data):
    x = data[0] * np.linspace(0.1, 2, 3).astype("float32")
    given = np.log(net.predict(x, verbose=0))
    plain, aware = factorize(net, 0.35), factorize(net, 0.35, data=x)
    gaps = [np.mean((np.log(one.model.predict(x, verbose=0)) - given) ** 2) for one in (plain, aware)]
    assert gaps[1] < gaps[0]
    assert all(layer.sensitivity is None for layer in plain.layers)
    assert all(layer.sensitivity > 0 for layer in aware.layers if layer.name.startswith(("conv", "hidden")))
    assert "sensitivity" in str(aware) and f"{aware.macs:,}" in str(aware)


def test_sensitivity_is_the_change_when_the_layer_alone_goes(net, data):
    from tfcompress.distillation.losses import soft_targets
    found = factorize(net, 0.5, data=data[0], kinds="svd")
    row = next(layer for layer in found.layers if layer.kind)
    from tfcompress.graph import Graph
    from tfcompress.lowrank.items import found as items_of
    from tfcompress.lowrank.moments import moments
    from tfcompress.lowrank.options import factors, joined, options
    from tfcompress.lowrank.plan import probe
    from tfcompress.quantization.fold import fold_norms
    graph = Graph(net)
    fold_norms(graph)
    items, *_ = items_of(graph)
    item = next(item for item in items if item.name == row.name)
    c = moments(graph, [item], data[0])[item].covariance
    one = probe({item: options(item, ("svd",), c)}, item)
    alone = graph.build()
    alone.get_layer(row.name).kernel.assign(joined("svd", factors(item, "svd", one.ranks, c), item.kernel.shape))
    logits = [np.log(m.predict(data[0], verbose=0)) for m in (net, alone)]
    change = float(np.mean(soft_targets(*logits, 1.0)))
    assert row.sensitivity * one.error == pytest.approx(change, rel=1e-3)


@pytest.mark.parametrize("make", [
    lambda: L.LSTM(24, name="rnn"), lambda: L.GRU(24, return_sequences=True, name="rnn"),
    lambda: L.GRU(24, reset_after=False, use_bias=False, name="rnn"),
    lambda: L.Bidirectional(L.LSTM(24, go_backwards=False), name="rnn")],
    ids=["lstm", "gru", "gru_before", "both_ways"])
def test_recurrent_kernels_planted_and_by_budget(make, tmp_path):
    keras.utils.set_random_seed(6)
    inputs = keras.Input((9, 20))
    model = keras.Model(inputs, L.Dense(3, name="out")(make()(inputs)))
    for weight in model.weights:
        if "kernel" in weight.name and "out" not in weight.path:
            u, s, vt = np.linalg.svd(weight.numpy(), full_matrices=False)
            weight.assign(u[:, :3] * s[:3] @ vt[:3])
    x = np.random.default_rng(0).standard_normal((8, 9, 20)).astype("float32")
    y = model.predict(x, verbose=0)
    found = factorize(model, 0.99999, "energy")
    assert {layer.ranks for layer in found.layers if layer.kind} == {(3,)}
    np.testing.assert_allclose(found.model.predict(x, verbose=0), y, atol=1e-5)
    found.model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), found.model.predict(x, verbose=0))
    half = factorize(model, 0.5, data=x)
    assert half.macs <= 0.5 * half.macs_before
    assert tc.inspect(tc.convert(half.model)).macs == half.macs
    again.compile("adam", "mse")
    before = again.get_weights()
    again.fit(x, y, verbose=0)
    assert all(not np.array_equal(a, b) for a, b in zip(before, again.get_weights(), strict=True) if a.any())


def test_dropout_of_the_cells_is_random_in_training_alone():
    from tfcompress.lowrank.cells import LowRankGRUCell, LowRankLSTMCell
    for cell in (LowRankLSTMCell, LowRankGRUCell):
        layer = L.RNN(cell(6, input_rank=2, recurrent_rank=2, dropout=0.5, recurrent_dropout=0.5))
        x = np.ones((2, 4, 3), "float32")
        assert np.array_equal(layer(x), layer(x))
        assert not np.array_equal(layer(x, training=True), layer(x, training=True))


def test_shared_and_nested_layers():
    keras.utils.set_random_seed(7)
    shared = L.Dense(32, "relu", name="shared")
    a, b = keras.Input((32,), name="a"), keras.Input((32,), name="b")
    inner = keras.Sequential([keras.Input((32,)), L.Dense(48, name="d")], name="inner")
    x = L.Add()([shared(a), shared(b)])
    model = keras.Model([a, b], L.Dense(3, name="out")(inner(x)))
    found = factorize(model, 0.5)
    assert {layer.name for layer in found.layers} == {"shared", "inner/d", "out"}
    rows = [np.random.default_rng(i).standard_normal((5, 32)).astype("float32") for i in range(2)]
    assert found.model.predict(rows, verbose=0).shape == (5, 3)
    assert len({layer.name for layer in found.model.layers}) == len(found.model.layers)
    assert tc.inspect(tc.convert(found.model)).macs == found.macs


def test_what_has_no_factors_is_told(net):
    inputs = keras.Input((16, 16, 4))
    x = L.DepthwiseConv2D(3, name="deep")(inputs)
    x = L.Conv2D(8, 3, groups=2, name="grouped")(x)
    x = L.Conv2DTranspose(8, 3, name="up")(x)
    model = keras.Model(inputs, L.Dense(64, name="out")(L.Dense(64, name="wide")(L.Flatten()(x))))
    found = factorize(model, 0.8)
    assert dict(found.skipped) == {"deep": "no factors are known for a DepthwiseConv2D",
                                   "grouped": "a grouped convolution",
                                   "up": "no factors are known for a Conv2DTranspose"}
    assert "deep" in str(found)
    assert tc.inspect(tc.convert(found.model)).macs == found.macs


def test_epochs_bring_it_back_with_and_without_a_teacher(data):
    x = data[0]
    y = x[:, :6].mean((1, 2, 3)) > x[:, 6:].mean((1, 2, 3))
    keras.utils.set_random_seed(8)
    model = keras.Sequential([keras.Input((12, 12, 3)), L.Flatten(), L.Dense(64, "relu", name="wide"),
                              L.Dense(2, "softmax")])
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=15, verbose=0)

    def loss(one):
        return float(-np.log(one.predict(x, verbose=0)[np.arange(len(x)), y.astype(int)]).mean())

    raw = factorize(model, 0.05)
    for options in (dict(data=(x, y)), dict(data=(x, y), teacher=True), dict(data=(x, None), teacher=model)):
        tuned = factorize(model, 0.05, fit=15, **options)
        assert loss(tuned.model) < loss(raw.model)
    assert model.evaluate(x, y, verbose=0)[0] == pytest.approx(loss(model), rel=1e-4)    # the teacher did not move


def test_a_stopped_run_goes_on(net, data, tmp_path, monkeypatch):
    calls = []

    def measured(*args):
        calls.append(args[1].name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    real = module.sensitivity
    monkeypatch.setattr(module, "sensitivity", measured)
    with pytest.raises(KeyboardInterrupt):
        factorize(net, 0.5, data=data, folder=tmp_path)
    found = factorize(net, 0.5, data=data, folder=tmp_path)
    assert len(calls) == len(set(calls)) + 1                   # the one that was stopped, twice
    monkeypatch.setattr(module, "trained", None)               # whatever is kept is not made again
    again = factorize(net, 0.5, data=data, folder=tmp_path)
    assert len(calls) == len(set(calls)) + 1 and again.layers == found.layers
    for a, b in zip(again.model.get_weights(), found.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="target"):
        factorize(net, 0.6, data=data, folder=tmp_path)


def test_before_and_after_other_methods(net, data):
    pruned = tc.compress(net, tc.Prune(tc.OneShot(0.5), "l2_norm", "filter"))
    pruned.compile("adam", "sparse_categorical_crossentropy")
    pruned.fit(*data, epochs=1, verbose=0, callbacks=[tc.CompressionCallback()])
    found = factorize(tc.shrink(tc.strip(pruned)), 0.5)
    fewer = tc.prune_filters(found.model, data, 0.6, criterion="l2_norm", rounds=1, fit=0).model
    assert tc.inspect(tc.convert(fewer)).macs <= 0.6 * found.macs
    aware = tc.quantize_aware(fewer)
    tc.calibrate(aware, data[0])
    given = aware.predict(data[0], verbose=0)
    file = tc.convert(aware, "int8")
    np.testing.assert_allclose(run(file, data[0])[0], given, atol=1 / 256)
    binary = tc.compress(found.model, tc.Ternary())
    assert len(np.unique(tc.strip(binary).get_layer("conv2").kernel.numpy())) <= 3 * 32
    with pytest.raises(ValueError, match="strip"):
        factorize(pruned, 0.5)
