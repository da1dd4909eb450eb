"""Factors put into a graph in the place of kernels, and checked: the new model gives what they stand for."""

import keras
import numpy as np

from tfcompress.layout import kernels
from tfcompress.lowrank.branches import replace_by_branches
from tfcompress.lowrank.items import CONVOLUTIONS
from tfcompress.lowrank.layers import chain, recurrent
from tfcompress.lowrank.options import joined
from tfcompress.wrapper import read

L = keras.layers
_TOLERANCE = 1e-3  # of the largest output


def replace_kernels(graph, chosen, moments):
    """The Keras model of ``graph`` with the options that were ``chosen``; the graph is used up.

    Args:
        chosen: ``{item: Option}``, settled.
        moments: ``{item: Moments}``: biases take up the mean change.

    Raises:
        RuntimeError: the model is further from its factors' products than rounding explains.
    """
    arrays = {item: one.arrays for item, one in chosen.items()}
    for item, parts in arrays.items():
        kernel = joined(chosen[item].kind, parts, item.kernel.shape)
        kernels(item.layer)[item.key][0].assign(kernel.astype("float32"))
        if item in moments and item.biased:
            gap = (item.kernel - kernel).reshape(-1, kernel.shape[-1])
            item.layer.bias.assign(read(item.layer.bias) + (moments[item].mean @ gap).astype("float32"))
    example = graph.example()
    wanted = [np.asarray(t) for t in graph.run(example)]
    by_layer = {}
    for item in chosen:
        by_layer.setdefault(id(item.layer), []).append(item)
    for own in by_layer.values():
        _replace(graph, own, chosen, arrays)
    model = graph.build()
    given = keras.tree.flatten(model(keras.tree.pack_sequence_as(graph.input_struct, example), training=False))
    gaps = [np.abs(np.asarray(a) - b).max() / max(1e-6, np.abs(b).max()) for a, b in zip(given, wanted, strict=True)]
    if not max(gaps) <= _TOLERANCE:
        raise RuntimeError(f"The factorised model is not what its factors stand for: outputs differ by {max(gaps):.1e} "
                           f"of the largest. Please report this model ({graph.name}).")
    return model


def _replace(graph, own, chosen, arrays):
    """The factors of the items of one layer, wherever it is called."""
    layer, taken = own[0].layer, {node.layer.name for node in graph.nodes}
    if isinstance(layer, (L.Dense, *CONVOLUTIONS)):
        item, = own
        if chosen[item].kind == "sparse":
            replace_by_branches(graph, layer, arrays[item], taken)
            return
        nodes = graph.users(layer)
        parts = chain(layer, chosen[item].kind, arrays[item], nodes[0].inputs[0].shape, taken)
        for node in nodes:
            graph.chain(node, parts)
        return
    pairs = {item.key: [a.reshape(a.shape[-2:]) for a in arrays[item]] for item in own}
    nodes = graph.users(layer)
    new = recurrent(layer, pairs, nodes[0].inputs[0].shape)
    for node in nodes:
        node.layer = new
