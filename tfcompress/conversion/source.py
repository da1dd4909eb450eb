"""What ``convert`` accepts -> a folder with a SavedModel or a float ``.tflite`` that the child process can read."""

import hashlib
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfcompress import flatbuffer
from tfcompress.conversion import keras_model
from tfcompress.conversion.keras_model import all_layers

RECURRENT = {"RNN", "Bidirectional"}  # LSTM, GRU, SimpleRNN, ConvLSTM2D and users' own are subclasses of RNN
HALF = ("float16", "bfloat16")
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
        return list(all_layers(self.value)) if self.kind == "keras" else []


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
    try:
        flatbuffer.read(content)
    except ValueError as error:
        raise ValueError(f"Can't use {name}. {error}") from None
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
    if any(getattr(layer, "compute_dtype", "") in HALF for layer in all_layers(model)) and not _aware(model):
        model = keras_model.in_float32(model)
        notes.append("the model computes in half precision; TFLite's kernels don't: converted with float32 arithmetic")
    recurrent = sorted(
        {layer.name for layer in all_layers(model) if _classes(layer) & RECURRENT and not _unrolled(layer)}
    )
    if recurrent and static_batch is None:
        static_batch = 1
        notes.append(f"batch fixed at 1: TFLite has no dynamic batch for {', '.join(recurrent)}")
    batch = model.inputs[0].shape[0]
    if batch is not None and static_batch is None:
        static_batch = batch
    names = tuple(keras_model.input_names(model))
    return Source("keras", model, _fingerprint(model, static_batch), names, static_batch, _aware(model), notes)


def check_model(model):
    """Raise ValueError for what can't be converted: not a model, subclassed, not stripped, NaN weights."""
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
    wrapped = sorted({layer.name for layer in all_layers(model) if type(layer).__name__ == "Compressed"})
    if wrapped and not _aware(model):
        raise ValueError(
            f"This model still trains compressed layers: {wrapped[:5]}. Call tfcompress.strip(model) first and "
            "convert that."
        )
    for weight in model.weights:
        values = weight.numpy()
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


def normalizes(source):
    """Whether a model prepares its inputs itself: one of its first layers is Rescaling, Normalization or BatchNorm."""
    layers = [layer for layer in source.layers() if type(layer).__name__ != "InputLayer"]
    return source.kind != "keras" or any(type(layer).__name__ in NORMALIZING for layer in layers[:2])


def _classes(layer):
    return {kind.__name__ for kind in type(layer).__mro__}


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
        digest.update(np.ascontiguousarray(weight.numpy()).data)
    return digest.hexdigest()


def _first_line(error):
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
