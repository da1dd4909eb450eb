"""Accuracy of what ran on a phone: labels, the phone's outputs, and this computer's outputs beside them."""

import dataclasses
import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np

from android_bench.metrics import agreement, metrics
from android_bench.reference import Reference


@dataclasses.dataclass(frozen=True)
class Pack:
    """Samples to run on a phone: `inputs` by name (or "x" for the only one), labels as class numbers, or None."""

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None
    sha256: str = ""  # of the file they were read from

    @classmethod
    def read(cls, path, limit: int | None = None) -> "Pack":
        """An `.npz` with `x` (or one array for each input, by name), samples first, and `y`, class numbers.

        `limit` takes the first samples only.

        Raises:
            ValueError: no .npz, arrays of anything but numbers, no inputs, or lengths that differ.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"Expected an .npz file of samples. Received: {str(path)!r}, which is not a file.")
        arrays = {name: array[:limit] for name, array in _arrays(path).items()}
        labels = arrays.pop("y", None)
        lengths = {name: len(array) for name, array in (arrays | ({"y": labels} if labels is not None else {})).items()}
        if not arrays or len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise ValueError(
                f"Expected x (or one array for each input) and y, all with the same number of samples. Received in "
                f"{str(path)!r}: {lengths or 'nothing'}."
            )
        return cls(arrays, labels, hashlib.sha256(path.read_bytes()).hexdigest())

    @property
    def feeds(self):
        """The inputs as `reference.make` takes them: a lone `x` fits whatever name the file's input has."""
        return self.inputs["x"] if list(self.inputs) == ["x"] else self.inputs


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"Expected an .npz file, as numpy.savez writes it. Received: {str(path)!r}, which is none.")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: np.asarray(stored[name]) for name in stored.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"Expected an .npz file of plain arrays. Received: {str(path)!r} ({error}).") from None
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or not array.ndim:
            raise ValueError(f"Expected arrays of numbers, samples first. Received in {str(path)!r}: {name}, "
                             f"{array.dtype} of shape {array.shape}.")  # fmt: skip
    return arrays


def score(reference: Reference, scores: np.ndarray, pack: Pack) -> dict:
    """Fields of a row: accuracy, macro_f1, recalls (with labels and class scores) and facts about this computer.

    `facts["host_agreement"]` is the share of samples with the same top-1 as this computer's outputs of the same file,
    `facts["host_max_difference"]` the largest difference of the first output, in its unit; accuracy is the
    first output's too. Where there are more, `facts["host_differences"]` has all of them by name (`measure.py`).
    """
    labels = pack.labels
    facts = {"eval_samples": reference.samples, "eval_how": reference.how, "eval_sha256": pack.sha256,
             "host_max_difference": float(np.max(np.abs(scores - reference.scores)))}  # fmt: skip
    if scores.ndim != 2:
        return {"facts": facts | {"accuracy_note": f"the output's shape {scores.shape} is not one of class scores"}}
    facts["host_agreement"] = agreement(scores, reference.scores)
    if labels is None:
        return {"facts": facts | {"accuracy_note": "the data has no labels (y)"}}
    try:
        found = metrics(labels, scores)
    except ValueError as error:
        return {"facts": facts | {"accuracy_note": str(error)}}
    return {"accuracy": found.accuracy, "macro_f1": found.macro_f1, "recalls": found.recalls, "facts": facts}

