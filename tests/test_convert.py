"""convert: every precision, every kind of source, the hard cases of real models, bad input. One worker serves all."""

import keras
import numpy as np
import pytest

from tfcompress import Constant, Prune, compress, strip
from tfcompress.convert import PRECISIONS, ConversionError, TFLiteModel, convert, convert_all

L = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore::tfcompress.convert.CalibrationWarning")


def image_model():
    i = keras.Input((12, 12, 3), name="image")
    x = L.Conv2D(16, 3, use_bias=False, name="conv")(i)
    x = L.ReLU(max_value=6.0)(L.BatchNormalization()(x))
    x = L.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = L.Dense(32, activation="relu")(L.Flatten()(x))
    return keras.Model(i, L.Dense(4, activation="softmax", name="scores")(x))


def normal(*shape, count=100):
    return np.random.default_rng(0).standard_normal((count, *shape)).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(7)
    return image_model()


@pytest.fixture(scope="module")
def files(model):
    return convert_all(model, PRECISIONS, normal(12, 12, 3))


def outputs(file):
    return file.gate.agreement[0]


@pytest.mark.parametrize(
    "precision, tolerance",
    [("float32", 1e-5), ("float16", 2e-3), ("dynamic", 0.03), ("int8", 0.03), ("int16x8", 0.02), ("int4", 0.2)],
)
def test_a_precision_predicts_what_the_model_predicts(model, files, precision, tolerance):
    x = normal(12, 12, 3, count=40)
    assert np.abs(files[precision].predict(x) - model.predict(x, verbose=0)).max() < tolerance
    assert np.allclose(files[precision].predict({"image": x[:3]}), files[precision].predict(x)[:3], atol=tolerance / 5)


def test_sizes_fall_with_the_bits(files):
    size = {precision: file.size for precision, file in files.items()}
    assert size["float16"] < 0.55 * size["float32"]
    assert max(size["dynamic"], size["int8"], size["int16x8"]) < 0.4 * size["float32"]
    assert size["int4"] < 0.75 * size["dynamic"]


def test_io_is_float_and_int8_on_request(model, files):
    from tfcompress.conversion.interpreter import Runner

    def kinds(content):
        runner = Runner(content)
        return {tensor.dtype for _, tensor in (*runner.inputs.values(), *runner.outputs.values())}

    for file in files.values():
        assert kinds(file.content) == {"float32"}
    quantized = convert(model, "int8", normal(12, 12, 3), io="int8")
    assert kinds(quantized.content) == {"int8"}
    x = normal(12, 12, 3)
    assert np.abs(quantized.predict(x) - files["int8"].predict(x)).max() < 0.01


def test_an_int8_file_has_no_float_islands(files):
    assert files["int8"].gate.float_islands == () and files["int16x8"].gate.float_islands == ()


def test_the_batch_stays_free(files):
    from tfcompress.conversion.interpreter import Runner

    assert all(Runner(file.content).inputs["image"][1].shape[0] is None for file in files.values())
    assert files["int8"].predict(normal(12, 12, 3, count=7)).shape == (7, 4)


def test_save_and_load(files, tmp_path):
    path = files["int8"].save(tmp_path / "model.tflite")
    loaded = TFLiteModel.load(path)
    assert loaded.content == files["int8"].content and loaded.size == path.stat().st_size
    assert [p.name for p in tmp_path.iterdir()] == ["model.tflite"]


def test_a_second_conversion_of_the_same_weights_skips_tensorflow(model, files):
    again = convert(model, "float16")
    assert again.content == files["float16"].content and again.seconds["float"] < 0.5


def test_new_weights_are_noticed(model, files):
    weights = model.get_weights()
    model.set_weights([w * 0 for w in weights])
    try:
        assert np.allclose(convert(model).predict(normal(12, 12, 3, count=2)), 0.25)
    finally:
        model.set_weights(weights)


def test_keep_float_keeps_a_layer_float(model):
    file = convert(model, "int8", normal(12, 12, 3), keep_float=("depthwise",))
    assert any("depthwise" in name for name in file.gate.float_islands)
    with pytest.raises(ValueError, match="matched no operation: \\['nope'\\]"):
        convert(model, "int8", normal(12, 12, 3), keep_float=("nope",))


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic", "int8", "int16x8"])
def test_tflite_converter_gives_the_same_recipe(model, files, precision):
    x = normal(12, 12, 3)
    other = convert(model, precision, x, backend="tflite_converter")
    assert np.abs(other.predict(x) - files[precision].predict(x)).max() < 0.03
    assert other.size == pytest.approx(files[precision].size, rel=0.3)


# ---- sources --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [".keras", ".h5", "", ".tflite", "bytes"])
def test_every_kind_of_source(model, files, kind, tmp_path):
    source = tmp_path / f"model{kind}"
    if kind == "":
        model.export(str(source), verbose=False)
    elif kind == "bytes":
        source = files["float32"].content
    elif kind == ".tflite":
        files["float32"].save(source)
    else:
        model.save(source)
    x = normal(12, 12, 3)
    made = convert_all(source, ("float32", "int8"), x)
    assert np.allclose(made["float32"].predict(x), model.predict(x, verbose=0), atol=1e-5)
    assert np.abs(made["int8"].predict(x) - files["int8"].predict(x)).max() < 0.02
    words = {"": "SavedModel", ".tflite": "float .tflite file", "bytes": "float .tflite file"}
    assert made["int8"].gate.reference == words.get(kind, "Keras model")


def test_tf_keras_models_and_their_old_files(tmp_path):
    tf_keras = pytest.importorskip("tf_keras")
    layers = tf_keras.layers
    left, right = tf_keras.Input((4,), name="left"), tf_keras.Input((3,), name="right")
    scores = layers.Dense(2)(layers.Concatenate()([left, right]))
    model = tf_keras.Model({"left": left, "right": right}, {"scores": scores, "side": layers.Dense(1)(left)})
    x = {"right": normal(3), "left": normal(4)}
    got, wanted = convert(model, "int8", x).predict(x), model.predict(x, verbose=0)
    assert all(np.abs(got[name] - wanted[name]).max() < 0.15 for name in wanted)
    recurrent = tf_keras.Sequential([layers.Input((9, 4)), layers.LSTM(6), layers.Dense(3)])
    recurrent.save(tmp_path / "old.h5")  # Keras 3 refuses its time_major
    x = normal(9, 4)
    assert np.allclose(convert(tmp_path / "old.h5").predict(x), recurrent.predict(x, verbose=0), atol=1e-5)


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


def test_int4_lists_what_stays_at_8_bits(files):
    assert any("8-bit weights" in note and "DEPTHWISE_CONV_2D" in note for note in files["int4"].gate.notes)


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
    model = aware.quantize_aware(image_model())
    x = normal(12, 12, 3)
    aware.calibrate(model, x)
    file = convert(model, "int8", x)
    assert outputs(file).unit == "LSB" and outputs(file).max_difference <= 1 and outputs(file).bit_equal > 0.95
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
