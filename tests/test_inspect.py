"""What inspect says of small files, beside answers worked out by hand."""

import keras
import numpy as np
import pytest
import small_files
import tensorflow as tf

from tfcompress.flatbuffer import read
from tfcompress.inspect import inspect
from tfcompress.macs import file_macs

layers = keras.layers


def convert(*stack, shape, batch=None) -> bytes:
    net = keras.Sequential([keras.Input(batch_shape=(batch, *shape)), *stack])
    return tf.lite.TFLiteConverter.from_keras_model(net).convert()


def test_a_small_net_by_hand():
    report = inspect(small_files.tflite())
    assert {(op.name, op.dtype): (op.count, op.macs) for op in report.ops} == {
        ("CONV_2D", "float32"): (1, 6 * 6 * 6 * 27),
        ("DEPTHWISE_CONV_2D", "float32"): (1, 4 * 4 * 6 * 9),
        ("MEAN", "float32"): (1, 0),
        ("FULLY_CONNECTED", "float32"): (1, 24),
        ("SOFTMAX", "float32"): (1, 0),
    }
    assert report.macs == file_macs(small_files.tflite()) == 6720 and report.parameters == 240
    assert report.raw_bytes == len(small_files.tflite()) > report.gzip_bytes
    assert report.sparsity == pytest.approx(81 / 240) and report.levels == 27
    assert [info.shape for info in report.weights] == [(6, 3, 3, 3), (1, 3, 3, 6), (4, 6)]
    assert report.float_islands == () and report.gpu_refusals == ()


@pytest.mark.parametrize("precision", ["float16", "int8", "int8_io"])
def test_other_precisions_have_the_same_weights_and_macs(precision):
    report = inspect(small_files.tflite(precision, static=precision == "int8_io"))
    assert (report.macs, report.parameters) == (6720, 240)
    assert {info.dtype for info in report.weights} == {precision.removesuffix("_io")}
    types = {op.name: op.dtype for op in report.ops}
    assert types["CONV_2D"] == {"float16": "float32 * float16"}.get(precision, "int8")


MACS = [
    (layers.Conv2D(5, 3, strides=2, padding="same"), (8, 8, 4), 4 * 4 * 5 * 9 * 4),
    (layers.Conv2D(6, 3, groups=2), (5, 5, 4), 3 * 3 * 6 * 9 * 2),
    (layers.Conv1D(5, 3), (10, 4), 8 * 5 * 3 * 4),
    (layers.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 3), 4 * 4 * 6 * 9),
    (layers.Conv2DTranspose(5, 2, strides=2), (3, 3, 4), 9 * 4 * 4 * 5),
    (layers.Dense(7), (11, 3), 11 * 3 * 7),
    (layers.LSTM(8), (10, 4), 10 * 4 * 8 * (4 + 8)),
    (layers.GRU(8), (10, 4), 10 * 3 * 8 * (4 + 8)),
    (layers.Bidirectional(layers.LSTM(8)), (10, 4), 2 * 10 * 4 * 8 * (4 + 8)),
]


@pytest.mark.parametrize(("layer", "shape", "macs"), MACS, ids=[entry[0].name for entry in MACS])
def test_macs_by_the_formula(layer, shape, macs):
    assert inspect(convert(layer, shape=shape, batch=1)).macs == macs


@pytest.mark.parametrize("padding", ["same", "causal"])
def test_a_dilated_convolution_with_a_dynamic_batch_counts_as_one_without_dilation(padding):
    files = [convert(layers.Conv1D(16, 3, dilation_rate=rate, padding=padding), shape=(64, 8)) for rate in (1, 4)]
    assert [inspect(file).macs for file in files] == 2 * [64 * 8 * 16 * 3]


def test_first_states_of_a_loop_are_not_weights():
    report = inspect(convert(layers.LSTM(8, return_sequences=True), shape=(10, 4), batch=1))
    assert report.parameters == 4 * 8 * (4 + 8) and report.sparsity < 0.01
    assert any("WHILE is control flow" in reason for reason in report.gpu_refusals)


def test_attention_multiplies_two_activations():
    source = keras.Input((6, 8), batch_size=1)
    net = keras.Model(source, layers.Dot(axes=(2, 2))([source, source]))
    content = tf.lite.TFLiteConverter.from_keras_model(net).convert()
    assert inspect(content).macs == 6 * 6 * 8 and inspect(content).parameters == 0


def test_operations_left_float_are_listed():
    from litert_quantizer import quantizer, recipe

    stack = [layers.Conv2D(4, 3, name="first"), layers.Conv2D(4, 3, name="second"), layers.Conv2D(4, 3)]
    content = convert(*stack, shape=(8, 8, 3))
    worker = quantizer.Quantizer(content)
    worker.load_quantization_recipe(recipe.static_wi8_ai8())
    worker.update_quantization_recipe(regex=".*second.*", operation_name="*", algorithm_key="no_quantize")
    (signature,) = read(content).signatures
    ranges = worker.calibrate({signature.name: [{name: small_files.X[:1] for name in signature.inputs}]})
    report = inspect(bytes(worker.quantize(ranges).quantized_model))
    assert len(report.float_islands) == 1 and "second" in report.float_islands[0]
    assert "Left float (1" in report.text()


@pytest.mark.parametrize(
    ("layer", "shape", "reason"),
    [
        (layers.Lambda(lambda x: keras.ops.flip(x, 1), output_shape=(4, 4, 3)), (4, 4, 3), "REVERSE_V2 has no"),
        (layers.Embedding(9, 4), (6,), "GATHER takes int32 indices in one dimension"),
        (layers.Conv3D(2, 2), (4, 4, 4, 1), "CONV_3D has no GPU kernel"),
        (layers.Conv2D(2, 2), (None, None, 1), "dynamic size"),
    ],
)
def test_what_a_gpu_would_refuse(layer, shape, reason):
    found = inspect(convert(layer, shape=shape, batch=1)).gpu_refusals
    assert any(reason in text for text in found), found


def test_sixteen_bit_activations_have_no_gpu_kernel():
    converter = tf.lite.TFLiteConverter.from_keras_model(small_files.model())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in small_files.X)
    kernels = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    converter.target_spec.supported_ops = [kernels]
    report = inspect(converter.convert())
    assert any("works on int16" in reason for reason in report.gpu_refusals)
    assert {op.dtype for op in report.ops if op.name == "CONV_2D"} == {"int16 * int8"}


def test_the_text_says_it_all(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(small_files.tflite("int8"))
    text = inspect(path).text(each_weight=True)
    for part in ("6,720", "240", "CONV_2D", "6x3x3x3", "50.0%", "picture", "GPU"):
        assert part in text
    assert str(inspect(path)) in text or "weights of" not in str(inspect(path))


def test_damaged_files_are_a_clear_error():
    whole = small_files.tflite("int8")
    random = np.random.default_rng(0)
    for cut in random.integers(8, len(whole) - 16, 30):
        try:
            inspect(whole[:cut])
        except ValueError as error:
            assert "Expected a" in str(error)
    for _ in range(60):  # bytes changed at random either don't matter or are a clear error
        damaged = bytearray(whole)
        for place in random.integers(8, len(whole), 5):
            damaged[place] = random.integers(0, 256)
        try:
            inspect(bytes(damaged))
        except ValueError as error:
            assert "Expected a" in str(error)
