"""Exact files: planted codes and scales are in the file, its outputs are the Keras model's, it runs everywhere."""

import re

import keras
import numpy as np
import pytest

import tfcompress
from tfcompress import measure
from tfcompress.conversion import exact, pipeline
from tfcompress.conversion.worker import ConversionError
from tfcompress.convert import convert, convert_all
from tfcompress.flatbuffer import read
from tfcompress.quantization.activations import LeastSquaresActivation, quantize_activations
from tfcompress.quantization.uniform import Uniform
from tfcompress.weights import weights

L = keras.layers
RNG = np.random.default_rng(5)
EVERYWHERE = 4  # two run times, each with and without its default delegate


def signs(shape, low=-1):
    return RNG.integers(low, 2, shape)


def channel(count, low=0.05, high=0.2):
    return RNG.uniform(low, high, count).astype(np.float32)


def pick(levels, shape):
    return np.asarray(levels)[RNG.integers(0, len(levels), shape)]


def put(model, **kernels):
    """Plant kernels, by layer; returns them as float32, with the model."""
    for name, values in kernels.items():
        layer = model.get_layer(name)
        kernels[name] = np.asarray(values, np.float32)
        layer.kernel.assign(kernels[name])
    return model, kernels


def stored(file):
    """``{layer: its Weight}`` of a file, by the layer's name."""
    return {re.search(r"(\w+?)(_\d+)?/", w.tensor.name.removeprefix("net_1/"))[1]: w for w in weights(read(file))}


def as_kernel(values, op):
    """A tensor of the file in the layout of a Keras kernel."""
    return {"FULLY_CONNECTED": lambda: values.T, "CONV_2D": lambda: values.transpose(1, 2, 3, 0)}[op]()


def real(weight):
    """scale * code, as float32, in the layout of a Keras kernel."""
    tensor = weight.tensor
    shape = [-1 if k == tensor.axis else 1 for k in range(len(tensor.shape))] if tensor.scale.size > 1 else 1
    values = tensor.data.astype(np.float32) * tensor.scale.astype(np.float32).reshape(shape)
    return as_kernel(values, weight.op)


@pytest.fixture(scope="module")
def cnn():
    """A net of one layer of every kind of levels, with the float and the exact files."""
    keras.utils.set_random_seed(1)
    net = keras.Sequential([
        keras.Input((10, 10, 4)),
        L.Conv2D(24, 3, use_bias=False, name="ternary"), L.BatchNormalization(name="norm"), L.ReLU(),
        L.DepthwiseConv2D(3, name="depthwise"),
        L.Conv2D(16, 3, name="trained_ternary"), L.ReLU(),
        L.Conv2D(16, 2, name="two_bit"), L.ReLU(),
        L.Conv2D(8, 2, name="float"), L.Flatten(),
        L.Dense(32, name="powers"), L.Dense(40, name="cluster"), L.Dense(32, name="binary"),
    ], name="net")  # fmt: skip
    norm = net.get_layer("norm")
    for variable in (norm.gamma, norm.moving_variance):
        variable.assign(RNG.uniform(0.5, 1.5, 24))
    up = signs((3, 3, 24, 16))
    return put(
        net,
        ternary=signs((3, 3, 4, 24)) * np.float32(0.0731),
        depthwise=RNG.integers(-7, 8, (3, 3, 24, 1)) * channel((24, 1)),
        trained_ternary=np.where(up > 0, np.float32(0.0918), np.where(up < 0, np.float32(-0.0537), 0)),
        two_bit=pick([-1, 1], (2, 2, 16, 16)) * channel(16) + pick([-1, 1], (2, 2, 16, 16)) * channel(16, 0.01, 0.04),
        float=RNG.standard_normal((2, 2, 16, 8)) * 0.1,
        powers=pick([0, 1, -1, 2, -2, 4, -4], (32, 32)) * channel(32, 0.02, 0.04),
        cluster=pick(RNG.standard_normal(16).astype(np.float32) * 0.2, (32, 40)),
        binary=pick([-1, 1], (40, 32)) * channel(32),
    )


@pytest.fixture(scope="module")
def files(cnn):
    return convert_all(cnn[0], ("float32", "exact", "exact8"))


@pytest.mark.parametrize("precision", ["exact", "exact8"])
def test_outputs_are_the_models_and_the_file_runs_everywhere(cnn, files, precision):
    x = np.random.default_rng(0).standard_normal((20, 10, 10, 4)).astype("float32")
    expected, file = cnn[0].predict(x, verbose=0), files[precision]
    assert 0.1 < np.abs(expected).max() < 100
    assert np.abs(file.predict(x) - expected).max() < 1e-4
    assert len(file.gate.ran) == EVERYWHERE and file.gate.agreement[0].max_difference < 1e-4


def test_planted_codes_are_in_the_file(cnn, files):
    found, kernels = stored(files["exact"]), cnn[1]
    kinds = {name: weight.tensor.dtype for name, weight in found.items()}
    assert kinds == {
        "ternary": "int2", "depthwise": "int4", "trained_ternary": "int2", "two_bit": "int2", "float": "float32",
        "powers": "int4", "cluster": "int4", "binary": "int2",
    }  # fmt: skip
    for name in ("powers", "binary"):
        assert np.array_equal(real(found[name]), kernels[name]), name  # bit by bit
    codes = as_kernel(found["ternary"].tensor.data, "CONV_2D")
    assert np.array_equal(codes, np.sign(kernels["ternary"]))
    norm = cnn[0].get_layer("norm")
    folded = np.float32(0.0731) * norm.gamma / np.sqrt(norm.moving_variance + norm.epsilon)
    np.testing.assert_allclose(found["ternary"].tensor.scale, folded, rtol=1e-6)
    depth = found["depthwise"].tensor
    assert depth.axis == 3 and np.array_equal((depth.data * depth.scale)[0, :, :, :, None], kernels["depthwise"])
    assert np.array_equal(as_kernel(found["float"].tensor.data, "CONV_2D"), kernels["float"])


def test_uneven_levels_are_looked_up_or_have_two_slopes(cnn, files):
    found, kernels = stored(files["exact"]), cnn[1]
    for name in ("two_bit", "cluster"):  # channels hold what the table gives
        kernel = np.moveaxis(kernels[name], -1, 0).reshape(kernels[name].shape[-1], -1)
        order = np.moveaxis(as_kernel(found[name].channels.reshape(found[name].tensor.shape), found[name].op), -1, 0)
        assert np.array_equal(order.reshape(kernel.shape), kernel), name
    graph = read(files["exact"]).graphs[0]
    (slope,) = [graph.tensors[op.inputs[1]].data for op in graph.ops if op.name == "PRELU"]
    codes = found["trained_ternary"].tensor
    assert np.array_equal(as_kernel(codes.data, "CONV_2D"), np.sign(kernels["trained_ternary"]))
    assert codes.scale == np.float32(0.0918) and slope * codes.scale == pytest.approx(0.0537, rel=2e-7)


def test_levels_zeros_and_macs_are_those_of_the_float_file(files):
    whole, small = (tfcompress.inspect(files[name]) for name in ("float32", "exact"))
    assert (small.macs, small.parameters, small.sparsity) == (whole.macs, whole.parameters, whole.sparsity)
    counted = {name: (weight.levels, weight.zeros) for name, weight in stored(files["float32"]).items()}
    assert {name: (weight.levels, weight.zeros) for name, weight in stored(files["exact"]).items()} == counted
    levels = {"ternary": 3, "trained_ternary": 3, "two_bit": 4, "powers": 7, "binary": 2}
    assert {name: counted[name][0] for name in levels} == levels
    assert measure.levels(files["exact"]) == measure.levels(files["float32"])
    assert {weight.dtype for weight in small.weights} == {"int2", "int4", "float32"} and not small.float_islands
    assert any(op.dtype == "float32 * int2" and op.name == "CONV_2D" for op in small.ops)


def test_bytes_are_those_of_the_codes(cnn, files):
    bits = {"int2": 2, "int4": 4, "int8": 8, "float32": 32}
    held = {name: sum(w.tensor.size * bits[w.tensor.dtype] / 8 for w in weights(read(files[name]))) for name in files}
    assert held["float32"] > 4.8 * held["exact"] and held["exact"] < held["exact8"]
    for name in ("exact", "exact8"):  # scales, tables and the operations around the codes
        around = (files[name].size - held[name]) - (files["float32"].size - held["float32"])
        assert 0 < around < 1000 * len(cnn[1])


def test_notes_say_what_became_of_every_tensor(files):
    notes = "\n".join(files["exact"].gate.notes)
    assert "2 x int2 codes," in notes and "1 x int2 codes with two slopes" in notes
    assert "1 stay float32" in notes and "float" in notes and "looked up in tables at every run" in notes
    assert "4 x int8 codes" in "\n".join(files["exact8"].gate.notes)
    assert stored(files["exact8"])["powers"].tensor.dtype == "int8"


def test_a_sequence_net_keeps_a_scale_for_every_gate():
    keras.utils.set_random_seed(2)
    net = keras.Sequential([
        keras.Input((9, 12)), L.Conv1D(24, 3, name="conv"), L.LSTM(16, name="lstm"), L.Dense(24, name="head"),
        L.Dense(40, name="half"), L.Dense(30, name="wide"),
    ], name="net")  # fmt: skip
    put(
        net,
        conv=pick([-1, 1], (3, 12, 24)) * np.float32(0.11),
        head=Uniform(4).apply(channel((16, 24), -1, 1), {}),
        half=channel((24, 40), -1, 1).astype(np.float16),  # an adaptive float of 5 and 10 bits
        wide=np.append(0, RNG.integers(-2000, 2001, 40 * 30 - 1)).reshape(40, 30) * np.float32(0.000317),
    )
    gates = np.repeat(np.sqrt(np.float32([0.011, 0.005, 0.017, 0.037])), 16)
    cell = net.get_layer("lstm").cell
    cell.kernel.assign(signs((24, 64)) * gates)
    cell.recurrent_kernel.assign(RNG.integers(-3, 4, (16, 64)) * gates)
    file = convert(net, "exact")
    x = np.random.default_rng(0).standard_normal((8, 9, 12)).astype("float32")
    assert np.abs(file.predict(x) - net.predict(x, verbose=0)).max() < 1e-4 and len(file.gate.ran) == EVERYWHERE
    found = {w.tensor.shape: w for w in weights(read(file))}
    kinds = {(24, 1, 3, 12): "int2", (64, 24): "int2", (64, 16): "int4", (24, 16): "int4"}
    kinds |= {(40, 24): "float16", (30, 40): "int16"}
    assert {shape: weight.tensor.dtype for shape, weight in found.items()} == kinds
    assert np.array_equal(found[40, 24].tensor.data.T, net.get_layer("half").kernel)
    assert np.array_equal(real(found[30, 40]), net.get_layer("wide").kernel)
    assert "1 x DEQUANTIZE works on int16" in tfcompress.inspect(file).gpu_refusals
    head = net.get_layer("head")
    for variable, shape in ((cell.kernel, (64, 24)), (cell.recurrent_kernel, (64, 16)), (head.kernel, (24, 16))):
        np.testing.assert_allclose(real(found[shape]), variable, rtol=3e-7)
    np.testing.assert_allclose(found[64, 24].tensor.scale, gates, rtol=2e-7)


@pytest.fixture(scope="module")
def small():
    """A ternary convolution and a Dense layer of trained ternary weights."""
    layers = [L.Conv2D(16, 3, name="conv"), L.Flatten(), L.Dense(8, name="dense")]
    dense = np.where(signs((256, 8)) > 0, np.float32(0.0123), np.float32(-0.0457))
    return put(keras.Sequential([keras.Input((6, 6, 8)), *layers]), conv=signs((3, 3, 8, 16)) * 0.1, dense=dense)[0]


def test_a_width_that_the_run_time_lacks_falls_back(small, monkeypatch):
    """As if CONV_2D could not read what an int2 DEQUANTIZE makes, and a PRELU in front of FULLY_CONNECTED crashed."""
    check = pipeline.Pipeline.check

    def picky(self, path, precision, notes):
        file = read(path)
        if any(op.name == "PRELU" for op in file.graphs[0].ops):
            raise ConversionError("The run step died with signal 11 (SIGSEGV) in its own process.")
        if any(w.op == "CONV_2D" and w.tensor.dtype == "int2" for w in weights(file)):
            raise ConversionError("The run step died with signal 6 (SIGABRT) in its own process.")
        return check(self, path, precision, notes)

    monkeypatch.setattr(pipeline.Pipeline, "check", picky)
    file = convert(small, "exact")
    assert {w.op: w.tensor.dtype for w in weights(read(file))} == {"CONV_2D": "int4", "FULLY_CONNECTED": "float32"}
    notes = "\n".join(file.gate.notes)
    assert re.search(r"int2 codes do not run here in CONV_2D \S*conv\S*: int4 codes", notes)
    assert re.search(r"FULLY_CONNECTED \S*dense\S*", notes) and file.gate.agreement[0].max_difference < 1e-4


def test_settle_tries_each_tensor_alone():
    tried = []

    def passes(places):
        tried.append(tuple(places))
        return places[0] != 0 and places[2] == 2

    assert exact.settle([2, 0, 2], passes) == [1, 0, 2]
    assert tried == [(2, 0, 2), (0, 0, 2), (1, 0, 2), (2, 0, 0), (2, 0, 1), (1, 0, 2)]
    assert exact.settle([1, 1], lambda places: places != [0, 0]) == [1, 1]  # each alone, but not both
    assert exact.settle([1], lambda places: False) == [1]


def test_a_file_that_is_farther_off_is_refused(small, monkeypatch):
    run = pipeline.Pipeline.expected
    monkeypatch.setattr(pipeline.Pipeline, "expected", lambda self: ([
        {key: value + 0.001 for key, value in batch.items()} for batch in run(self)[0]
    ], "model that says something else"))  # fmt: skip
    with pytest.raises(ConversionError, match=r"output 'dense' is 0\.001\d* from the model's"):
        convert(small, "exact")
    assert convert(small).gate.agreement[0].max_difference == pytest.approx(1e-3, rel=0.01)  # no bound on the others


def test_where_activations_are_rounded_the_typical_sample_counts(monkeypatch):
    """A last bit moves an activation that lies on a threshold: one of a hundred samples may be off by a level."""
    x = np.random.default_rng(0).standard_normal((96, 6)).astype("float32")
    net = keras.Sequential([L.Input((6,)), L.Dense(4, "relu"), L.Dense(2)])
    few = quantize_activations(net, LeastSquaresActivation(2), x)
    run, share = pipeline.Pipeline.expected, 0.05
    monkeypatch.setattr(pipeline.Pipeline, "expected", lambda self: ([
        {key: value + 0.5 * (np.arange(len(value)) < share * len(value))[:, None] for key, value in batch.items()}
        for batch in run(self)[0]
    ], "model, some samples a level off"))  # fmt: skip
    assert convert(few, "exact", calibration=x).gate.agreement[0].max_difference > 0.1
    with pytest.raises(ConversionError, match=r"output 'dense_\d+' is 0\.[1-5]"):
        convert(net, "exact", calibration=x)
    monkeypatch.setattr(pipeline.Pipeline, "_nearness", lambda self, expected: {"bound": 1e-4, "over": np.median})
    share = 0.6
    with pytest.raises(ConversionError, match="from the model's in a typical sample, more than"):
        convert(few, "exact", calibration=x)


def test_keep_float_and_wrong_uses(small):
    kept = convert(small, "exact", keep_float=("conv",))
    assert {w.op: w.tensor.dtype for w in weights(read(kept))} == {"CONV_2D": "float32", "FULLY_CONNECTED": "int2"}
    with pytest.raises(ValueError, match="TFLiteConverter has no exact"):
        convert(small, "exact", backend="tflite_converter")
    with pytest.raises(ValueError, match="io='int8' needs"):
        convert(small, "exact", io="int8")
    with pytest.raises(ValueError, match="Known: .*'exact', 'exact8'"):
        convert(small, "exact4")
