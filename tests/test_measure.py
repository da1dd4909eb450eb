"""Running and weighing .tflite files: batches, quantized inputs, names, sizes, sparsity, levels, damaged files."""

import gzip

import numpy as np
import pytest
import small_files
from small_files import X

from tfcompress.flatbuffer import read
from tfcompress.measure import evaluate, levels, load, run, sizes, sparsity
from tfcompress.weights import weights

MODES = [("float32", False), ("float32", True), ("float16", False), ("int8", False), ("int8", True), ("int8_io", True)]


@pytest.mark.parametrize(("precision", "static"), MODES)
def test_every_precision_and_batch_gives_the_models_classes(precision, static):
    expected = small_files.model().predict(X, verbose=0)
    (found,) = run(small_files.tflite(precision, static), X)
    assert found.shape == (40, 4) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5 if precision == "float32" else 0.02)


def test_evaluate_judges_the_first_output(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(small_files.tflite())
    labels = small_files.model().predict(X, verbose=0).argmax(1)
    assert evaluate(path, X, labels).accuracy == 1
    assert evaluate(str(path), X, (labels + 1) % 4).accuracy == 0
    assert evaluate(small_files.tflite(), X, np.eye(4)[labels], class_names=list("abcd")).recalls["a"] in (1.0, None)


def test_inputs_go_by_name_or_by_order():
    left, right = np.array([[1, 2, 3.0]]), np.array([[10, 20.0]])
    (by_name,) = run(small_files.two_inputs(), {"right": right, "left": left})
    assert by_name.tolist() == [[36.0]]
    names = [t.name for t in (read(small_files.two_inputs()).graphs[0].tensors[i] for i in (0, 1))]
    ordered = [left if "left" in name else right for name in names]
    assert run(small_files.two_inputs(), ordered)[0].tolist() == [[36.0]]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[:, :4], r"takes \(-1, 8, 8, 3\)"),
        (X[:0], "one sample or more"),
        ({"pcture": X}, "picture"),
        ([X, X], "1 inputs"),
    ],
)
def test_wrong_inputs_are_a_clear_error(x, message):
    with pytest.raises(ValueError, match=message):
        run(small_files.tflite(), x)


def test_inputs_of_different_lengths():
    with pytest.raises(ValueError, match="same length"):
        run(small_files.two_inputs(), {"left": np.zeros((2, 3)), "right": np.zeros((1, 2))})


def test_wrong_files_are_a_clear_error(tmp_path):
    whole = small_files.tflite()
    with pytest.raises(ValueError, match="check the path"):
        evaluate(tmp_path / "none.tflite", X, X)
    with pytest.raises(ValueError, match="TFL3"):
        sizes(b"PK\x03\x04 a Keras file")
    with pytest.raises(ValueError, match="path, bytes"):
        sizes(None)
    for cut in (9, 40, len(whole) // 2, len(whole) - 400):
        with pytest.raises(ValueError, match="whole .tflite"):
            sparsity(whole[:cut])
    (tmp_path / "cut.tflite").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut.tflite, .* bytes that can't be read"):
        run(tmp_path / "cut.tflite", X)
    with pytest.raises(ValueError, match="can't load"):
        load(whole[: len(whole) // 2])


def test_sizes():
    whole = small_files.tflite()
    raw, packed = sizes(whole)
    assert raw == len(whole)
    assert abs(packed - len(gzip.compress(whole, 9))) < 20
    assert sizes(whole) == (raw, packed)


@pytest.mark.parametrize(("precision", "static"), MODES)
def test_zeros_are_counted_in_kernels_only(precision, static):
    content = small_files.tflite(precision, static)
    found = {weight.op: weight for weight in weights(read(content))}
    assert {op: weight.tensor.size for op, weight in found.items()} == {
        "CONV_2D": 162, "DEPTHWISE_CONV_2D": 54, "FULLY_CONNECTED": 24,
    }  # fmt: skip
    assert found["CONV_2D"].zeros >= 81
    assert found["CONV_2D"].tensor.dtype == precision.removesuffix("_io")
    assert 81 / 240 <= sparsity(content) <= 90 / 240


@pytest.mark.parametrize(("precision", "static"), MODES)
def test_levels_are_counted_by_output_channel(precision, static):
    content = small_files.tflite(precision, static)
    kernel = small_files.model().layers[0].kernel.numpy()
    if precision == "float32":
        assert levels(content) == max(len(np.unique(kernel[..., k])) for k in range(6))
    else:
        assert 2 <= levels(content) <= 27


def test_int4_weights_are_unpacked(tmp_path):
    from litert_quantizer import quantizer, recipe

    worker = quantizer.Quantizer(small_files.tflite())
    worker.load_quantization_recipe(recipe.weight_only_wi4_afp32())
    content = bytes(worker.quantize().quantized_model)
    found = [weight for weight in weights(read(content)) if weight.tensor.dtype == "int4"]
    assert found
    for weight in found:
        assert weight.levels <= 16 and weight.channels.min() >= -8 and weight.channels.max() <= 7
        assert weight.channels.size == weight.tensor.size


def test_weights_stored_sparsely_count_their_zeros():
    import keras
    import tensorflow as tf

    kernel = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    kernel[np.abs(kernel) < 1.6] = 0
    net = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, use_bias=False)])
    net.layers[0].kernel.assign(kernel)
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    content = converter.convert()
    (found,) = weights(read(content))
    assert found.tensor.sparse and found.zeros == (kernel == 0).sum()
    assert sparsity(content) == (kernel == 0).mean()
