"""diff on files whose difference is known by construction."""

import re

import keras
import numpy as np
import pytest
import small_files
import tensorflow as tf
from small_files import X

from tfcompress.diff import diff


def test_a_file_equals_itself():
    report = diff(small_files.tflite(), small_files.tflite(), X)
    assert [layer.op for layer in report.layers] == [
        "CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX",
    ]  # fmt: skip
    for layer in report.layers:
        assert layer.snr_db == np.inf and layer.max_difference == 0 and layer.added_noise == 0
        assert layer.cosine == pytest.approx(1)
    assert report.samples == len(X) and report.only_first == report.only_second == ()


@pytest.mark.parametrize(
    ("precision", "static", "decibels"), [("float16", False, 55), ("int8", False, 25), ("int8_io", True, 25)]
)
def test_fewer_bits_mean_more_noise_and_every_layer_has_its_partner(precision, static, decibels):
    report = diff(small_files.tflite(), small_files.tflite(precision, static), X)
    assert len(report.layers) == 5 and report.only_first == report.only_second == ()
    assert all(decibels < layer.snr_db < decibels + 50 for layer in report.layers)
    assert ("float32 -> int8" in str(report)) == precision.startswith("int8")


def test_the_layer_that_was_damaged_is_the_worst():
    net = small_files.model()
    broken = keras.models.clone_model(net)
    broken.set_weights(net.get_weights())
    depthwise = broken.layers[1]
    depthwise.kernel.assign(depthwise.kernel.numpy() * np.float32(1.1))
    content = tf.lite.TFLiteConverter.from_keras_model(broken).convert()
    report = diff(small_files.tflite(), content, X)
    assert report.worst.op == "DEPTHWISE_CONV_2D"
    assert report.worst.added_noise == pytest.approx(0.01, rel=1e-3)
    assert report.worst.snr_db == pytest.approx(20, abs=0.01)
    assert report.layers[0].snr_db == np.inf
    assert len(re.findall("<- worst", str(report))) == 1


def test_without_data_inputs_are_made_up_in_the_calibrated_range():
    report = diff(small_files.tflite(), small_files.tflite("int8"))
    assert report.samples == 16 and all(layer.snr_db > 25 for layer in report.layers)


def test_files_of_different_models_are_a_clear_error(tmp_path):
    with pytest.raises(ValueError, match="no layer in common|one array|takes"):
        diff(small_files.tflite(), small_files.two_inputs(), X)
    with pytest.raises(ValueError, match="check the path"):
        diff(small_files.tflite(), tmp_path / "none.tflite")
