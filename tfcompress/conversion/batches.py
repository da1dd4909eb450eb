"""A list of batches ``[{name: array}, ...]`` in one ``.npz`` file, on its way to or from the child process."""

import json

import numpy as np


def save_batches(path, batches):
    """Write batches without pickle."""
    np.savez(path, **{f"{i}/{name}": array for i, batch in enumerate(batches) for name, array in batch.items()})


def load_batches(path):
    """Read what ``save_batches`` wrote.

    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "x.npz")
    >>> save_batches(path, [{"a": np.ones(2)}, {"a": np.zeros(1)}])
    >>> load_batches(path)
    [{'a': array([1., 1.])}, {'a': array([0.])}]
    """
    batches = {}
    with np.load(path, allow_pickle=False) as file:
        for key in file.files:
            index, name = key.split("/", 1)
            batches.setdefault(int(index), {})[name] = file[key]
    return [batches[index] for index in sorted(batches)]


def save_ranges(path, ranges):
    """Write ``{tensor name: [low, high]}`` as ``recipe.calibration_ranges`` reads it."""
    with open(path, "w") as file:
        json.dump(ranges, file)
