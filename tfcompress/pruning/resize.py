"""A layer made smaller: the same class and options, fewer channels, the weights that stay."""

import copy

import keras
import numpy as np

from tfcompress.copies import finalize, from_own_config
from tfcompress.wrapper import read


def resized(layer, counts, bias=False):
    """A fresh, unbuilt copy of ``layer`` whose config says ``counts``: ``{path into the config: value}``."""
    config = layer.get_config()
    if counts or bias:
        config = copy.deepcopy(config)
    for path, value in counts.items():
        place = config
        for key in path[:-1]:
            if isinstance(place[key], tuple):
                place[key] = list(place[key])
            place = place[key]
        place[path[-1]] = value
    inner = _innermost(config)
    if bias and "use_bias" in inner:                     # an EinsumDense has none: one without a bias gets no constants
        inner["use_bias"] = True
    fresh = from_own_config(layer, config)
    fresh.name = layer.name
    if isinstance(fresh, keras.layers.Layer):
        for part in fresh._flatten_layers():
            part.dtype_policy = "float32"
    return fresh


def _innermost(config):
    """The config inside all wrappers; what they wrap is built for the new size when it is called."""
    wrapped = [config[key] for key in ("backward_layer", "layer") if "config" in (config.get(key) or ())]
    for part in wrapped:
        part.pop("build_config", None)
        config = _innermost(part["config"])
    return config


def sliced(value, axes, keep):
    """The part of array ``value`` that stays. ``axes``: ``{axis: labels}``; ``keep``: bool by label."""
    for axis, labels in axes.items():
        value = np.compress(keep[labels], value, axis=axis)
    return value


def assign(layer, fresh, slices, keep, added=None):
    """Copy what stays of ``layer``'s weights into ``fresh`` (built); ``added`` is put on its bias, the last weight."""
    values = [sliced(read(w), slices.get(i, {}), keep) for i, w in enumerate(layer.weights)]
    if added is not None and len(fresh.weights) > len(values):
        values.append(np.zeros(fresh.weights[-1].shape, "float32"))
    if added is not None:
        values[-1] = values[-1] + added
    for target, value in zip(fresh.weights, values, strict=True):
        target.assign(value)
    finalize(fresh)
