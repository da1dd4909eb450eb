"""What ``convert`` accepts -> a folder with a SavedModel or a float ``.tflite`` that the child process can read."""

import hashlib
import itertools
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

RECURRENT = ("RNN", "LSTM", "GRU", "SimpleRNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
NORMALIZING = ("Rescaling", "Normalization", "BatchNormalization")


@dataclass
class Source:
    """A model that waits for conversion.

    Attributes:
        kind: "keras", "saved_model" or "tflite".
        value: the model, or a path.
        fingerprint: hash of the content; equal fingerprints give equal float files.
        input_names: in the model's own order.
        static_batch: batch size of the file, ``None`` for a free one.
        aware: the model was trained with ``quantize_aware``.
        notes: what the user should know (e.g. "batch fixed at 1: LSTM").
    """

    kind: str
    value: object
    fingerprint: str
    input_names: tuple = ()
    static_batch: int | None = None
    aware: bool = False
    notes: list = field(default_factory=list)

    def layers(self):
        """Every layer of a Keras model, nested ones included; nothing for files."""
        return list(_layers(self.value)) if self.kind == "keras" else []


def read(model_or_path, static_batch=None):
    """A ``Source`` for a Keras 3 or tf_keras model, a path (.keras, .h5, .tflite, SavedModel folder) or .tflite bytes.

    Raises:
        ValueError: the path, the file or the model cannot be used; the message says what to do.
    """
    if isinstance(model_or_path, bytes | bytearray | memoryview):
        return _from_bytes(bytes(model_or_path), "the bytes")
    if isinstance(model_or_path, str | Path):
        return _from_path(Path(model_or_path), static_batch)
    return _from_model(model_or_path, static_batch)


def _from_bytes(content, name):
    if content[4:8] != b"TFL3":
        raise ValueError(
            f"Expected a .tflite file (a flatbuffer marked TFL3). Received {name}, which is none or is damaged."
        )
    return Source("tflite", content, hashlib.sha256(content).hexdigest())


def _from_path(path, static_batch):
    if not path.exists():
        raise ValueError(f"No model at {str(path)!r}. Expected a .keras, .h5 or .tflite file or a SavedModel folder.")
    if path.is_dir():
        if not (path / "saved_model.pb").exists():
            raise ValueError(f"The folder {str(path)!r} holds no saved_model.pb, so it is no SavedModel.")
        digest = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(file.read_bytes())
        return Source("saved_model", path, digest.hexdigest())
    if path.suffix == ".tflite":
        return _from_bytes(path.read_bytes(), str(path))
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise ValueError(f"Unknown kind of model: {str(path)!r}. Expected .keras, .h5, .tflite or a SavedModel folder.")
    return _from_model(load_keras(path), static_batch)


def load_keras(path):
    """Load a ``.keras`` or ``.h5`` file with Keras 3, and with tf_keras where Keras 3 refuses (old files)."""
    import keras

    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ValueError(f"The file {str(path)!r} is damaged: a .keras file is a zip archive and this is none.")
    if path.suffix != ".keras" and path.read_bytes()[:4] != b"\x89HDF":
        raise ValueError(f"The file {str(path)!r} is damaged: it is no HDF5 file.")
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as first:  # noqa: BLE001 - Keras raises anything for a file it can't read
        import tf_keras

        try:
            return tf_keras.models.load_model(path, compile=False)
        except Exception as second:  # noqa: BLE001
            raise ValueError(
                f"Neither Keras 3 nor tf_keras can load {str(path)!r}.\nKeras 3: {_first_line(first)}\n"
                f"tf_keras: {_first_line(second)}\nIf the model has classes of your own, load it yourself "
                "(custom_objects=...) and pass the model."
            ) from first


def _from_model(model, static_batch):
    check_model(model)
    notes = []
    recurrent = sorted(
        {layer.name for layer in _layers(model) if type(layer).__name__ in RECURRENT and not _unrolled(layer)}
    )
    if recurrent and static_batch is None:
        static_batch = 1
        notes.append(f"batch fixed at 1: TFLite has no dynamic batch for {', '.join(recurrent)}")
    batch = model.inputs[0].shape[0]
    if batch is not None and static_batch is None:
        static_batch = batch
    return Source(
        "keras", model, _fingerprint(model, static_batch), tuple(input_names(model)), static_batch, _aware(model), notes
    )


def check_model(model):
    """Raise ValueError for what can't be converted: not a model, subclassed, not stripped, NaN weights, float16."""
    if not hasattr(model, "layers") or not hasattr(model, "weights"):
        raise ValueError(
            f"Expected a Keras model, a path or the bytes of a .tflite file. Received: {type(model).__name__}."
        )
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"Model {model.name!r} is subclassed or not built, so its inputs are unknown. "
            "Expected a Functional or Sequential model: build it with keras.Input, or export it yourself "
            "with model.export(folder) and convert the folder."
        )
    wrapped = sorted({layer.name for layer in _layers(model) if type(layer).__name__ == "Compressed"})
    if wrapped and not _aware(model):
        raise ValueError(
            f"This model still trains compressed layers: {wrapped[:5]}. Call tfcompress.strip(model) first and convert that."
        )
    half = sorted(
        {layer.name for layer in _layers(model) if getattr(layer, "compute_dtype", "") in ("float16", "bfloat16")}
    )
    if half:
        raise ValueError(
            f"These layers compute in half precision, which TFLite's kernels don't: {half[:5]}. Build the same model under "
            'keras.config.set_dtype_policy("float32"), model.set_weights(...), and convert that.'
        )
    for weight in model.weights:
        values = np.asarray(weight)
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            name = getattr(weight, "path", weight.name)
            raise ValueError(
                f"Weight {name!r} holds NaN or infinity. The training has diverged: convert an earlier checkpoint."
            )


def _aware(model):
    try:
        from tfcompress.quantization.aware import is_aware
    except ImportError:
        return False
    return is_aware(model)


def input_names(model):
    """Names of the inputs, in the model's order: the names of the ``Input`` layers."""
    return [_clean(tensor.name) for tensor in model.inputs]


def output_names(model):
    """Names of the outputs, in the model's order: those of the layers they come from, made unique."""
    given = list(getattr(model, "output_names", None) or [_maker(tensor) for tensor in model.outputs])
    names = [_clean(name) for name in given]
    return names if len(set(names)) == len(names) else [f"{name}_{i}" for i, name in enumerate(names)]


def normalizes(source):
    """Whether a model prepares its inputs itself: one of its first layers is Rescaling, Normalization or BatchNorm."""
    layers = [layer for layer in source.layers() if type(layer).__name__ != "InputLayer"]
    return source.kind != "keras" or any(type(layer).__name__ in NORMALIZING for layer in layers[:2])


def export(source, folder):
    """Write the SavedModel of a Keras source into ``folder``: one signature with named inputs and outputs."""
    import tensorflow as tf

    model, names = source.value, output_names(source.value)
    if source.aware:
        from tfcompress.quantization.aware import bake_aware

        model = bake_aware(model)

    def serve(*arrays):
        flat = tf.nest.flatten(model(tf.nest.pack_sequence_as(_structure(model), list(arrays)), training=False))
        return dict(zip(names, flat, strict=True))

    function = tf.function(serve, autograph=False).get_concrete_function(*specifications(source))
    module = tf.Module()
    module.kept = list(function.graph.variables)
    tf.saved_model.save(module, folder, signatures={"serving_default": function})


def specifications(source):
    """A TensorSpec an input, in the model's order."""
    import tensorflow as tf

    return [
        tf.TensorSpec((source.static_batch, *tensor.shape[1:]), _dtype(tensor), name=name)
        for tensor, name in zip(source.value.inputs, source.input_names, strict=True)
    ]


def reference(source, batches):
    """The Keras model's outputs by name, batch after batch (inference mode, float32)."""
    import tensorflow as tf

    model, names, results = source.value, output_names(source.value), []
    for group in _runs_together(batches, model.inputs[0].shape[0] is None):
        arrays = [tf.constant(np.concatenate([batch[name] for batch in group])) for name in source.input_names]
        flat = tf.nest.flatten(model(tf.nest.pack_sequence_as(_structure(model), arrays), training=False))
        sizes = np.cumsum([len(next(iter(batch.values()))) for batch in group])[:-1]
        parts = [np.split(np.asarray(value), sizes) for value in flat]
        results += [dict(zip(names, part, strict=True)) for part in zip(*parts, strict=True)]
    return results


def _runs_together(batches, free, size=32):
    """Group neighbouring batches of equal shapes: a recurrent net in batches of one is slow in Keras."""
    if not free:
        return [[batch] for batch in batches]
    shapes = itertools.groupby(batches, key=lambda batch: {name: array.shape for name, array in batch.items()})
    whole = [list(group) for _, group in shapes]
    steps = [max(1, size // len(next(iter(group[0].values())))) for group in whole]
    return [group[i : i + step] for group, step in zip(whole, steps, strict=True) for i in range(0, len(group), step)]


def _structure(model):
    structure = getattr(model, "_inputs_struct", None)
    if structure is not None:
        return structure
    return model.inputs if len(model.inputs) > 1 else model.inputs[0]


def _maker(tensor):
    history = tensor._keras_history
    return (getattr(history, "operation", None) or history.layer).name


def _dtype(tensor):
    dtype = tensor.dtype
    return dtype if isinstance(dtype, str) else dtype.name


def _clean(name):
    """A name TensorFlow keeps as it is in a signature."""
    text = "".join(c if c.isalnum() or c == "_" else "_" for c in name.split(":")[0])
    return text if text[:1].isalpha() else f"input_{text}"


def _layers(model):
    for layer in model.layers:
        yield layer
        for inner in ("layer", "forward_layer", "backward_layer"):
            if hasattr(layer, inner) and hasattr(getattr(layer, inner), "name"):
                yield getattr(layer, inner)
        if hasattr(layer, "layers"):
            yield from _layers(layer)


def _unrolled(layer):
    inner = getattr(layer, "forward_layer", layer)
    return bool(getattr(inner, "unroll", False))


def _fingerprint(model, static_batch):
    digest = hashlib.sha256(repr((type(model).__module__.split(".")[0], static_batch)).encode())
    try:
        digest.update(json.dumps(model.get_config(), default=repr, sort_keys=True).encode())
    except (NotImplementedError, TypeError, ValueError):
        digest.update(repr(id(model)).encode())
    for weight in model.weights:
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _first_line(error):
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
