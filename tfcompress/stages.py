"""A residual net of stages that scales in depth and width: the family that students are chosen from.

A stem, then stages of equal blocks; each stage but the first halves the positions; an average over all positions, so
that one set of weights takes any resolution. In two dimensions kernels are 3 x 3, in one dimension 7 long.

>>> staged((32, 32, 3), 10).count_params() == parameters((32, 32, 3), 10)
True
"""

import itertools

from keras import Input, Model, layers

from tfcompress.distillation.student import scaled
from tfcompress.zoo import _he, _head

BLOCKS = ("basic", "bottleneck", "inverted")
EXPANSION = 4  # channels inside an inverted block, for each that comes in
KERNELS = {1: 7, 2: 3}


def staged(input_shape=(32, 32, 3), classes=10, *, blocks=(2, 2, 2), channels=(16, 32, 64), depth=1.0, width=1.0,
           block="basic", logits=False, embedding=None, seed=0):
    """Stage-wise residual net for images ``(height, width, channels)`` or series ``(steps, channels)``; any size.

    ============  ==================================================================================  ==============
    block         layers; BN behind each convolution, ReLU but behind the last                        sum
    ============  ==================================================================================  ==============
    "basic"       k, k                                                                                then ReLU
    "bottleneck"  1 to a quarter of the channels (at least 8), k, 1 to all                            then ReLU
    "inverted"    1 to 4 times the channels, depthwise k, 1                                           equal shapes only
    ============  ==================================================================================  ==============

    Layers are called ``stage1_block1_conv1``, ``..._bn1``, ``..._relu1`` and so on, the block's output
    ``stage1_block1_out``: the last one of a stage is a natural hint.

    Args:
        input_shape: without batch; positions may be None.
        classes: outputs of the head; None leaves the head out, and the output is the embedding of unit norm.
        blocks, channels: of the full net's stages.
        depth, width: multipliers of both (``distillation.student.scaled``).
        block: "basic", "bottleneck" or "inverted".
        logits: raw scores instead of probabilities.
        embedding: size of a Dense layer called "embedding" behind the average; None has no such layer.
        seed: same seed, same start weights.

    Source: He et al., arXiv:1512.03385 (basic, bottleneck); Sandler et al., arXiv:1801.04381 (inverted).

    >>> staged((187, 4), None, embedding=64, block="inverted", width=0.5).output_shape
    (None, 64)
    """
    rank, (numbers, sizes) = _rank(input_shape, block), scaled(blocks, channels, depth, width)
    seeds = itertools.count(1000 * seed)
    inputs = Input(input_shape, name="image" if rank == 2 else "series")
    x = _Unit("stem", rank, seeds)(inputs, sizes[0], KERNELS[rank])
    for stage, (number, size) in enumerate(zip(numbers, sizes, strict=True), start=1):
        for position in range(1, number + 1):
            strides = 2 if position == 1 and stage > 1 else 1
            x = _block(block, x, size, strides, _Unit(f"stage{stage}_block{position}", rank, seeds))
    x = (layers.GlobalAveragePooling1D if rank == 1 else layers.GlobalAveragePooling2D)(name="average")(x)
    if embedding is not None:
        x = layers.Dense(embedding, kernel_initializer=_he(seeds), name="embedding")(x)
    if classes is None:
        return Model(inputs, layers.UnitNormalization(name="unit_embedding")(x), name=f"staged_{block}")
    return _head(inputs, x, classes, logits, seeds, f"staged_{block}")


def parameters(input_shape=(32, 32, 3), classes=10, *, blocks=(2, 2, 2), channels=(16, 32, 64), depth=1.0, width=1.0,
               block="basic", embedding=None):
    """``staged(...).count_params()`` by formula, without building the net; moving means and variances are counted.

    >>> parameters((32, 32, 3), 10, blocks=(9, 9, 9))     # ResNet-56: 0.86 M
    860026
    """
    rank, (numbers, sizes) = _rank(input_shape, block), scaled(blocks, channels, depth, width)
    window = KERNELS[rank] ** rank
    total, before = _conv(window, input_shape[-1], sizes[0]), sizes[0]
    for stage, (number, size) in enumerate(zip(numbers, sizes, strict=True)):
        total += _of_block(block, window, before, size, projects=stage > 0 or before != size)
        total += (number - 1) * _of_block(block, window, size, size, projects=False)
        before = size
    if embedding is not None:
        total, before = total + (before + 1) * embedding, embedding
    return total if classes is None else total + (before + 1) * classes


class _Unit:
    """Makes convolution + BN + ReLU, named and numbered within its block."""

    def __init__(self, name, rank, seeds):
        self.name, self.rank, self.seeds, self.number = name, rank, seeds, 0

    def __call__(self, x, filters, kernel, strides=1, relu=True, label=None):
        """``filters=None``: depthwise."""
        self.number += label is None
        label = label or str(self.number)
        options = {"padding": "same", "use_bias": False, "name": f"{self.name}_conv{label}"}
        if filters is None:
            conv = layers.DepthwiseConv1D if self.rank == 1 else layers.DepthwiseConv2D
            x = conv(kernel, strides, depthwise_initializer=_he(self.seeds), **options)(x)
        else:
            conv = layers.Conv1D if self.rank == 1 else layers.Conv2D
            x = conv(filters, kernel, strides, kernel_initializer=_he(self.seeds), **options)(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"{self.name}_bn{label}")(x)
        return layers.ReLU(name=f"{self.name}_relu{label}")(x) if relu else x

    def add(self, x, shortcut, relu):
        x = layers.Add(name=f"{self.name}_{'add' if relu else 'out'}")([x, shortcut])
        return layers.ReLU(name=f"{self.name}_out")(x) if relu else x


def _block(block, x, filters, strides, unit):
    kernel, before, equal = KERNELS[unit.rank], x.shape[-1], strides == 1 and x.shape[-1] == filters
    shortcut = x
    if block == "inverted":
        x = unit(unit(x, EXPANSION * before, 1), None, kernel, strides)
        x = unit(x, filters, 1, relu=False)
        return unit.add(x, shortcut, relu=False) if equal else layers.Identity(name=f"{unit.name}_out")(x)
    if not equal:
        shortcut = unit(x, filters, 1, strides, relu=False, label="_shortcut")
    if block == "basic":
        x = unit(unit(x, filters, kernel, strides), filters, kernel, relu=False)
    else:
        x = unit(unit(x, _inside(filters), 1), _inside(filters), kernel, strides)
        x = unit(x, filters, 1, relu=False)
    return unit.add(x, shortcut, relu=True)


def _inside(filters):
    return max(8, filters // 4)


def _conv(window, before, after):
    return window * before * after + 4 * after


def _of_block(block, window, before, after, projects):
    if block == "inverted":
        inside = EXPANSION * before
        return _conv(1, before, inside) + _conv(window, 1, inside) + _conv(1, inside, after)
    shortcut = _conv(1, before, after) if projects else 0
    if block == "basic":
        return shortcut + _conv(window, before, after) + _conv(window, after, after)
    inside = _inside(after)
    return shortcut + _conv(1, before, inside) + _conv(window, inside, inside) + _conv(1, inside, after)


def _rank(input_shape, block):
    if block not in BLOCKS:
        raise ValueError(f"Unknown block: {block!r}. Known: {list(BLOCKS)}.")
    rank = len(input_shape) - 1
    if rank not in KERNELS or input_shape[-1] is None:
        raise ValueError(f"An image is (height, width, channels), a series (steps, channels), with known channels. "
                         f"Received: input_shape={tuple(input_shape)}.")
    return rank
