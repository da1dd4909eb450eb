"""Ranges of activations that synthetic inputs show too narrow, and those that are known without any input."""

import re

import numpy as np

from tfcompress.data_free.moments import KERNELS

BOUNDED = {"SOFTMAX": (0.0, 1.0), "LOGISTIC": (0.0, 1.0), "TANH": (-1.0, 1.0)}
AVERAGES = ("MEAN", "AVERAGE_POOL_2D", "MAX_POOL_2D", "REDUCE_MAX")
MARGIN = 2.0  # of scores: real inputs speak for a class more clearly than synthetic ones


def first_operations(graph):
    """Patterns on the names of the operations between the inputs and the first kernels, these included.

    Without data the range of the inputs is a guess, and a real input beyond it would be cut off. So what reads them
    stays float; the ranges behind are those that batch normalizations remember, whatever the scale of the inputs is.
    """
    reached, found = set(graph.inputs), []
    for op in graph.ops:
        if reached & set(op.inputs):
            found.append("^" + re.escape("".join(graph.tensors[index].name + ";" for index in op.outputs)) + "$")
            if op.name not in KERNELS:
                reached |= set(op.outputs)
    return found


def settle(graph, ranges):
    """Ranges in which each tensor has what it may really reach.

    A softmax gives 0..1 whatever it was seen to give. An average lies within the range of what is averaged, and of real
    inputs it comes nearer to its ends, as one of many channels speaks up. What nothing bounds behind an average (scores
    of classes) gets a margin.

    Args:
        graph: the main ``flatbuffer.Graph`` of a float file.
        ranges: ``{tensor: (low, high)}`` a channel, see ``moments.observe``.

    Returns:
        ``{tensor name: [low, high]}``, of the whole tensor.
    """
    found = {graph.tensors[at].name: [float(np.min(low)), float(np.max(high))] for at, (low, high) in ranges.items()}
    wide = set()
    for op in graph.ops:
        names = [graph.tensors[index].name for index in op.inputs if index >= 0]
        for index in op.outputs:
            name = graph.tensors[index].name
            if name not in found:
                continue
            if op.name in BOUNDED:
                found[name] = list(BOUNDED[op.name])
            elif op.name in AVERAGES and names[0] in found:
                low, high = found[names[0]]
                found[name] = [min(found[name][0], low), max(found[name][1], high)]
                wide.add(name)
            elif op.name == "FULLY_CONNECTED" and names[0] in wide:
                found[name] = [MARGIN * min(found[name][0], 0.0), MARGIN * max(found[name][1], 0.0)]
            elif op.name == "RESHAPE" and names[0] in wide:
                found[name], _ = list(found[names[0]]), wide.add(name)
    return found
