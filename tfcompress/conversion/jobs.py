"""What the child process does: every function takes paths and plain values, and returns what JSON can hold.

Nothing here is imported by the parent process.
"""

import time
from pathlib import Path

from tfcompress.conversion import interpreter, recipe
from tfcompress.conversion.batches import load_batches, save_batches


def warm_up():
    """Import what is slow to import, before the first fork. Nothing here may start TensorFlow's run time."""
    import litert_quantizer.quantizer  # noqa: F401
    import tensorflow as tf

    tf.lite.TFLiteConverter  # noqa: B018 - tf.lite is imported when first touched
    tf.lite.Interpreter  # noqa: B018


def to_float(saved_model, output):
    """The one TFLiteConverter run of a model: SavedModel folder -> float ``.tflite``. Returns seconds."""
    import tensorflow as tf

    started = time.perf_counter()
    content = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=["serving_default"]).convert()
    Path(output).write_bytes(content)
    return time.perf_counter() - started


def adopt(path, output):
    """Check a float ``.tflite`` file from elsewhere, give it a signature if it has none, write it to ``output``."""
    content = recipe.with_signature(Path(path).read_bytes())
    interpreter.Runner(content)
    Path(output).write_bytes(content)


def calibrate(float_file, batches, output):
    """Ranges of all activations (min and max over all samples) into the JSON file ``output``. Returns seconds."""
    started = time.perf_counter()
    recipe.calibrate(Path(float_file).read_bytes(), load_batches(batches), output)
    return time.perf_counter() - started


def quantize(float_file, precision, output, ranges=None, io="float", keep_float=()):
    """Derive one precision from the float file. Returns seconds."""
    started = time.perf_counter()
    content = recipe.quantize(Path(float_file).read_bytes(), precision, ranges, io=io, keep_float=keep_float)
    Path(output).write_bytes(content)
    return time.perf_counter() - started


def run(file, batches, output, runtime, delegate):
    """Run a file on batches and write its outputs, one array a name, to the ``.npz`` ``output``."""
    runner = interpreter.Runner(Path(file).read_bytes(), runtime=runtime, delegate=delegate)
    results = [runner(feed) for feed in load_batches(batches)]
    save_batches(output, results)

