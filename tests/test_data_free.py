"""Compression without data: each step against a known answer, then the whole on nets whose statistics are planted."""

import inspect as python_inspect
import itertools
from dataclasses import replace

import keras
import numpy as np
import pytest
import tf_keras
from small_models import normal

import tfcompress
from tfcompress.conversion import keras_model, source
from tfcompress.conversion.interpreter import Runner
from tfcompress.convert import TFLiteModel, convert
from tfcompress.data_free import adapt, choose, moments, plan, prior, ranges
from tfcompress.data_free.equalize import equalize
from tfcompress.data_free.expand import expand
from tfcompress.data_free.report import write_report
from tfcompress.data_free.rounding import round_kernel
from tfcompress.data_free.synthesis import synthesize
from tfcompress.flatbuffer import read
from tfcompress.measure import run

L = keras.layers


def loss(codes, exact, second):
    error = codes - exact
    return float(np.einsum("km,kn,nm->", error, second, error))


# ---- rounding -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(8))
def test_rounding_is_between_the_best_of_all_codes_and_the_nearest(seed):
    random = np.random.default_rng(seed)
    exact = random.uniform(-2.4, 2.4, (4, 1)).astype("float32")
    inputs = random.normal(size=(50, 4)) @ random.normal(size=(4, 4))
    second = (inputs.T @ inputs / 50).astype("float32")[None]
    codes = round_kernel(exact[None], second, np.ones((1, 1)), bits=3, sweeps=8, damping=0.0)[0]
    every = [np.array(c, "float32")[:, None] for c in itertools.product(range(-3, 4), repeat=4)]
    best = min(loss(c, exact, second[0]) for c in every)
    nearest = loss(np.rint(exact), exact, second[0])
    assert best <= loss(codes, exact, second[0]) <= nearest
    single = [codes + step * np.eye(4, dtype="float32")[:, at : at + 1] for at in range(4) for step in (-1, 1)]
    assert all(loss(codes, exact, second[0]) <= loss(c, exact, second[0]) + 1e-6 for c in single if abs(c).max() <= 3)


def test_inputs_that_have_nothing_in_common_are_rounded_to_the_nearest():
    exact = np.random.default_rng(0).uniform(-100, 100, (2, 9, 5)).astype("float32")
    codes = round_kernel(exact, np.eye(9, dtype="float32")[None].repeat(2, 0), np.ones((2, 5)))
    np.testing.assert_array_equal(codes, np.rint(exact))


# ---- what a file shows when it runs ---------------------------------------------------------------------------------
def conv_net():
    return keras.Sequential([
        keras.Input((9, 8, 3), name="x"), L.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="a"),
        L.DepthwiseConv2D((3, 2), padding="valid", dilation_rate=1, activation="relu", name="b"),
        L.Conv2D(5, 1, name="c"), L.GlobalAveragePooling2D(), L.Dense(4, name="d")])


def read_input(content):
    return Runner(content).accepts()["x"]


@pytest.fixture(scope="module")
def watched():
    content = convert(conv_net(), "float32").content
    x = prior.draw({"x": read_input(content)}, (), 12)["x"]
    return content, x, *moments.observe(content, x)


def test_moments_tell_how_large_what_a_layer_computes_is(watched):
    content, x, kernels, _, _ = watched
    file = read(content)
    assert [k.op for k in kernels] == ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "FULLY_CONNECTED"]
    model = conv_net_of(content)
    for kernel, wanted in zip(kernels, model(x), strict=True):
        weights = moments.columns(kernel.tensor.data, kernel.op)
        power = np.einsum("gkm,gkl,glm->", weights, kernel.second, weights) / np.prod(weights.shape[::2])
        np.testing.assert_allclose(power, np.mean(wanted**2), rtol=1e-4)
        back = moments.back(weights, kernel.op, kernel.tensor.shape)
        np.testing.assert_array_equal(back, kernel.tensor.data)
    assert len(file.graphs) == 1


def conv_net_of(content):
    """What each layer computes before its bias and activation, from the weights in the file."""
    data = [weight.data for weight in (k.tensor for k in moments.observe(content, normal(9, 8, 3, count=1))[0])]

    def compute(x):
        a = keras.ops.conv(x, data[0].transpose(1, 2, 3, 0), 2, "same")
        b = keras.ops.depthwise_conv(keras.ops.relu(a), data[1].transpose(1, 2, 3, 0), 1, "valid")
        c = keras.ops.conv(keras.ops.relu(b), data[2].transpose(1, 2, 3, 0), 1, "valid")
        d = keras.ops.mean(c, axis=(1, 2)) @ data[3].T
        return [np.asarray(y) for y in (a, b, c, d)]

    return compute


def test_biases_take_back_the_mean_of_what_rounding_does(watched):
    content, x, kernels, _, _ = watched
    found = adapt.nearest(kernels, 4)[:1]
    off = [np.abs(mean_of_first(adapt.apply(content, each), x) - mean_of_first(content, x)).max()
           for each in (uncorrected(found), found)]
    assert off[1] < 1e-5 < off[0]


def uncorrected(found):
    return [replace(one, shift=np.zeros_like(one.shift)) for one in found]


def mean_of_first(content, x):
    """Mean of each channel that the first layer computes, before its activation."""
    graph = read(content).graphs[0]
    kernel, bias = (graph.tensors[index].data for index in graph.ops[0].inputs[1:3])
    made = keras.ops.conv(x, kernel.transpose(1, 2, 3, 0), 2, "same")
    return np.asarray(keras.ops.mean(made, axis=(0, 1, 2))) + bias


def test_descent_loses_less_than_the_nearest_codes_and_codes_are_stored_as_they_are(watched):
    content, x, kernels, _, outputs = watched
    nearest = adapt.nearest(kernels, 4)
    better = adapt.descended(nearest)
    assert sum(one.error for one in better) < 0.9 * sum(one.error for one in nearest)
    floats, integers = adapt.apply(content, better), adapt.stored(content, better)
    np.testing.assert_allclose(run(integers, x)[0], run(floats, x)[0], atol=1e-5)
    noise = [np.square(run(adapt.apply(content, each), x)[0] - outputs[0]).sum() for each in (nearest, better)]
    assert noise[1] < noise[0]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_the_kind_of_rounding_is_the_one_that_answers_inputs_best(watched, at):
    """Answers are planted: those of one kind. Where no code moves them, nothing is descended."""
    content, x, kernels, _, _ = watched
    nearest = adapt.nearest(kernels, 4)
    descended = adapt.descended(nearest)
    kinds = [uncorrected(nearest), descended, uncorrected(descended)]
    planted = run(adapt.apply(content, kinds[at]), x)
    near = [planted[0] + 1e-3 * normal(*planted[0].shape[1:], count=len(x))]  # exactly equal would be "not moved"
    found = choose.better(content, nearest, {"x": x}, near, macs=1e4)
    for one, wanted in zip(found, kinds[at], strict=True):
        np.testing.assert_array_equal(one.codes, wanted.codes)
        np.testing.assert_array_equal(one.shift, wanted.shift)
    unmoved = run(adapt.apply(content, kinds[0]), x)
    assert choose.better(content, nearest, {"x": x}, unmoved, macs=1e4) is nearest


def test_the_plan_takes_bits_where_a_byte_costs_least():
    random = np.random.default_rng(0)
    coarse = 0.25 * random.integers(-7, 8, (64, 64)).astype("float32")  # loses nothing with four bits
    coarse[:, 0] = 1.75
    graph = keras.Sequential([keras.Input((64,), name="x"), L.Dense(64, name="fine"), L.Dense(64, name="coarse")])
    graph.layers[1].set_weights([coarse.T, np.zeros(64)])
    content = convert(graph, "float32").content
    kernels, _, _ = moments.observe(content, normal(64, count=64))
    found = plan.plan(kernels, to_save=1500)
    assert [one.bits for one in found.rounded] == [8, 4] and found.saved == 2048
    assert [one.bits for one in plan.plan(kernels, to_save=0).rounded] == [8, 8]
    assert {one.bits for one in plan.plan(kernels, to_save=10**6).rounded} == {2}


# ---- equalization ---------------------------------------------------------------------------------------------------
def uneven_net():
    """Convolution, ReLU, depthwise, sum, pool, dense; the channels in between are 1000 times apart."""
    inputs = keras.Input((8, 8, 3), name="x")
    x = L.Conv2D(6, 3, padding="same", activation="relu", name="a")(inputs)
    y = L.DepthwiseConv2D(3, padding="same", activation="relu", name="b")(x)
    y = L.Conv2D(6, 1, name="c")(y)
    x = L.GlobalAveragePooling2D()(L.MaxPooling2D()(L.Add()([x, y])))
    model = keras.Model(inputs, L.Dense(4, name="d")(x))
    uneven = np.float32([1, 30, 1000, 0.03, 0.001, 1])
    kernel, bias = model.get_layer("a").get_weights()
    model.get_layer("a").set_weights([kernel * uneven, bias])
    kernel, bias = model.get_layer("b").get_weights()
    model.get_layer("b").set_weights([kernel / uneven[:, None], bias])
    kernel, bias = model.get_layer("d").get_weights()
    model.get_layer("d").set_weights([kernel / uneven[:, None], bias])
    return model


def test_equalized_channels_give_the_same_outputs_and_lose_less_in_eight_bits():
    content, x = convert(uneven_net(), "float32").content, normal(8, 8, 3, count=32)
    _, spans, outputs = moments.observe(content, x)
    even, groups = equalize(content, read(content).graphs[0], spans)
    _, after, same = moments.observe(even, x)
    assert groups == 2
    np.testing.assert_allclose(same[0], outputs[0], rtol=1e-4, atol=1e-5 * np.abs(outputs[0]).max())
    first = read(content).graphs[0].ops[0].outputs[0]
    spread = [each[first][1].max() / each[first][1].min() for each in (spans, after)]
    assert spread[1] < spread[0] / 5


@pytest.mark.parametrize("change", ["relu6", "output", "concatenated"])
def test_channels_that_something_else_reads_or_cuts_off_stay(change):
    inputs = keras.Input((8, 8, 3), name="x")
    x = L.Conv2D(6, 3, activation="relu6" if change == "relu6" else "relu", name="a")(inputs)
    y = L.Conv2D(4, 1, name="b")(L.Concatenate()([x, x]) if change == "concatenated" else x)
    model = keras.Model(inputs, [x, y] if change == "output" else y)
    content = convert(model, "float32").content
    _, spans, _ = moments.observe(content, normal(8, 8, 3, count=8))
    assert equalize(content, read(content).graphs[0], spans) == (content, 0)


# ---- inputs ---------------------------------------------------------------------------------------------------------
def remembering(low, high, size=16):
    """A net whose batch normalizations have seen pictures in low..high."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((size, size, 3), name="x")]
    for filters in (8, 12):
        layers += [L.Conv2D(filters, 3, 1, "same", use_bias=False), L.BatchNormalization(momentum=0.0), L.ReLU()]
    model = keras.Sequential([*layers, L.GlobalAveragePooling2D(), L.Dense(4, "softmax")])
    spec = {"x": keras_model.inputs(source.read(model))["x"]}
    seen = prior.draw(spec, (), 64, (low, high), seed=99)["x"]
    model(seen, training=True)
    return model, seen


@pytest.mark.parametrize("limits", [(0.0, 255.0), (-1.0, 1.0)])
def test_the_range_of_the_inputs_is_found_and_statistics_are_met(limits):
    model, seen = remembering(*limits)
    origin = source.read(model)
    found = synthesize(origin, keras_model.inputs(origin), 1e5)
    assert found.limits == limits and found.norms == 2
    assert found.after < found.before < 10
    x = found.inputs["x"]
    assert x.min() >= limits[0] and x.max() <= limits[1]
    assert abs(x.mean() - seen.mean()) < 0.15 * (limits[1] - limits[0])
    again = synthesize(origin, keras_model.inputs(origin), 1e5).inputs["x"]
    np.testing.assert_array_equal(again, x)
    assert "call" not in vars(model.layers[1])


def test_a_model_that_remembers_nothing_gets_noise_and_says_so():
    origin = source.read(keras.Sequential([keras.Input((5,), name="x"), L.Dense(2)]))
    found = synthesize(origin, keras_model.inputs(origin), 10)
    assert found.norms == 0 and "no batch normalization" in str(found)


def test_dense_layers_on_features_get_the_nearest_codes():
    net = keras.Sequential([keras.Input((6, 4)), L.Flatten(), L.Dense(32, "relu"), L.Dense(5)])
    first, last = tfcompress.one_click(net).kernels
    assert first.kernel.samples == 0 and first.weights == 24 * 32 and not first.shift.any()
    np.testing.assert_array_equal(first.codes, adapt.nearest([first.kernel])[0].codes)
    assert last.kernel.samples > 0 and last.shift.any()


def test_filters_of_zeros_and_low_ranks_go_first():
    net = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(16, 3, activation="relu", name="conv"), L.Flatten(),
                            L.Dense(128, "relu", name="wide"), L.Dense(5)])  # fmt: skip
    random, conv, wide = np.random.default_rng(0), net.get_layer("conv"), net.get_layer("wide")
    conv.kernel.assign(conv.kernel.numpy() * (np.arange(16) < 6))
    wide.kernel.assign(random.normal(size=(576, 4)) @ random.normal(size=(4, 128)) / 50)
    found = tfcompress.one_click(net)
    assert sorted(one.weights for one in found.kernels) == sorted([3 * 9 * 6, 216 * 4, 4 * 128, 128 * 5])
    assert any("filters of zeros removed" in note for note in found.notes)
    assert any("wide: of rank 4" in note for note in found.notes)
    x = normal(8, 8, 3, count=32)
    wanted = net.predict(x, verbose=0)
    assert np.abs(found.file.predict(x) - wanted).max() < 0.03 * np.abs(wanted).max()


def test_known_ranges_are_set_and_averages_may_reach_what_they_average():
    model = keras.Sequential([keras.Input((8, 8, 3), name="x"), L.Conv2D(4, 3, activation="relu"),
                              L.GlobalAveragePooling2D(), L.Dense(3), L.Softmax()])
    graph = read(convert(model, "float32").content).graphs[0]
    _, spans, _ = moments.observe(convert(model, "float32").content, normal(8, 8, 3, count=4))
    settled = ranges.settle(graph, spans)
    made = {op.name: settled[graph.tensors[op.outputs[0]].name] for op in graph.ops}
    assert made["SOFTMAX"] == [0.0, 1.0]
    assert made["MEAN"][1] == pytest.approx(made["CONV_2D"][1])
    raw = spans[next(op for op in graph.ops if op.name == "FULLY_CONNECTED").outputs[0]]
    assert made["FULLY_CONNECTED"][1] == pytest.approx(ranges.MARGIN * max(raw[1].max(), 0))


# ---- the whole ------------------------------------------------------------------------------------------------------
def test_no_data_can_be_given():
    assert set(python_inspect.signature(tfcompress.one_click).parameters) == {"model_or_path", "target", "seed"}


@pytest.fixture(scope="module")
def seen_net():
    return remembering(-1.0, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("target, precision", [("small", "exact8"), ("fast", "int8"), (1.5, "exact8")])
def test_one_click(seen_net, target, precision):
    model, seen = seen_net
    found = tfcompress.one_click(model, target)
    assert found.met and found.file.precision == precision and len(found.file.gate.ran) == 4
    wanted = model.predict(seen, verbose=0)
    got = found.file.predict(seen)
    assert np.mean(got.argmax(1) == wanted.argmax(1)) > 0.9
    assert "no real data was seen" in str(found)
    assert tfcompress.unpack(found.packed) == found.file.content
    assert tfcompress.one_click(model, target).file.content == found.file.content


@pytest.mark.slow
def test_what_can_not_be_met_is_the_nearest(seen_net, tmp_path):
    found = tfcompress.one_click(seen_net[0], 1000)
    assert not found.met and {one.bits for one in found.kernels if one.weights >= plan.SMALLEST} <= {2}
    page = write_report(found, tmp_path / "net.html", title="net").read_text()
    assert "NOT MET" in str(found) and 'class="pick missed"' in page


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tflite", "saved_model", "h5", "lstm", "two inputs"])
def test_kinds_of_models(kind, tmp_path, seen_net):
    model, seen = seen_net
    given, x = model, seen
    if kind == "tflite":
        given = tmp_path / "m.tflite"
        convert(model, "float32").save(given)
    elif kind == "saved_model":
        given = tmp_path / "saved"
        model.export(given, verbose=False)
    elif kind == "h5":
        layers = [tf_keras.Input((8, 8, 3)), tf_keras.layers.Conv2D(4, 3), tf_keras.layers.BatchNormalization(),
                  tf_keras.layers.ReLU(), tf_keras.layers.Flatten(), tf_keras.layers.Dense(3)]
        model, x, given = tf_keras.Sequential(layers), normal(8, 8, 3, count=8), tmp_path / "m.h5"
        model.save(given)
    elif kind == "lstm":
        model = keras.Sequential([keras.Input((7, 3), name="x"), L.LSTM(8), L.Dense(4, "softmax")])
        given, x = model, normal(7, 3, count=8)
    elif kind == "two inputs":
        a, b = keras.Input((6, 3), name="a"), keras.Input((4,), name="b")
        model = keras.Model([a, b], L.Dense(3)(L.Concatenate()([L.Flatten()(L.Conv1D(4, 3)(a)), L.Dense(5)(b)])))
        given, x = model, {"a": normal(6, 3, count=8), "b": normal(4, count=8)}
    found = tfcompress.one_click(given, "fast")
    wanted = model.predict([x["a"], x["b"]] if isinstance(x, dict) else x, verbose=0)
    got = TFLiteModel(found.file.content).predict(x)
    assert np.sum((got - wanted) ** 2) < 0.02 * np.sum(wanted**2)
    if kind in ("tflite", "saved_model", "lstm", "two inputs"):
        assert found.file.precision == "dynamic" and any("tell too little" in note for note in found.notes)


@pytest.mark.parametrize("target", ["tiny", 0.5, 1, True, None, -3])
def test_bad_targets(target):
    with pytest.raises(ValueError, match="a ratio above 1"):
        tfcompress.one_click(conv_net(), target)


@pytest.mark.slow
def test_float16_weights_are_expanded_and_then_rounded(seen_net):
    model, seen = seen_net
    half = convert(model, "float16").content
    floats = expand(half)
    assert not any(op.name == "DEQUANTIZE" for op in read(floats).graphs[0].ops)
    np.testing.assert_allclose(run(floats, seen)[0], run(half, seen)[0], atol=1e-6)
    assert expand(floats) == floats and expand(expand(half)) == floats
    found = tfcompress.one_click(half, "fast")
    assert {one.bits for one in found.kernels} == {8} and len(found.kernels) == 3
    assert found.float_bytes == len(half)
