"""A kernel as the sum of two branches, low rank and sparse: found, built, and trained so that the zeros stay."""

import re
import warnings

import keras
import numpy as np

from tfcompress.graph import Node, Value
from tfcompress.layout import kernels
from tfcompress.lowrank.l0 import choose_sparse_plus_low_rank, sparse_plus_low_rank
from tfcompress.lowrank.layers import factor, free
from tfcompress.lowrank.svd import truncated_svd
from tfcompress.model import compress, compressed_tensors, strip
from tfcompress.pruning.prune import Prune
from tfcompress.schedules import OneShot
from tfcompress.wrapper import read

L = keras.layers
SHARES = (0.7, 0.5, 0.35, 0.25, 0.2, 0.16, 0.13, 0.1, 0.07, 0.05)  # of a kernel's weights that are not zero
_PARTS = (0.25, 0.5, 0.75)  # of these, the low-rank branch's
_EFFORT = 2**21             # ranks times weights that EBIC tries; but 4 to 16 ranks


# ---- arrays -----------------------------------------------------------------------------------------------------
def splits(kernel, round_to):
    """``[(rank, nonzeros)]`` to choose from for a budget."""
    rows, columns = matrix(kernel).shape
    found = []
    for kept in (int(share * kernel.size) for share in SHARES):
        for rank in (max(1, int(part * kept / (rows + columns))) for part in _PARTS):
            rank = rank // round_to * round_to or rank
            if rank < min(rows, columns) and kept > rank * (rows + columns):
                found.append((rank, kept - rank * (rows + columns)))
    return list(dict.fromkeys(found))


def arrays(kernel, rank, nonzeros, sweeps=100):
    """The two factors, and the sparse kernel with its ``nonzeros`` largest entries, by cyclic descent."""
    with warnings.catch_warnings():                      # an exact split falls for ever
        warnings.simplefilter("ignore", UserWarning)
        found = sparse_plus_low_rank(matrix(kernel), rank, density=nonzeros / kernel.size, tolerance=1e-4,
                                     max_iterations=sweeps)
    return _shaped(found, rank, kernel.shape)


def chosen(kernel):
    """``(rank, nonzeros, arrays)`` by the extended BIC, ranks up to 16; of kernels above 2**17 weights up to 8 or 4."""
    flat = matrix(kernel)
    most = min(16, min(flat.shape) // 4, max(4, _EFFORT // kernel.size))
    choice = choose_sparse_plus_low_rank(flat, most)
    return choice.rank, int(np.count_nonzero(choice.parts.sparse)), _shaped(choice.parts, choice.rank, kernel.shape)


def matrix(kernel):
    """(taps * in, out)."""
    return kernel.reshape(-1, kernel.shape[-1])


def _shaped(parts, rank, shape):
    *space, inputs, outputs = shape
    left, right = truncated_svd(parts.low_rank, rank)
    return [left.reshape(*space, inputs, rank), right.reshape(*(1 for _ in space), rank, outputs),
            parts.sparse.reshape(shape)]


# ---- layers -----------------------------------------------------------------------------------------------------
def replace_by_branches(graph, layer, parts, taken):
    """Two branches, their sum and the activation wherever ``layer`` is called; what comes last keeps its name.

    ``taken`` are names of layers that the model has.
    """
    nodes = graph.users(layer)
    shape, name, linear = nodes[0].inputs[0].shape, layer.name, layer.activation is keras.activations.linear
    names = {part: free(f"{name}_{part}", taken) for part in ("factor1", "factor2", "sparse", "sum")}
    first = factor(layer, "svd", parts[:2], 0, shape, names["factor1"])
    second = factor(layer, "svd", parts[:2], 1, first.compute_output_shape(shape), names["factor2"])
    sparse = factor(layer, "svd", parts[2:], 0, shape, names["sparse"], read(layer.bias) if layer.use_bias else None)
    total = L.Add(name=name if linear else names["sum"], dtype=layer.dtype_policy)
    last = None if linear else L.Activation(layer.activation, name=name, dtype=layer.dtype_policy)
    (last or total).activity_regularizer = layer.activity_regularizer
    for node in nodes:
        x, out = node.inputs[0], node.outputs[0]
        inner = Value(tuple(first.compute_output_shape(x.shape)), "float32")
        low, high, both = (Value(out.shape, "float32") for _ in range(3))
        new = [Node(node.path, first, (x,), {}, [inner]),
               Node(node.path, second, (inner,), {}, [low]),
               Node(node.path, sparse, (x,), {}, [high])]
        if last is None:
            new.append(Node(node.path, total, ([low, high],), {}, [out]))
        else:
            new += [Node(node.path, total, ([low, high],), {}, [both]),
                    Node(node.path, last, (both,), {}, [out])]
        graph.replace(node, new)


# ---- training ---------------------------------------------------------------------------------------------------
def zero_rules(model):
    """``[(layer name, Prune)]`` for ``compress``: sparse branches are pruned to just the zeros that they have."""
    names, found = {layer.name for layer in model.layers}, []
    for layer in model.layers:
        base = re.fullmatch(r"(.+)_sparse(_\d+)?", layer.name)
        if base and hasattr(layer, "kernel") and f"{base[1]}_factor1" in names:
            found.append((re.escape(layer.name), Prune(OneShot(float(np.mean(read(layer.kernel) == 0))))))
    return found


def trained(model, fit):
    """``model`` after ``fit(model, 1)``; zeros of sparse branches are masked meanwhile, and stay."""
    rules = zero_rules(model)
    if not rules:
        fit(model, 1)
        return model
    held = compress(model, rules)
    for _, layer, key in compressed_tensors(held):
        kernel = kernels(layer.layer)[key][0]
        layer.write(key, {"mask": (read(kernel) != 0).astype("float32"), "frozen": 1.0})
        layer.visited = True
    fit(held, 1)
    return strip(held)
