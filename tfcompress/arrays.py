"""Arrays from files, never unpickled."""

import zipfile
from pathlib import Path

import numpy as np


def read_npz(path):
    """``{name: array}`` of an ``.npz`` file (or ``{"x": array}`` of an ``.npy`` file).

    Raises:
        ValueError: no such file, a damaged one, or one that holds pickled objects.

    >>> read_npz("nowhere.npz")
    Traceback (most recent call last):
    ValueError: No file of arrays at 'nowhere.npz'.
    """
    if not Path(path).is_file():
        raise ValueError(f"No file of arrays at {str(path)!r}.")
    try:
        file = np.load(path, allow_pickle=False)
        return {name: file[name] for name in file.files} if hasattr(file, "files") else {"x": file}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"Can't read {str(path)!r} as arrays: {error} Expected an .npz or .npy of plain numbers (no "
                         "pickled objects), made with np.savez(path, name=array).") from error
