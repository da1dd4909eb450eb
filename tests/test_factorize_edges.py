"""`factorize` at its edges: bad input, layers it does not know, a second time, other processes, small things kept."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import tfcompress as tc
from tfcompress.graph import Graph
from tfcompress.kept import digest
from tfcompress.lowrank import plan
from tfcompress.lowrank.factorize import factorize
from tfcompress.lowrank.items import found

L = keras.layers


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    return keras.Sequential([
        keras.Input((12, 12, 3)), L.Conv2D(16, 3, padding="same", activation="relu", name="conv"), L.Flatten(),
        L.Dense(64, "relu", name="hidden"), L.Dense(4, "softmax", name="classes")])


@pytest.fixture(scope="module")
def convolutions():
    keras.utils.set_random_seed(0)
    return keras.Sequential([
        keras.Input((12, 12, 16)), L.Conv2D(32, 3, padding="same", activation="relu", name="conv"),
        L.Conv2D(32, 3, padding="same", name="hidden"), L.GlobalAveragePooling2D(), L.Dense(4, name="classes")])


@pytest.mark.parametrize(("arguments", "words"), [
    (dict(target=2.0, rank="energy"), "share of energy"), (dict(target=0.5, rank="vbmf"), "leave the target out"),
    (dict(target=0.5, rank="bayes"), "Unknown rank"), (dict(target=0.5, kinds="lu"), "kinds"),
    (dict(target=0.9, rank="energy", kinds="cp"), "rank='budget'"), (dict(target=None), "multiply-accumulates"),
    (dict(target={"time": 0.5}), "multiply-accumulates"), (dict(target=1e12), "nothing to save"),
    (dict(target=0.5, round_to=0), "round_to"), (dict(target=0.5, fit=-1), "epochs"),
    (dict(target=0.5, fit=1, teacher=True), "needs data"), (dict(target=0.5, kinds="sparse"), '"nonzeros": 0.3'),
    (dict(target={"flops": 0.5}, kinds=("svd", "sparse")), '"nonzeros": 0.3'),
    (dict(target=0.9, rank="energy", kinds="sparse"), "rank='ebic'"),
])
def test_errors_say_what_was_wanted(net, arguments, words):
    with pytest.raises(ValueError, match=words):
        factorize(net, **arguments)


@pytest.mark.parametrize(("data", "words"), [
    (np.zeros((8, 12, 12)), "takes samples of shape"), (np.zeros((0, 12, 12, 3)), "counts of samples"),
    ((np.zeros((8, 12, 12, 3)), np.zeros(7)), "counts of samples"), (np.full((8, 12, 12, 3), np.nan), "not finite"),
    (np.full((8, 12, 12, 3), "a"), "not finite numbers"), ([np.zeros((8, 12, 12, 3))] * 2, "2 array"),
])
def test_data_that_the_model_can_not_take(net, data, words):
    with pytest.raises(ValueError, match=words):
        factorize(net, 0.5, data=data)


def test_open_sizes_are_refused():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, L.GlobalAveragePooling2D()(L.Conv2D(8, 3, name="conv")(inputs)))
    with pytest.raises(ValueError, match="'conv' leaves sizes open"):
        factorize(model, 0.5)


def test_nothing_to_factorize_is_told():
    model = keras.Sequential([keras.Input((8, 8, 3)), L.DepthwiseConv2D(3, name="depthwise"), L.Flatten()])
    with pytest.raises(ValueError, match="No kernel .* can be factorised: .*depthwise"):
        factorize(model, 0.5)


@pytest.mark.parametrize(("options", "words"), [
    (dict(fit=2), "no data"), (dict(fit=2, data=np.zeros((8, 12, 12, 3))), "x alone"),
    (dict(teacher=True, data=np.zeros((8, 12, 12, 3))), "fit=0"),
    (dict(fit=lambda model, number: None, teacher=True), "beside a fit of your own"),
    (dict(data=(np.zeros((8, 12, 12, 3)), np.zeros(8), np.ones(8))), "tuple of 3"),
])
def test_training_that_would_not_take_place_is_refused(net, options, words):
    with pytest.raises(ValueError, match=words):
        factorize(net, 0.5, **options)


def test_a_quantization_aware_model_comes_too_late(net):
    with pytest.raises(ValueError, match="factorised before quantize_aware"):
        factorize(tc.quantize_aware(net), 0.5)


# ---- folders ----------------------------------------------------------------------------------------------------
def test_data_without_labels_is_known_again_in_another_process():
    code = "import numpy; from tfcompress.kept import digest; print(digest((numpy.ones((2, 3), 'float32'), None)))"
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert again.stdout.strip() == digest((np.ones((2, 3), "float32"), None)) != digest(np.ones((2, 3), "float32"))


@pytest.mark.parametrize("other", [dict(fit=1), dict(fit=2, teacher=True)])
def test_a_folder_does_not_pass_off_another_training(net, tmp_path, other):
    x = np.random.default_rng(0).standard_normal((16, 12, 12, 3)).astype("float32")
    options = dict(data=(x, np.arange(16) % 4), folder=tmp_path)
    factorize(net, 0.5, fit=2, **options)
    with pytest.raises(ValueError, match="fit: 2 -> 1" if other["fit"] == 1 else "teacher: None -> "):
        factorize(net, 0.5, **options, **other)


# ---- a second time, and what is kept ----------------------------------------------------------------------------
def test_a_factorised_model_is_factorised_again(convolutions):
    net = convolutions
    once = factorize(net, 0.5)
    again = factorize(once.model, 0.5)
    names = [layer.name for layer in again.model.layers]
    assert len(set(names)) == len(names) and "hidden_factor1_2" in names and names[-1] == "classes"
    assert again.macs <= again.macs_before / 2 == once.macs / 2
    branches = factorize(factorize(net, {"nonzeros": 0.5}, kinds="sparse").model, {"nonzeros": 0.6}, kinds="sparse")
    assert branches.nonzeros <= 0.6 * branches.parameters_before and len(branches.rules) > 0


def test_regularizers_stay():
    dense = L.Dense(64, name="a", kernel_regularizer="l1", bias_regularizer="l2", activity_regularizer="l2")
    model = keras.Sequential([keras.Input((64,)), dense, L.ReLU()])
    first, last = factorize(model, 0.5).model.layers[1:3]
    kinds = [[type(getattr(layer, f"{of}_regularizer")).__name__ for of in ("kernel", "bias", "activity")]
             for layer in (first, last)]
    assert kinds == [["L1", "NoneType", "NoneType"], ["L1", "L2", "L2"]]
    split = factorize(model, {"nonzeros": 0.5}, kinds="sparse").model
    assert [layer.name for layer in split.layers if layer.activity_regularizer] == ["a"]
    recurrent = keras.Sequential([keras.Input((5, 32)), L.LSTM(32, activity_regularizer="l2")])
    assert factorize(recurrent, 0.5).model.layers[-1].activity_regularizer is not None


def test_ranks_of_a_rule_are_rounded_up(net):
    found = factorize(net, 0.9, "energy", round_to=8)
    assert any(layer.ranks for layer in found.layers)
    assert all(rank % 8 == 0 or rank < 8 for layer in found.layers for rank in layer.ranks)


def test_what_is_lost_is_told_of_the_factors_themselves(convolutions):
    net = convolutions
    result = factorize(net, 0.4, kinds="cp")
    kept = [layer for layer in result.layers if layer.kind == "cp"]
    assert kept
    for layer in kept:
        kernel = net.get_layer(layer.name).kernel.numpy()
        parts = [result.model.get_layer(f"{layer.name}_factor{i}") for i in (1, 2, 3)]
        first, column, row = (part.kernel.numpy() for part in parts)
        last = result.model.get_layer(layer.name).kernel.numpy()[0, 0]
        whole = np.einsum("ir,yr,xr,ro->yxio", first[0, 0], column[:, 0, :, 0], row[0, :, :, 0], last)
        assert layer.error == pytest.approx(((kernel - whole) ** 2).sum() / (kernel**2).sum(), rel=1e-4)


def test_how_many_classes_stay_is_told(net):
    x = np.random.default_rng(0).standard_normal((64, 12, 12, 3)).astype("float32")
    found = factorize(net, 0.5, data=x)
    same = net.predict(x, verbose=0).argmax(-1) == found.model.predict(x, verbose=0).argmax(-1)
    assert found.agreement == same.mean() and f"{100 * same.mean():.1f} % of the samples" in str(found)
    assert factorize(net, 0.5).agreement is None
    nothing = factorize(net, rank="ebic")
    assert any(layer.kind for layer in nothing.layers) or "no kernel has factors" in str(nothing)


# ---- layers -----------------------------------------------------------------------------------------------------
def test_states_from_outside():
    a, b = keras.Input((6, 16)), keras.Input((7, 16))
    states = L.LSTM(32, return_state=True, name="encoder")(a)[1:]
    y = L.LSTM(32, return_sequences=True, name="decoder")(b, initial_state=states)
    y = L.Bidirectional(L.GRU(16), name="both")(y)
    found = factorize(keras.Model([a, b], L.Dense(3)(y)), 0.5)
    assert found.macs <= found.macs_before / 2 and {layer.kind for layer in found.layers} == {"svd", None}


def test_one_step_and_kept_states_with_data():
    x = np.random.default_rng(0).standard_normal((8, 1, 16)).astype("float32")
    model = keras.Sequential([keras.Input((1, 16)), L.LSTM(32), L.Dense(3)])
    assert factorize(model, 0.5, data=x).macs <= 4 * 32 * (16 + 32) / 2 + 96
    kept = keras.Sequential([keras.Input(batch_shape=(1, 5, 16)), L.LSTM(32, stateful=True, name="keeps"), L.Dense(3)])
    with pytest.raises(ValueError, match="stateful layers .*keeps"):
        factorize(kept, 0.5, data=np.zeros((4, 5, 16), "float32"))
    assert factorize(kept, 0.5).macs > 0


@pytest.mark.parametrize(("shapes", "layer", "macs"), [
    ([(5, 8, 8, 3)], L.ConvLSTM2D(4, 3, padding="same"), 5 * 64 * 9 * (3 + 4) * 16),
    ([(5, 8, 8, 3)], L.ConvLSTM2D(4, 3, return_sequences=True), 5 * 36 * 9 * (3 + 4) * 16),
    ([(6, 8)], L.EinsumDense("btd,dhk->bthk", output_shape=(None, 4, 10)), 6 * 8 * 40),
    ([(6, 8)], L.EinsumDense("...x,xy->...y", output_shape=12), 6 * 8 * 12),
    ([(6, 8), (9, 8), (9, 8)], L.MultiHeadAttention(2, 4), (6 + 9 + 9 + 6) * 64),
])
def test_macs_of_layers_without_factors(shapes, layer, macs):
    inputs = [keras.Input(shape) for shape in shapes]
    assert found(Graph(keras.Model(inputs, layer(*inputs))))[2] == macs


def test_the_outputs_of_a_regression_are_not_classes():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    assert plan.head_kind(model) is None
    for loss in ("sparse_categorical_crossentropy", keras.losses.CategoricalCrossentropy(from_logits=True)):
        model.compile(loss=loss)
        assert plan.head_kind(model) == "logits"
    model.compile(loss="mse")
    assert plan.head_kind(model) is None
    assert plan.head_kind(keras.Sequential([keras.Input((4,)), L.Dense(3, "softmax")])) == "softmax"
