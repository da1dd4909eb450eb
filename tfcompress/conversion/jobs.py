"""What the child process does: every function takes paths and plain values, and returns what JSON can hold.

Nothing here is imported by the parent process.
"""

import os
import re
import time
from pathlib import Path

from tfcompress.conversion import biases, exact, int8_kernels, interpreter, mix, names, recipe, rewrite, unclip
from tfcompress.conversion.batches import load_batches, save_batches
from tfcompress.conversion.file import read, write
from tfcompress.conversion.worker import ConversionError


def warm_up():
    """Import what is slow to import, before the first fork. Nothing here may start TensorFlow's run time."""
    import litert_quantizer.quantizer  # noqa: F401
    import tensorflow as tf

    tf.lite.TFLiteConverter  # noqa: B018 - tf.lite is imported when first touched
    tf.lite.Interpreter  # noqa: B018


def ready():
    """Nothing: the answer shows that the child has finished its imports."""


def crash(number):
    """Die by a signal, as TensorFlow does on some LSTM graphs (for the tests)."""
    os.kill(os.getpid(), number)


def to_float(saved_model, output):
    """The one TFLiteConverter run of a model: SavedModel folder -> float ``.tflite``. Returns seconds."""
    import tensorflow as tf

    started = time.perf_counter()
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=["serving_default"])
    model = read(_convert(converter))
    unclip.remove_cell_clip(model)
    rewrite.simplify(model)
    Path(output).write_bytes(write(model))
    return time.perf_counter() - started


def to_precision(saved_model, precision, output, batches=None, io="float"):
    """The same precision by TFLiteConverter alone. Precision "qat": fake-quants in the graph carry the ranges."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=["serving_default"])
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int16x8":
        wide = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [wide, tf.lite.OpsSet.TFLITE_BUILTINS]
    if precision in ("int8", "int16x8"):
        fed = load_batches(batches)
        converter.representative_dataset = lambda: (
            {n: a[i : i + 1] for n, a in b.items()} for b in fed for i in _rows(b)
        )
    if io == "int8":
        converter.inference_input_type = converter.inference_output_type = (
            tf.int16 if precision == "int16x8" else tf.int8
        )
    content = _convert(converter)
    model = read(int8_kernels.pack(content) if precision == "qat" else content)
    unclip.remove_cell_clip(model)
    names.shorten(model)
    Path(output).write_bytes(write(model))
    return []


def _convert(converter):
    """Run the converter; of MLIR's pages of errors, say which operations are in the way and in which layers."""
    try:
        return converter.convert()
    except Exception as error:
        text = str(error)
        if "tensor list ops" in text.lower():
            raise ConversionError(
                "TFLite can't convert this loop with a free batch size: pass static_batch=1."
            ) from error
        ops = set(re.findall(r"'(tf\.\w+)' op is neither", text))
        pattern = r"error: loc\([^\n]*?\"([^\"@:]+)@[^\n]*?'(tf\.\w+)' op is neither"
        places = {op: name for name, op in re.findall(pattern, text)}
        if not ops:
            raise
        found = ", ".join(f"{op} in {places[op]}" if op in places else op for op in sorted(ops))
        raise ConversionError(
            f"TFLite has no kernel for {found}, or its sizes are unknown there. Build that part of other operations, "
            "give the model fixed input sizes, or leave it out of the file."
        ) from error


def _rows(batch):
    return range(len(next(iter(batch.values()))))


def adopt(path, output):
    """Check a float ``.tflite`` file from elsewhere, give it a signature if it has none, write it to ``output``."""
    content = Path(path).read_bytes()
    model = read(content)
    recipe.add_signature(model)
    interpreter.Runner(content)
    rewrite.simplify(model)
    names.unique(model)
    Path(output).write_bytes(write(model))


def calibrate(float_file, batches, output):
    """Ranges of all activations (min and max over all samples) into the JSON file ``output``. Returns seconds."""
    started = time.perf_counter()
    recipe.calibrate(Path(float_file).read_bytes(), load_batches(batches), output)
    return time.perf_counter() - started


def quantize(float_file, precision, output, ranges=None, io="float", keep_float=()):
    """Derive one precision from the float file. Returns notes on what fell back."""
    original, notes = Path(float_file).read_bytes(), []
    content = original
    if precision != "float32":
        content, notes = recipe.quantize(original, precision, ranges, io=io, keep_float=keep_float)
    model = read(content)
    if ranges:
        biases.restore(model, read(original))
        rewrite.fuse_islands(model)
    names.shorten(model)
    Path(output).write_bytes(write(model))
    return notes


def weight_layers(float_file):
    """The layers that can have a precision of their own."""
    return mix.layers(Path(float_file).read_bytes())


def try_precisions(float_file, layer, precisions, ranges, batches):
    """Why a layer can't have each of the precisions on today's run times, "" where it can; a crash is the worker's to
    tell."""
    content, batch = Path(float_file).read_bytes(), load_batches(batches)[0]
    return [mix.runs(content, layer, precision, ranges, batch) for precision in precisions]


def mix_files(float_file, files, ranges=None, alone=False):
    """Write files with a precision a layer, ``files`` as ``[[[[layer, precision], ...], path], ...]``."""
    for chosen, path in files:
        Path(path).write_bytes(mix.mixed(Path(float_file).read_bytes(), chosen, ranges, alone=alone))


def judge(float_file, assignments, batches=None, ranges=None, alone=False):
    """``[[damage, bytes], ...]`` of files that are made for it."""
    fed = load_batches(batches) if batches else None
    return mix.judge(Path(float_file).read_bytes(), assignments, fed, ranges, alone=alone)


def to_exact(float_file, output, fast=False, keep_float=(), taken=None):
    """Low-bit weights of the float file as integers; scale times code gives them back to 5e-7.

    ``taken`` says which form each tensor takes, by place: 0 the best, the number of forms for float32; None: the best.
    Returns ``{"forms": how many there are for each tensor, "notes": sentences}``.
    """
    original = Path(float_file).read_bytes()
    recipe.check_patterns(original, keep_float)
    found = exact.choices(original, fast=fast, keep_float=keep_float)
    places = taken or [0] * len(found)
    chosen = {
        buffer: forms[place]
        for (buffer, (_, forms)), place in zip(found.items(), places, strict=True)
        if place < len(forms)
    }
    model = read(original)
    exact.store(model, chosen)
    names.shorten(model)
    Path(output).write_bytes(write(model))
    return {"forms": [len(forms) for _, forms in found.values()], "notes": exact.notes(found, chosen)}


def answers(saved_model, batches, output):
    """What the SavedModel itself says to the batches, into the ``.npz`` ``output``."""
    import tensorflow as tf

    loaded = tf.saved_model.load(saved_model)
    serve = loaded.signatures["serving_default"]
    results = [serve(**{name: tf.constant(array) for name, array in feed.items()}) for feed in load_batches(batches)]
    save_batches(output, [{name: value.numpy() for name, value in result.items()} for result in results])


def run(file, batches, output, runtime, delegate, limit):
    """Run a file on batches, for ``limit`` seconds at most, and write its outputs to the ``.npz`` ``output``."""
    started, results = time.perf_counter(), []
    runner = interpreter.Runner(Path(file).read_bytes(), runtime=runtime, delegate=delegate)
    for feed in load_batches(batches):
        results.append(runner(feed))
        if time.perf_counter() - started > limit:
            break
    save_batches(output, results)
