"""What a trained Keras model carries for nothing: filters of zeros, dense kernels of low rank."""

import keras
import numpy as np

from tfcompress.lowrank.factorize import factorize
from tfcompress.model import is_graph, leaves
from tfcompress.pruning.shrink import shrink
from tfcompress.wrapper import read

ENERGY = 0.99999                                         # the rest is 50 dB below: under the noise of eight bits
SMALLEST, LARGEST = 2**12, 2**22                         # weights of the dense kernels that are looked at


def without_waste(model):
    """The model without both, as far as that can be had; and what was removed, in words.

    Filters of zeros, as pruning leaves them, are removed (``shrink``: same outputs). Dense kernels of which fewer
    products than half of their size hold ``ENERGY`` become two (``factorize``).

    Args:
        model: a Keras 3 model; one of another kind comes back as it is.

    >>> net = keras.Sequential([keras.Input((64,)), keras.layers.Dense(96, name="wide"), keras.layers.Dense(2)])
    >>> rng = np.random.default_rng(0)
    >>> net.layers[0].kernel.assign(rng.normal(size=(64, 3)) @ rng.normal(size=(3, 96)))     # doctest: +ELLIPSIS
    <...>
    >>> lean, words = without_waste(net)
    >>> words, net.count_params(), lean.count_params()
    (['wide: of rank 3'], 6434, 770)
    """
    if not isinstance(model, keras.Model) or not is_graph(model):
        return model, []
    words, before = [], model.count_params()
    try:
        if any(_has_zero_filters(layer) for _, layer in leaves(model)):
            model = shrink(model)
            if model.count_params() < before:
                words.append(f"filters of zeros removed: {before:,} -> {model.count_params():,} weights")
        low = [layer for _, layer in leaves(model) if _is_low(layer)]
        if low:
            found = factorize(model, ENERGY, "energy", kinds=("svd",))
            words += [f"{layer.name}: of rank {layer.ranks[0]}" for layer in found.layers if layer.kind]
            model = found.model if words else model
    except (ValueError, RuntimeError):                   # a model that surgery can't follow is converted as it is
        pass
    return model, words


def _has_zero_filters(layer):
    kernel = getattr(layer, "kernel", None)
    if kernel is None or len(kernel.shape) < 2:
        return False
    return bool((~(read(kernel) != 0).reshape(-1, kernel.shape[-1]).any(axis=0)).any())


def _is_low(layer):
    if type(layer) is not keras.layers.Dense or not SMALLEST <= np.prod(layer.kernel.shape) <= LARGEST:
        return False
    energy = np.cumsum(np.linalg.svd(read(layer.kernel), compute_uv=False) ** 2)
    rank = int(np.searchsorted(energy, ENERGY * energy[-1])) + 1
    return 2 * rank * sum(layer.kernel.shape) < np.prod(layer.kernel.shape)
