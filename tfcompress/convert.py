"""``convert``: a Keras model (or a file) becomes a ``.tflite`` file in any precision, checked before you get it."""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfcompress.conversion import calibration as calibrations
from tfcompress.conversion import source
from tfcompress.conversion.calibration import Calibration, CalibrationWarning
from tfcompress.conversion.exact import PRECISIONS as EXACT
from tfcompress.conversion.gate import GateReport
from tfcompress.conversion.interpreter import Runner
from tfcompress.conversion.pipeline import Pipeline
from tfcompress.conversion.worker import ConversionError, worker

PRECISIONS = ("float32", "float16", "dynamic", "int8", "int16x8", "int4")  # what ``convert_all`` makes if not told
BACKENDS = ("litert", "tflite_converter")
STATIC = ("int8", "int16x8")

__all__ = [
    "Calibration",
    "CalibrationWarning",
    "ConversionError",
    "PRECISIONS",
    "TFLiteModel",
    "convert",
    "convert_all",
]


@dataclass(frozen=True)
class TFLiteModel:
    """A ``.tflite`` file in memory.

    Attributes:
        content: the file, bytes.
        precision: one of ``PRECISIONS``, "exact", "exact8" or "mixed"; "unknown" for a file that was loaded.
        gate: what was checked (``GateReport``); ``None`` for a file that was loaded.
        seconds: what each step took: "float", "calibrate", "quantize", "reference", "gate".
    """

    content: bytes
    precision: str = "unknown"
    gate: GateReport | None = None
    seconds: dict = field(default_factory=dict)

    @property
    def size(self):
        """Bytes of the file."""
        return len(self.content)

    def save(self, path):
        """Write the file; a reader never sees half of it. Returns the path. An unwritable place raises OSError."""
        path = Path(path)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self.content)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
        return path

    @classmethod
    def load(cls, path):
        """A ``.tflite`` file from disk. Raises ValueError when there is none or it is damaged."""
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"No .tflite file at {str(path)!r}.")
        return cls(source.read(path).value)

    def predict(self, x):
        """Run the file on this computer with ai_edge_litert.

        Args:
            x: an array (samples first), or a dict of arrays by input name.

        Returns:
            A float array, or a dict of arrays by output name where the file has several outputs. Samples first.
        """
        runner = Runner(self.content)
        results = [(runner(batch), held) for batch, held in calibrations.cut(x, runner.accepts())]
        joined = {name: np.concatenate([r[name][:held] for r, held in results]) for name in results[0][0]}
        return joined if len(joined) > 1 else next(iter(joined.values()))

    def __repr__(self):
        return f"TFLiteModel(precision={self.precision!r}, size={self.size})"


def convert(
    model_or_path,
    precision="float32",
    calibration=None,
    *,
    io="float",
    backend="litert",
    keep_float=(),
    static_batch=None,
):
    """Convert a model to ``.tflite`` in one precision, and check the result before returning it.

    Args:
        model_or_path: a Functional or Sequential Keras 3 or tf_keras model; a path (.keras, .h5, SavedModel folder,
            float .tflite); or the bytes of a float .tflite file. Models from ``compress`` need ``strip`` first.
        precision: "float32"; "float16" (weights); "dynamic" (int8 weights, float activations quantized at run time);
            "int8" (weights and activations); "int16x8" (16-bit activations, 8-bit weights); "int4" (4-bit weights
            where the run time has kernels, 8-bit elsewhere, listed in ``gate.notes``); "exact" (trained low-bit
            weights as they are, each back to 5e-7: int2, int4 or int8 codes with their scales; where they are on no
            such grid a table, which is read at every run, or float16, whatever is smaller; float activations; outputs
            are a float32 model's to 1e-4; XNNPACK leaves what int2 and int4 feed to slower kernels); "exact8" (the
            same, only 8-bit codes and float16: XNNPACK unpacks these when it loads the file and runs them as fast as
            float32).
        calibration: 100 to 500 typical inputs, for int8 and int16x8; see ``conversion.calibration.bind``.
        io: "float": inputs and outputs stay float32; "int8": they are quantized too (int16 for int16x8).
        backend: "litert" (TFLiteConverter once, then litert-quantizer) or "tflite_converter" (TFLiteConverter alone).
        keep_float: regular expressions on the names of layers that must stay float.
        static_batch: batch size fixed in the file; default: free, except for models with LSTM, GRU or RNN layers (1).

    Returns:
        A ``TFLiteModel``: ``.save(path)``, ``.predict(x)``, ``.size``, ``.gate``.

    Raises:
        ValueError: a bad argument, model or calibration set.
        ConversionError: TensorFlow can't convert the model, or the file failed the gate. Nothing is written.

    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="y")])
    >>> file = convert(model, "dynamic")
    >>> file.gate.agreement[0].output, file.predict(np.ones((3, 4))).shape
    ('y', (3, 2))
    """
    options = dict(io=io, backend=backend, keep_float=keep_float, static_batch=static_batch)
    return convert_all(model_or_path, (precision,), calibration, **options)[precision]


def convert_all(
    model_or_path,
    precisions=PRECISIONS,
    calibration=None,
    *,
    io="float",
    backend="litert",
    keep_float=(),
    static_batch=None,
):
    """``{precision: TFLiteModel}``: as ``convert``, with one float conversion and one calibration for all."""
    precisions = tuple(precisions)
    _check_arguments(precisions, io, backend, static_batch)
    worker.start()
    origin = source.read(model_or_path, static_batch)
    _check_source(origin, precisions, calibration, backend, keep_float)
    with tempfile.TemporaryDirectory(prefix="tfcompress-") as name:
        pipeline = Pipeline(origin, Path(name))
        pipeline.bind(calibration)
        return {precision: _make(pipeline, precision, io, backend, tuple(keep_float)) for precision in precisions}


def _make(pipeline, precision, io, backend, keep_float):
    path, seconds, notes = pipeline.write(precision, io, backend, keep_float)
    try:
        report = pipeline.check(path, precision, notes)
    except ConversionError:
        if precision not in EXACT:
            raise
        report = pipeline.check(path, precision, pipeline.settle(precision, keep_float))
    spent = dict(pipeline.seconds, quantize=seconds, gate=report.seconds)
    return TFLiteModel(path.read_bytes(), precision, report, spent)


def _check_arguments(precisions, io, backend, static_batch):
    if static_batch is not None and (not isinstance(static_batch, int) or static_batch < 1):
        raise ValueError(f"`static_batch` is a batch size, an int >= 1, or None. Received: {static_batch!r}.")
    unknown = [precision for precision in precisions if precision not in PRECISIONS + EXACT]
    if unknown:
        raise ValueError(f"Unknown precision: {unknown}. Known: {[*PRECISIONS, *EXACT]}.")
    if backend not in BACKENDS:
        raise ValueError(f"Unknown backend: {backend!r}. Known: {list(BACKENDS)}.")
    if io not in ("float", "int8"):
        raise ValueError(f"Unknown io: {io!r}. Known: 'float', 'int8'.")
    if io == "int8" and not set(precisions) <= set(STATIC):
        raise ValueError(
            f"io='int8' needs a precision with quantized activations, {list(STATIC)}. Received: {list(precisions)}."
        )


def _check_source(origin, precisions, calibration, backend, keep_float):
    if origin.aware and set(precisions) != {"int8"}:
        raise ValueError(
            f"A quantization-aware model becomes an int8 file. Received precision {list(precisions)}. For the others, "
            "convert the model that it was made from."
        )
    static = [precision for precision in precisions if precision in STATIC]
    if static and calibration is None and not origin.aware:
        raise ValueError(
            f"Precision {static} needs calibration data: 100 to 500 typical inputs, prepared as in training."
        )
    if backend == "tflite_converter" and origin.kind == "tflite":
        raise ValueError(
            "backend='tflite_converter' starts from a model. Received a .tflite file: use backend='litert'."
        )
    lacking = [precision for precision in precisions if precision in ("int4", *EXACT)]
    if backend == "tflite_converter" and lacking:
        raise ValueError(f"TFLiteConverter has no {', '.join(lacking)}: use backend='litert'.")
    if keep_float and (backend == "tflite_converter" or origin.aware):
        raise ValueError("keep_float works with backend='litert' (a quantization-aware model has its own keep_float).")
