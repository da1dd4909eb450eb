"""`Splits`: what every data set gives, and `find`, which looks for files that no package holds."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Splits:
    """Train, validation and test arrays of one data set.

    `x_*` float32, first axis = example; `y_*` int32 class indices into `class_names`.
    `group_*` (optional, int32 or str) says whom an example comes from: patient record, speaker. Where a set
    is split by group, no group is in two splits. `licence` names the licence and whom to credit.

    >>> s = Splits("toy", ("a", "b"), *[np.zeros((2, 3)), np.array([0, 1])] * 3)
    >>> s.input_shape, s.x_train.dtype, s.y_val.dtype
    ((3,), dtype('float32'), dtype('int32'))
    >>> print(s)
    toy: (3,) -> 2 classes; 2 train, 2 validation, 2 test
    """

    name: str
    class_names: tuple
    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    licence: str = ""
    group_train: np.ndarray | None = None
    group_val: np.ndarray | None = None
    group_test: np.ndarray | None = None

    def __post_init__(self):
        for part in ("train", "val", "test"):
            x = np.asarray(getattr(self, f"x_{part}"), "float32")
            y = np.asarray(getattr(self, f"y_{part}"), "int32")
            if len(x) == 0 or len(x) != len(y):
                raise ValueError(
                    f"{self.name}: the {part} split holds {len(x)} examples and {len(y)} labels; "
                    "expected as many labels as examples, and at least one."
                )
            if y.min() < 0 or y.max() >= len(self.class_names):
                raise ValueError(
                    f"{self.name}: {part} labels run from {y.min()} to {y.max()}; "
                    f"expected 0..{len(self.class_names) - 1} for classes {self.class_names}."
                )
            object.__setattr__(self, f"x_{part}", x)
            object.__setattr__(self, f"y_{part}", y)

    @property
    def input_shape(self):
        """Shape of one example, without the batch axis."""
        return self.x_train.shape[1:]

    @property
    def classes(self):
        """Number of classes."""
        return len(self.class_names)

    def __str__(self):
        return (
            f"{self.name}: {self.input_shape} -> {self.classes} classes; "
            f"{len(self.x_train)} train, {len(self.x_val)} validation, {len(self.x_test)} test"
        )


def find(filename, path=None, *, help):
    """Path of a data file or folder: `path` itself, `path/filename`, or the same under env TFCOMPRESS_DATA.

    Raises FileNotFoundError with the sentence `help` (how to get the data) when it is in neither.
    """
    roots = [path] if path is not None else [os.environ.get("TFCOMPRESS_DATA")]
    for root in roots:
        if not root:
            continue
        root = Path(root).expanduser()
        for candidate in (root / filename, root):
            if candidate.is_file() and (candidate.name == filename or candidate.suffix == Path(filename).suffix):
                return candidate
    where = f"no {filename} in {path}" if path is not None else f"no {filename} in TFCOMPRESS_DATA"
    raise FileNotFoundError(f"{help} ({where})")
