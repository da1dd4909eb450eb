"""Models kept in a folder, so that a stopped run goes on: saved whole or not at all, and known again."""

import hashlib
import inspect

import keras
import numpy as np

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
