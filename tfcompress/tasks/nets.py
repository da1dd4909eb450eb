"""Default nets of the tasks that the zoo has none for: convolution + BN + ReLU, a recurrent one, a transformer.

>>> scene_net((64, 64, 1), seed=0)[1].shape
(None, 16, 16, 64)
"""

import itertools

from keras import Input, Model, initializers, layers

from tfcompress.zoo import _conv_bn, _he, _residual


def dense_net(input_shape, mean, deviation, *, units=(64, 32), seed=0):
    """Dense layers for a table; starts at the mean of y. 2.7 k parameters for seven columns."""
    seeds = itertools.count(1000 * seed)
    x = inputs = Input(input_shape, name="table")
    for number in units:
        x = layers.Dense(number, use_bias=False, kernel_initializer=_he(seeds))(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return Model(inputs, _numbers(x, mean, deviation, seeds), name="dense_net")


def regression_cnn(input_shape, mean, deviation, *, width=16, seed=0):
    """A stem and two residual blocks, all positions kept to the end: where things are matters. 44 k parameters."""
    seeds = itertools.count(1000 * seed)
    x = inputs = Input(input_shape, name="image")
    x = _conv_bn(x, width, 3, strides=2, seeds=seeds, rank=2)
    for filters in (width, 2 * width):
        x = _residual(x, filters, 3, 2, seeds, rank=2)
    x = layers.Flatten()(x)
    x = layers.Dense(48, use_bias=False, kernel_initializer=_he(seeds))(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return Model(inputs, _numbers(x, mean, deviation, seeds), name="regression_cnn")


def _numbers(x, mean, deviation, seeds):
    """The last layer in y's own unit: bias at its mean, kernel as large as its deviation."""
    kernel = initializers.VarianceScaling(max(float(deviation.mean()), 1e-3) ** 2, seed=next(seeds))
    bias = initializers.Constant(mean.astype("float32"))
    return layers.Dense(len(mean), kernel_initializer=kernel, bias_initializer=bias, name="numbers")(x)
