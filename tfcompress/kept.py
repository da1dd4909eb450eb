"""Models kept in a folder, so that a stopped run goes on: saved whole or not at all, and known again."""

import contextlib
import hashlib
import inspect
from pathlib import Path

import keras
import numpy as np

from android_bench.store import only_one, remember_config
from tfcompress.copies import own_objects
from tfcompress.model import leaves
from tfcompress.wrapper import read


def save(model, path):
    """``model.save``, by a file of another name first."""
    part = path.with_name(f"part_{path.name}")
    model.save(part)
    part.rename(path)


def load(path, start):
    """A round that was kept, with the classes and functions of the model that it was made of."""
    known = {name: value for _, layer in leaves(start) for name, value in own_objects(layer).items()}
    return keras.models.load_model(path, custom_objects=known, compile=False)


def fingerprint(model):
    """A digest of a model's config and weights."""
    found = hashlib.sha256(repr(model.get_config()).encode())
    for weight in model.weights:
        found.update(np.ascontiguousarray(read(weight)).tobytes())
    return found.hexdigest()


def digest(data):
    """A digest of arrays."""
    found = hashlib.sha256()
    for array in keras.tree.flatten(data if data is not None else ()):
        if array is None:                                # as labels may be
            found.update(b"None")
            continue
        array = np.ascontiguousarray(array)
        found.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()


@contextlib.contextmanager
def work_in(folder, model, data, fit, teacher, **options):
    """The folder, held for this call; a ``fit`` that is a function can't be told from another one.

    Raises:
        ValueError: it holds the work of another call, or a model that could not be read back.
        RuntimeError: another process writes there.
    """
    check_named(model)
    told = {"fit": "a function" if callable(fit) else fit,
            "teacher": fingerprint(model if teacher is True else teacher) if teacher else None}
    with only_one(folder):
        remember_config(folder, dict(model=fingerprint(model), data=digest(data)) | options | told)
        yield Path(folder)


def check_named(model):
    """ValueError for functions and classes of the user's that could not be told apart when a round is read back."""
    known = {}
    for path, layer in leaves(model):
        for name, value in own_objects(layer).items():
            if known.setdefault(name, value) is not value or inspect.isfunction(value) and hasattr(
                    keras.activations, name):
                raise ValueError(f"`folder` can't keep rounds of this model: '{name}' of layer '{path}' is the name of "
                                 "another function or class too. Give it one of its own, or folder=None.")
    lambdas = [path for path, layer in leaves(model) if isinstance(layer, keras.layers.Lambda)
               and layer.function.__name__ == "<lambda>"]
    if lambdas:
        raise ValueError(f"`folder` can't keep rounds of a model with lambdas, in the Lambda layers {lambdas}: give "
                         "them a named function, or folder=None.")
