"""convert: every precision from every kind of source. One child process serves all tests."""

import keras
import numpy as np
import pytest
from small_models import normal

from tfcompress.convert import TFLiteModel, convert, convert_all

L = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore::tfcompress.convert.CalibrationWarning")


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
    convert(model)  # the last two models are kept
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


def test_int4_lists_what_stays_at_8_bits(files):
    assert any("8-bit weights" in note and "DEPTHWISE_CONV_2D" in note for note in files["int4"].gate.notes)
