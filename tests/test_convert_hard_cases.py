"""convert on what real models bring: recurrent nets, several inputs, free sizes, odd layers; and on bad input."""

import keras
import numpy as np
import pytest
from small_models import normal, softmax_net

from tfcompress import Constant, Prune, compress, flatbuffer, strip
from tfcompress.conversion.file import read, write
from tfcompress.convert import ConversionError, convert, convert_all
from tfcompress.quantization.aware import calibrate, quantize_aware

L = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore::tfcompress.convert.CalibrationWarning")


# ---- hard cases -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [L.LSTM(8), L.Bidirectional(L.GRU(6)), L.LSTM(8, unroll=True)], ids=str)
def test_recurrent_nets_convert_in_every_precision(layer):
    model = keras.Sequential([keras.Input((10, 6)), layer.from_config(layer.get_config()), L.Dense(4)])
    x = normal(10, 6)
    wanted = model.predict(x, verbose=0)
    for precision, file in convert_all(model, ("float32", "dynamic", "int8"), x).items():
        assert np.abs(file.predict(x) - wanted).max() < (1e-5 if precision == "float32" else 0.1), precision
        if not getattr(layer, "unroll", False):
            assert "batch fixed at 1" in file.gate.notes[0]
            assert precision != "int8" or "inside loops" in file.gate.notes[1]


def test_a_crash_of_tensorflow_is_one_error():
    model = keras.Sequential([keras.Input((8,), dtype="int32"), L.Embedding(40, 8), L.LSTM(6), L.Dense(3)])
    x = np.random.default_rng(0).integers(0, 40, (100, 8))
    try:
        convert(model, "int8", x, backend="tflite_converter")
    except ConversionError as error:  # TensorFlow 2.21 dies of a segmentation fault here
        assert "signal 11 (SIGSEGV)" in str(error) and "backend='litert'" in str(error)
    assert convert(model, "int8", x).size > 0


def test_embedding_with_lstm_and_integer_inputs():
    model = keras.Sequential([keras.Input((8,), dtype="int32"), L.Embedding(40, 8), L.LSTM(6), L.Dense(3)])
    x = np.random.default_rng(0).integers(0, 40, (100, 8))
    for file in convert_all(model, ("float32", "int8"), x).values():
        assert np.abs(file.predict(x) - model.predict(x, verbose=0)).max() < 0.05
    with pytest.raises(ValueError, match="takes integers"):
        convert(model, "int8", normal(8))


def test_16_bit_sums_whose_steps_are_powers_of_two():
    """Pixels 0..255 made 0..2, then -1..1: TFLite's 16-bit ADD would not load."""
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Rescaling(1 / 127.5, -1), L.Conv2D(4, 3, padding="same")])
    x = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3)).astype("float32")
    assert (x.min(), x.max()) == (0, 255)
    wanted = model.predict(x, verbose=0)
    assert np.abs(convert(model, "int16x8", x).predict(x) - wanted).max() < 0.05 * wanted.std()


def test_several_inputs_and_outputs_are_bound_by_name():
    a, b = keras.Input((6,), name="zebra"), keras.Input((4,), name="ant")
    joined = L.Concatenate()([L.Dense(5)(a), b])
    model = keras.Model([a, b], [L.Dense(3, name="y")(joined), L.Dense(2, name="x")(joined)])
    x = {"ant": normal(4), "zebra": 3 * normal(6)}
    wanted = dict(zip("yx", model.predict([x["zebra"], x["ant"]], verbose=0), strict=True))
    for calibration in (x, [x["zebra"], x["ant"]]):
        got = convert(model, "int8", calibration).predict(x)
        assert set(got) == {"x", "y"} and all(np.abs(got[name] - wanted[name]).max() < 0.25 for name in wanted)
    with pytest.raises(ValueError, match="Expected \\['zebra', 'ant'\\]. Received \\['zebra', 'bee'\\]"):
        convert(model, "int8", {"zebra": x["zebra"], "bee": x["ant"]})


def test_free_image_sizes():
    i = keras.Input((None, None, 3))
    model = keras.Model(i, L.Conv2D(2, 1)(L.Conv2D(8, 3, padding="same", activation="relu")(i)))
    file = convert(model, "int8", normal(16, 16, 3))
    x = normal(9, 11, 3, count=3)
    assert np.abs(file.predict(x) - model.predict(x, verbose=0)).max() < 0.15


def test_conv1d_nets_are_int8_throughout():
    model = keras.Sequential([
        keras.Input((64, 1)), L.Conv1D(8, 5, activation="relu"), L.BatchNormalization(), L.MaxPooling1D(2),
        L.SeparableConv1D(8, 3, activation="relu"), L.GlobalAveragePooling1D(), L.Dense(4),
    ])  # fmt: skip
    assert convert(model, "int8", normal(64, 1)).gate.float_islands == ()


def test_masks_are_computed_on_the_float_input():
    model = keras.Sequential([keras.Input((6, 3)), L.Masking(), L.LSTM(8), L.Dense(2)])
    x = normal(6, 3) * 0.05  # many values of one sample quantize to 0, the mask value, beside one of 40
    x[:, 4:], x[:, 0, 0] = 0, 40.0 / (1 + np.arange(len(x)))
    file = convert(model, "int8", x)
    assert any("NOT_EQUAL" in name for name in file.gate.float_islands) or "EQUAL" not in str(file.gate.float_islands)
    assert np.abs(file.predict(x) - model.predict(x, verbose=0)).max() < 0.1


def test_attention_and_operations_without_an_int8_kernel():
    i = keras.Input((6, 8))
    x = L.LayerNormalization()(i + L.MultiHeadAttention(2, 4)(i, i))
    model = keras.Model(i, L.Dense(3)(L.LeakyReLU()(L.GlobalMaxPooling1D()(x))))
    file = convert(model, "int8", normal(6, 8))
    assert {name.split()[0] for name in file.gate.float_islands} == {"NEG"}  # of the normalization
    assert np.abs(file.predict(normal(6, 8)) - model.predict(normal(6, 8), verbose=0)).max() < 0.2


def test_a_reshape_with_a_free_batch_has_a_constant_shape():
    i = keras.Input((8, 8, 4))
    gate = L.Conv2D(4, 1, activation="sigmoid")(L.Reshape((1, 1, 4))(L.GlobalAveragePooling2D()(i)))
    model = keras.Model(i, L.Dense(3)(L.Flatten()(L.ReLU(negative_slope=0.1)(i * gate))))
    file, x = convert(model, "int8", normal(8, 8, 4)), normal(8, 8, 4, count=5)
    assert file.gate.float_islands == () and b"SHAPE" not in file.content
    assert np.abs(file.predict(x) - model.predict(x, verbose=0)).max() < 0.1


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_tensor_names_are_short_and_unique(files, precision):
    names = [tensor.name for tensor in flatbuffer.read(files[precision].content).graphs[0].tensors]
    assert len(set(names)) == len(names) and not any(";" in name for name in names)
    assert any(name.endswith("conv_1/convolution") for name in names)
    assert list(files[precision].predict({"image": normal(12, 12, 3)[:1]}).shape) == [1, 4]


def test_a_mixed_precision_model_is_converted_in_float32():
    i = keras.Input((6,))
    model = keras.Model(i, L.Dense(3, dtype="float32")(L.Dense(16, activation="relu", dtype="mixed_float16")(i)))
    file = convert(model)
    assert np.abs(file.predict(normal(6)) - model.predict(normal(6), verbose=0)).max() < 0.01
    assert "half precision" in file.gate.notes[0]


def test_a_layer_of_the_users_own_class():
    class Twice(L.Layer):  # not registered: no file could bring it to the child process
        def call(self, x):
            return x * 2

    model = keras.Sequential([keras.Input((5,)), Twice(), L.Dense(3)])
    assert np.allclose(convert(model).predict(normal(5)), model.predict(normal(5), verbose=0), atol=1e-5)


def test_lambda_layers_convert():
    model = keras.Sequential([keras.Input((5,)), L.Lambda(lambda t: keras.ops.tanh(t) * 2), L.Dense(3)])
    assert np.allclose(convert(model).predict(normal(5)), model.predict(normal(5), verbose=0), atol=1e-5)


def test_a_quantization_aware_model_keeps_its_own_ranges():
    aware = pytest.importorskip("tfcompress.quantization.aware")
    model = aware.quantize_aware(softmax_net())
    x = normal(12, 12, 3)
    aware.calibrate(model, x)
    file = convert(model, "int8", x)
    row = file.gate.agreement[0]
    assert row.unit == "LSB" and row.max_difference <= 1 and row.bit_equal > 0.95
    with pytest.raises(ValueError, match="becomes an int8 file"):
        convert(model, "float16")


def test_a_compressed_model_must_be_stripped(model):
    compressed = compress(model, Prune(Constant(0.5)))
    with pytest.raises(ValueError, match="strip\\(model\\) first"):
        convert(compressed)
    assert convert(strip(compressed)).size > 0


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_bad_arguments(model):
    for arguments, words in [
        ({"precision": "int3"}, "Unknown precision"), ({"precision": "int8"}, "needs calibration data"),
        ({"backend": "onnx"}, "Unknown backend"), ({"io": "uint8"}, "Unknown io"), ({"io": "int8"}, "quantized"),
        ({"precision": "int4", "backend": "tflite_converter"}, "no int4"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            convert(model, **arguments)


def test_bad_files(tmp_path):
    for name, content in [("a.tflite", b"nonsense"), ("a.keras", b"nonsense"), ("a.h5", b"nonsense"), ("a.txt", b"")]:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    for name in ("a.tflite", "a.keras", "a.h5", "a.txt", "folder", "missing.keras"):
        with pytest.raises(ValueError, match="Expected|damaged|Unknown|no saved_model|No model"):
            convert(tmp_path / name)
    with pytest.raises(ValueError, match="Expected a Keras model"):
        convert(3)


def test_a_torn_tflite_file_is_one_error(files):
    with pytest.raises((ValueError, ConversionError)):
        convert(files["float32"].content[: files["float32"].size // 2])


def test_tensors_that_share_a_name_are_told_apart(files):
    """As in openwakeword's hey_jarvis, where many tensors are called "arg0"."""
    given = read(files["float32"].content)
    graph = given.subgraphs[0]
    ends = {*graph.inputs, *graph.outputs}
    for index, tensor in enumerate(graph.tensors):
        tensor.name = tensor.name if index in ends else b"arg0"
    x = normal(12, 12, 3)[:16]
    renamed = convert(write(given), "int8", x)
    assert len({tensor.name for tensor in read(renamed.content).subgraphs[0].tensors}) == len(
        read(renamed.content).subgraphs[0].tensors)
    np.testing.assert_array_equal(renamed.predict(x), convert(files["float32"].content, "int8", x).predict(x))


def test_a_quantized_tflite_file_is_refused(files):
    with pytest.raises(ValueError, match="quantized already"):
        convert(files["int8"].content, "dynamic")


def test_models_that_cannot_be_converted(model):
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="subclassed"):
        convert(Own())
    broken = keras.models.clone_model(model)
    broken.set_weights([w * np.nan for w in broken.get_weights()])
    with pytest.raises(ValueError, match="NaN"):
        convert(broken)


def test_an_operation_without_a_kernel_is_named():
    i = keras.Input((4, 4))
    model = keras.Model(i, L.Lambda(lambda t: keras.ops.svd(t, compute_uv=False))(i))
    with pytest.raises(ConversionError, match="Svd"):
        convert(model)


def test_an_unwritable_place_leaves_nothing_behind(files, tmp_path):
    with pytest.raises(OSError):
        files["int8"].save(tmp_path / "no" / "such" / "folder.tflite")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        files["int8"].save(tmp_path / "taken")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("precision", ["int8", "int16x8", "qat"])
@pytest.mark.parametrize("kind", ["conv", "depthwise", "dense", "transpose", "shared"])
def test_a_pruned_channel_keeps_its_bias(kind, precision):
    keras.utils.set_random_seed(3)
    i = keras.Input((8,) if kind == "dense" else (6, 6, 8))
    layer = {
        "conv": L.Conv2D(8, 3), "depthwise": L.DepthwiseConv2D(3), "dense": L.Dense(8),
        "transpose": L.Conv2DTranspose(8, 3), "shared": L.Conv2D(8, 1),
    }[kind]  # fmt: skip
    out = layer(layer(i)) if kind == "shared" else layer(i)
    kernel, bias = (np.array(w) for w in layer.get_weights())
    channels = np.moveaxis(kernel, 2 if kind in ("depthwise", "transpose") else -1, 0)  # a view
    channels[2], channels[3], bias[2:4] = 0, 1e-9 * channels[3], (0.8, -0.7)
    layer.set_weights([kernel, bias])
    model, x = keras.Model(i, out), normal(*i.shape[1:])
    wanted = model.predict(x, verbose=0)
    if precision == "qat":
        aware = quantize_aware(model)
        calibrate(aware, x)
        file = convert(aware, "int8")
    else:
        file = convert(model, precision, x)
    found = file.predict(x)
    step = np.ptp(wanted) / (2**16 if precision == "int16x8" else 2**8)
    assert np.abs(found - wanted)[..., 2:4].max() < 1.5 * step
    assert len(write(read(file.content))) == file.size, "buffers that no tensor reads"


def test_our_own_float_file_of_a_loop_converts_again():
    model = keras.Sequential([keras.Input((10, 6)), L.LSTM(8), L.Dense(4)])
    x = normal(10, 6)
    file = convert(model, "float32")
    names = [tensor.name for graph in flatbuffer.read(file.content).graphs for tensor in graph.tensors]
    assert not any(";" in name for name in names)
    again = convert(file.content, "int8", x)
    assert np.abs(again.predict(x[:8]) - model.predict(x[:8], verbose=0)).max() < 0.1
