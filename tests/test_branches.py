"""`factorize` with kinds="sparse": two branches, low rank and sparse, and zeros that stay."""

import keras
import numpy as np
import pytest

import tfcompress as tc
from tfcompress.lowrank.factorize import factorize
from tfcompress.measure import run

L = keras.layers


def split(shape, rank, share, seed):
    """A kernel of rank ``rank`` plus a share of large entries, and where these are."""
    rng = np.random.default_rng(seed)
    rows, columns = int(np.prod(shape[:-1])), shape[-1]
    low = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns)) / 10
    at = (rng.permutation(low.size) < round(share * low.size)).reshape(low.shape)
    large = rng.choice([-1, 1], low.shape) * rng.uniform(0.5, 1.0, low.shape)
    return (low + at * large).reshape(shape), at.reshape(shape)


@pytest.fixture(scope="module")
def planted():
    """A convolution and a dense layer of rank 3 plus 3 % large entries: the model, and where the entries are."""
    keras.utils.set_random_seed(9)
    model = keras.Sequential([
        keras.Input((8, 8, 16)), L.Conv2D(32, 3, 2, padding="same", activation="relu", name="conv"), L.Flatten(),
        L.Dense(48, name="wide")])
    where = {}
    for name in ("conv", "wide"):
        layer = model.get_layer(name)
        kernel, where[name] = split(layer.kernel.shape, 3, 0.03, seed=len(name))
        layer.set_weights([kernel, np.linspace(-0.1, 0.1, kernel.shape[-1])])
    return model, where


@pytest.fixture(scope="module")
def two_branches(planted):
    return factorize(planted[0], rank="ebic", kinds="sparse")


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(3).standard_normal((64, 8, 8, 16)).astype("float32")


def zeros(model, where):
    return {name: int((model.get_layer(f"{name}_sparse").kernel.numpy() == 0).sum()) for name in where}


def test_planted_sparse_plus_low_rank_is_found_exactly(planted, two_branches, pictures, tmp_path):
    (model, where), found = planted, two_branches
    assert [layer.name for layer in found.model.layers if not isinstance(layer, L.Flatten)][1:] == [
        "conv_factor1", "conv_factor2", "conv_sparse", "conv_sum", "conv", "wide_factor1", "wide_factor2",
        "wide_sparse", "wide"]
    for layer in found.layers:
        assert layer.kind == "sparse" and layer.ranks == (3, where[layer.name].sum())
        sparse = found.model.get_layer(f"{layer.name}_sparse").kernel.numpy()
        np.testing.assert_array_equal(sparse != 0, where[layer.name])
    given = model.predict(pictures, verbose=0)
    np.testing.assert_allclose(found.model.predict(pictures, verbose=0), given, atol=1e-4)
    found.model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.predict(pictures, verbose=0), found.model.predict(pictures, verbose=0))


def test_sparse_branches_are_told_for_what_they_are(planted, two_branches):
    whole, file = tc.convert(planted[0]), tc.convert(two_branches.model)
    seen, before = tc.inspect(file), tc.inspect(whole)
    assert seen.macs == two_branches.macs > two_branches.macs_before == before.macs
    assert two_branches.parameters == sum(w.numpy().size for w in two_branches.model.weights if w.name == "kernel")
    assert two_branches.nonzeros == sum(np.count_nonzero(w) for w in two_branches.model.weights if w.name == "kernel")
    assert "x more" in str(two_branches) and str(two_branches).count("smaller only packed") == 2
    assert file.size > whole.size and len(tc.pack(file)) < len(tc.pack(whole)) / 5
    assert seen.gzip_bytes < before.gzip_bytes / 4


def test_training_keeps_the_zeros_of_sparse_branches(planted, two_branches, pictures):
    (model, where), found, y = planted, two_branches, np.zeros((64, 48), "float32")
    held = tc.compress(found.model, found.rules)
    held.compile(keras.optimizers.Adam(1e-2), "mse")
    held.fit(pictures, y, epochs=2, verbose=0, callbacks=[tc.CompressionCallback()])
    trained = tc.strip(held)
    assert zeros(trained, where) == zeros(found.model, where)
    before, after = (m.get_layer("wide_sparse").kernel.numpy() for m in (found.model, trained))
    assert np.all((before == 0) == (after == 0)) and np.abs(after - before)[before != 0].min() > 0

    def fit(given, number):
        given.compile(keras.optimizers.Adam(1e-2), "mse")
        given.fit(pictures, y, verbose=0)

    for options in (dict(fit=fit), dict(fit=1, data=(pictures, None), teacher=True)):
        tuned = factorize(model, {"nonzeros": 0.2}, kinds="sparse", **options)
        assert tuned.nonzeros <= 0.2 * tuned.parameters_before
        kept = {layer.name: layer.parameters for layer in tuned.layers if layer.kind}
        assert zeros(tuned.model, kept) == {layer.name: layer.parameters - layer.nonzeros for layer in tuned.layers
                                            if layer.kind}
        assert type(tuned.model.get_layer("wide_sparse")) is L.Dense


def test_sparse_branches_and_other_methods(two_branches, pictures):
    aware = tc.quantize_aware(two_branches.model)
    tc.calibrate(aware, pictures)
    given = aware.predict(pictures, verbose=0)
    made = run(tc.convert(aware, "int8"), pictures)[0]
    np.testing.assert_allclose(made, given, atol=np.ptp(given) / 100)
    assert tc.convert(two_branches.model, "int8", calibration=pictures).size < tc.convert(two_branches.model).size / 2


@pytest.mark.parametrize("make", [
    lambda: L.Conv1D(24, 3, padding="causal", dilation_rate=2, use_bias=False, name="layer"),
    lambda: L.Conv1D(24, 1, 2, activation="tanh", name="layer"), lambda: L.Dense(24, "softmax", name="layer")])
def test_sparse_branches_of_other_layers_called_twice(make):
    keras.utils.set_random_seed(10)
    a, b, layer = keras.Input((12, 40)), keras.Input((12, 40)), make()
    model = keras.Model([a, b], L.Add(name="both")([layer(a), layer(b)]))
    layer.kernel.assign(split(layer.kernel.shape, 2, 0.02, 0)[0])
    found = factorize(model, rank="ebic", kinds="sparse")
    assert [row.kind for row in found.layers] == ["sparse"]
    x = [np.random.default_rng(i).standard_normal((5, 12, 40)).astype("float32") for i in range(2)]
    np.testing.assert_allclose(found.model.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-4)


def test_sparse_is_for_kernels_that_have_it():
    keras.utils.set_random_seed(11)
    inputs = keras.Input((9, 20))
    model = keras.Model(inputs, L.Dense(40, name="out")(L.LSTM(24, name="rnn")(inputs)))
    found = factorize(model, {"nonzeros": 0.8}, kinds=("svd", "sparse"))
    assert found.nonzeros <= 0.8 * found.parameters_before
    assert all(row.kind != "sparse" for row in found.layers if row.name.startswith("rnn"))
    assert factorize(model, rank="ebic", kinds="sparse").macs == found.macs_before      # noise alone: all stays whole
