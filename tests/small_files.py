"""Small `.tflite` files for the tests of measure, inspect, diff and host; each is made once a process."""

import functools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

X = np.random.default_rng(0).random((40, 8, 8, 3), np.float32)


@functools.cache
def model() -> keras.Model:
    """Conv2D 3x3x3x6, depthwise 3x3x6, dense 6x4: 162 + 54 + 24 weights; half of the first kernel is zero."""
    keras.utils.set_random_seed(1)
    found = keras.Sequential(
        [
            keras.Input((8, 8, 3), name="picture"),
            keras.layers.Conv2D(6, 3, activation="relu"),
            keras.layers.DepthwiseConv2D(3),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    kernel = found.layers[0].kernel.numpy()
    kernel.reshape(-1)[::2] = 0
    found.layers[0].kernel.assign(kernel)
    found.layers[0].bias.assign(np.linspace(-0.1, 0.1, 6))
    return found


@functools.cache
def tflite(precision: str = "float32", static: bool = False) -> bytes:
    """The model by TFLiteConverter: "float32", "float16", "int8" (float I/O), "int8_io"; batch dynamic or 1."""
    source = model()
    if static:
        source = keras.models.clone_model(source, input_tensors=keras.Input(batch_shape=(1, 8, 8, 3), name="picture"))
        source.set_weights(model().get_weights())
    converter = tf.lite.TFLiteConverter.from_keras_model(source)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision.startswith("int8"):
        converter.representative_dataset = lambda: ([row[None]] for row in X)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if precision == "int8_io":
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


@functools.cache
def two_inputs() -> bytes:
    """`left` (n, 3) and `right` (n, 2), one output: their weighted sum."""
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    joined = keras.layers.Concatenate()([right, left])
    net = keras.Model([left, right], keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")(joined))
    return tf.lite.TFLiteConverter.from_keras_model(net).convert()
