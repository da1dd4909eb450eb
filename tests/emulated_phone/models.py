"""Small stand-ins for the models that the outputs in tests/golden/benchmark_model were made with, under their names."""

import functools
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

RNG = np.random.default_rng(3)
KERNEL, HEAD = RNG.normal(size=(3, 3, 3, 4)).astype("float32"), RNG.normal(size=(4, 10)).astype("float32")
IMAGES = RNG.normal(size=(8, 32, 32, 3)).astype("float32")


def write(folder: Path) -> None:
    """Models, broken files and input files."""
    for name, content in contents().items():
        (folder / name).write_bytes(content)


@functools.cache
def contents() -> dict[str, bytes]:
    """File name -> bytes; converted once a process."""
    cnn = lambda x: tf.nn.softmax(tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(x, KERNEL, 2, "SAME")), (1, 2)) @ HEAD)  # noqa: E731
    flat = lambda x: tf.reshape(cnn(x), (10,))  # noqa: E731
    image, fixed = _spec((None, 32, 32, 3), "image"), _spec((1, 32, 32, 3), "image")
    files = {
        "cnn_f32": _convert(cnn, image), "cnn_fixed1": _convert(cnn, fixed),
        "cnn_fixed1_reshape": _convert(flat, fixed),
        "cnn_f16": _convert(cnn, image, types=[tf.float16]), "cnn_dr": _convert(cnn, image, types=[]),
        "cnn_int8_floatio": _convert(cnn, image, types=[tf.int8]), "cnn_sig": _saved_model(cnn, image),
        "cnn_int8_io": _convert(cnn, image, types=[tf.int8], io=tf.int8),
        "tiny": _convert(lambda x: x @ HEAD[:, :2], _spec((1, 4), "image")),
        "two_io": _convert(lambda a, b: 2 * a + b, _spec((None, 8), "a"), _spec((None, 8), "b")),
        "gather": _convert(lambda ids: tf.gather(HEAD.T, ids), _spec((1, 6), "ids", tf.int32)),
        "flex": _convert(tf.linalg.det, _spec((3, 3), "x"), ops=tf.lite.OpsSet.SELECT_TF_OPS),
        "custom": _convert(tf.linalg.det, _spec((3, 3), "x"), custom=True),
    }  # fmt: skip
    files |= {"empty": b"", "corrupt": files["cnn_f32"][:700], "garbage": b"garbage" * 100}
    files["flipped"] = bytes(255 - byte for byte in files["cnn_f32"])
    found = {f"{name}.tflite": content for name, content in files.items()}
    found |= {f"x{count}.bin": IMAGES[:count].tobytes() for count in (1, 7, 8)}
    found["x8_i8.bin"] = (IMAGES * 40).clip(-127, 127).astype("int8").tobytes()
    return found | {f"{name}.bin": RNG.normal(size=(8, 8)).astype("float32").tobytes() for name in "ab"}


def _spec(shape, name: str, dtype=tf.float32) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype, name=name)


def _convert(function, *specs, types=None, io=None, ops=None, custom=False) -> bytes:
    """A `.tflite` whose inputs have the specs' names; `types` as in `target_spec.supported_types`, None = float."""
    concrete = tf.function(function, input_signature=specs).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converter.allow_custom_ops = custom
    if ops:
        converter.target_spec.supported_ops = [ops]
    if types is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if types == [tf.int8]:
            converter.representative_dataset = lambda: ([image[None]] for image in IMAGES)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        else:
            converter.target_spec.supported_types = types
    if io:
        converter.inference_input_type = converter.inference_output_type = io
    return converter.convert()


def _saved_model(function, spec: tf.TensorSpec) -> bytes:
    """With a signature, and the input's name as a saved model has it: "serving_default_image:0"."""
    module = tf.Module()
    module.call = tf.function(function, input_signature=[spec])
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serving_default": module.call})
        return tf.lite.TFLiteConverter.from_saved_model(folder).convert()
