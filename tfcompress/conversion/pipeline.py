"""One model's way through the child process: float file once, ranges once, then a file and a gate a precision."""

import time
import weakref

import numpy as np

from tfcompress.conversion import calibration, exact, gate, keras_model, samples, source
from tfcompress.conversion.batches import load_batches, save_batches
from tfcompress.conversion.interpreter import Runner
from tfcompress.conversion.worker import ConversionError, worker

_KEPT, _float_files = 2, []  # [(weak reference to the model, fingerprint, float file's bytes)], newest last


class Pipeline:
    """Files of one conversion in a temporary folder.

    Args:
        origin: the ``Source``.
        folder: an empty folder that lives as long as the pipeline.
    """

    def __init__(self, origin, folder):
        self.origin, self.folder = origin, folder
        self.seconds, self.notes = {}, list(origin.notes)
        self.batches, self.inputs_are, self._expected, self._ranges = [], "", None, None

    @property
    def float_file(self):
        """Path of the float file: from the cache of this process, or made by TFLiteConverter in the child."""
        path = self.folder / "float.tflite"
        if path.exists():
            return path
        started = time.perf_counter()
        content = _recall(self.origin)
        if content is not None:
            path.write_bytes(content)
        elif self.origin.kind == "tflite":
            given = self.folder / "given.tflite"
            given.write_bytes(self.origin.value)
            worker.run("adopt", self.folder, path=str(given), output=str(path))
        else:
            worker.run("to_float", self.folder, saved_model=str(self.saved_model()), output=str(path))
            _remember(self.origin, path.read_bytes())
        self.seconds["float"] = time.perf_counter() - started
        return path

    def saved_model(self):
        """Folder of the SavedModel, written at the first call for Keras models."""
        if self.origin.kind == "saved_model":
            return self.origin.value
        folder = self.folder / "saved_model"
        if not folder.exists():
            keras_model.export(self.origin, str(folder))
        return folder

    def bind(self, data):
        """Batches for calibration and gate: the user's data, or random inputs for the gate alone."""
        layers = self.origin.layers()
        self.inputs = keras_model.inputs(self.origin) or Runner(self.float_file.read_bytes()).accepts()
        if data is None:
            self.batches, self.inputs_are = samples.random_batches(self.inputs, layers), "random inputs"
        else:
            self.batches = calibration.bind(
                data, self.inputs, normalized=source.normalizes(self.origin), aliases=keras_model.aliases(self.origin)
            )
            self.inputs_are = "calibration data"
        fixed = any(spec.shape and spec.shape[0] is not None for spec in self.inputs.values())
        self._fed = calibration.first(self.batches, gate.SAMPLES, None if fixed else gate.AT_ONCE)

    def expected(self):
        """The model's own outputs on the gate's samples, and words for what "the model" is."""
        if self._expected is None:
            started = time.perf_counter()
            if self.origin.kind == "keras":
                self._expected = keras_model.reference(self.origin, self._fed), "Keras model"
            elif self.origin.kind == "saved_model":
                self._expected = self._answers(), "SavedModel"
            else:
                runner = Runner(self.float_file.read_bytes())
                self._expected = [runner(batch) for batch in self._fed], "float .tflite file"
            self.seconds["reference"] = time.perf_counter() - started
        return self._expected

    def _answers(self):
        fed, said = self.folder / "asked.npz", self.folder / "answers.npz"
        save_batches(fed, self._fed)
        worker.run("answers", self.folder, saved_model=str(self.origin.value), batches=str(fed), output=str(said))
        return load_batches(said)

    def ranges(self):
        """File with the range of every activation."""
        if self._ranges is None:
            fed = self.folder / "calibration.npz"
            save_batches(fed, self.batches)
            self._ranges = self.folder / "ranges.json"
            self.seconds["calibrate"] = worker.run(
                "calibrate", self.folder, float_file=str(self.float_file), batches=str(fed), output=str(self._ranges)
            )
        return self._ranges

    def write(self, precision, io, backend, keep_float):
        """The file of one precision. Returns its path, the seconds it took and notes on what fell back."""
        output = self.folder / f"{precision}.tflite"
        if precision in exact.PRECISIONS:
            started = time.perf_counter()
            made = self._write_exact(precision, keep_float)
            return output, time.perf_counter() - started, made["notes"]
        if backend == "tflite_converter" or self.origin.aware:
            return output, *self._write_with_converter(output, precision, io)
        ranges = str(self.ranges()) if precision in ("int8", "int16x8") else None
        float_file, started = str(self.float_file), time.perf_counter()
        notes = worker.run(
            "quantize", self.folder, float_file=float_file, precision=precision, output=str(output), ranges=ranges,
            io=io, keep_float=keep_float,
        )  # fmt: skip
        return output, time.perf_counter() - started, notes

    def _write_exact(self, precision, keep_float, taken=None):
        return worker.run(
            "to_exact", self.folder, float_file=str(self.float_file), output=str(self.folder / f"{precision}.tflite"),
            fast=precision == "exact8", keep_float=keep_float, taken=taken,
        )  # fmt: skip

    def settle(self, precision, keep_float):
        """After an exact file failed the gate: the best form of each tensor that passes. Writes it; returns notes."""
        output, counts = self.folder / f"{precision}.tflite", self._write_exact(precision, keep_float)["forms"]

        def passes(taken):
            self._write_exact(precision, keep_float, taken)
            try:
                return bool(self.check(output, precision, ()))
            except ConversionError:
                return False

        return self._write_exact(precision, keep_float, exact.settle(counts, passes))["notes"]

    def _write_with_converter(self, output, precision, io):
        fed = self.folder / "calibration.npz"
        if precision in ("int8", "int16x8") and not fed.exists():
            save_batches(fed, self.batches)
        folder, wanted = str(self.saved_model()), "qat" if self.origin.aware else precision
        started = time.perf_counter()
        try:
            notes = worker.run(
                "to_precision", self.folder, saved_model=folder, precision=wanted, output=str(output),
                batches=str(fed), io=io,
            )  # fmt: skip
        except ConversionError as error:
            advice = "" if self.origin.aware else " Try backend='litert'."
            raise ConversionError(f"TFLiteConverter can't make the {precision} file. {error}{advice}") from error
        return time.perf_counter() - started, notes

    def check(self, path, precision, notes):
        """The gate."""
        expected, reference = self.expected()
        return gate.check(
            path, precision, self._fed, expected, self.folder,
            inputs=self.inputs_are, reference=reference, notes=[*self.notes, *notes],
            **(self._nearness(expected) if precision in exact.PRECISIONS else {}),
        )  # fmt: skip

    def _nearness(self, expected):
        """How near an exact file must be to the model.

        Where activations are rounded to a few levels, a last bit that sums of another order differ in moves one of a
        million by a level: there the typical sample counts, beside how near the float file is.
        """
        if not any(type(layer).__name__ == "QuantizedActivation" for layer in self.origin.layers()):
            return {"bound": exact.BOUND}
        runner = Runner(self.float_file.read_bytes())
        near = gate.distances([runner(batch) for batch in self._fed], expected, np.median)
        return {"bound": max(exact.BOUND, *(2 * off for off in near.values())), "over": np.median}


def _recall(origin):
    for model, fingerprint, content in _float_files:
        if fingerprint == origin.fingerprint and (model is None or model() is origin.value):
            return content
    return None


def _remember(origin, content):
    model = weakref.ref(origin.value) if origin.kind == "keras" else None
    _float_files.append((model, origin.fingerprint, content))
    del _float_files[:-_KEPT]
