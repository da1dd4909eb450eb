"""``slim``: a trained low-bit model whose remaining floats take half the bytes."""

import keras
import ml_dtypes
import numpy as np

from tfcompress.conversion.grid import grid
from tfcompress.layout import kernels
from tfcompress.model import check_plain
from tfcompress.quantization.fold import fold_batch_norm
from tfcompress.quantization.groups import gathered, members

GATES = 4


def slim(model):
    """A copy of ``model``, batch normalization folded, whose biases and weight scales are bfloat16 numbers.

    Of a pruned 3-bit network what isn't codes is a large part: a float32 scale and a bias a channel. Batch norms
    right behind a convolution or a dense layer are folded (others stay as they are), then biases are rounded, and each
    kernel of ``scale * codes`` (one scale a tensor, gate or channel) gets a rounded scale; its codes stay. A scale
    moves by 0.4 % at most, so judge the file that you convert from it. Kernels that are on no grid stay as they are.

    Args:
        model: a plain Functional or Sequential model, from ``strip``.

    Raises:
        ValueError: a model that still trains compressed layers, or is not Functional or Sequential.

    >>> import keras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    >>> model.layers[0].set_weights([np.float32([[0.3, -0.3], [0.0, 0.6]]), np.float32([0.1, 1.0])])
    >>> [w.tolist() for w in slim(model).layers[-1].get_weights()]
    [[[0.30078125, -0.30078125], [0.0, 0.6015625]], [0.10009765625, 1.0]]
    """
    check_plain(model)
    small = fold_batch_norm(model)
    for layer in small._flatten_layers(include_self=False):
        if isinstance(layer, keras.Model):
            continue
        found = kernels(layer)
        for variable, view in found.values():
            w = view.to(np.asarray(variable), np)
            variable.assign(view.back(_on_rounded_scales(w), np))
        for variable in layer.weights:
            if variable.name == "bias":
                variable.assign(rounded(np.asarray(variable)))
    return small


def rounded(values):
    """The nearest bfloat16 numbers, as float32."""
    return np.asarray(values, "float32").astype(ml_dtypes.bfloat16).astype("float32")


def _on_rounded_scales(w):
    """``w`` with the same codes on bfloat16 scales, in the largest groups that share one; else ``w`` itself."""
    gates = [GATES] if w.shape[-1] % GATES == 0 else []
    for scales in ("tensor", *gates, "channel"):
        groups = members(w, scales)
        parts = [grid(part) for part in groups]
        telling = max(np.count_nonzero(part) for part in groups) > 1     # a single number is on a grid of its own
        if telling and all(part is not None for part in parts):
            codes = np.stack([codes * rounded(scale) for codes, scale in parts]).astype("float32")
            return gathered(codes, w.shape, scales)
    return w
