"""Default nets of the tasks that the zoo has none for: convolution + BN + ReLU, a recurrent one, a transformer.

>>> scene_net((64, 64, 1), seed=0)[1].shape
(None, 16, 16, 48)
"""

import itertools

from keras import Input, Model, initializers, layers

from tfcompress.zoo import _conv_bn, _he, _residual


def dense_net(input_shape, mean, deviation, *, units=(64, 32), seed=0):
    """Dense layers for a table; starts at the mean of y. 2.9 k parameters for seven columns."""
    seeds = itertools.count(1000 * seed)
    x = inputs = Input(input_shape, name="table")
    for number in units:
        x = layers.Dense(number, use_bias=False, kernel_initializer=_he(seeds))(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return Model(inputs, _numbers(x, mean, deviation, seeds), name="dense_net")


def regression_cnn(input_shape, mean, deviation, *, width=16, seed=0):
    """A stem and two residual blocks, all positions kept to the end: where things are matters. 45 k parameters."""
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


def embedder(input_shape, features=32, *, width=16, seed=0):
    """A residual CNN that ends in an embedding without activation: all positions count. 127 k parameters."""
    seeds = itertools.count(1000 * seed)
    x = inputs = Input(input_shape, name="image")
    x = _conv_bn(x, width, 3, seeds=seeds, rank=2)
    for filters in (width, 2 * width, 4 * width):
        x = _residual(x, filters, 3, 2, seeds, rank=2)
    x = layers.Flatten()(x)
    x = layers.Dense(features, kernel_initializer=initializers.GlorotUniform(next(seeds)), name="embedding")(x)
    return Model(inputs, x, name="embedder")


def tagger(input_shape, labels, *, width=16, seed=0):
    """A residual CNN whose last maps are reduced to their maximum: "is it anywhere?". 78 k parameters."""
    seeds = itertools.count(1000 * seed)
    x = inputs = Input(input_shape, name="image")
    x = _conv_bn(x, width, 3, strides=2, seeds=seeds, rank=2)
    for filters in (2 * width, 4 * width):
        x = _residual(x, filters, 3, 2, seeds, rank=2)
    x = layers.GlobalMaxPooling2D()(_conv_bn(x, 4 * width, 1, seeds=seeds, rank=2))
    x = layers.Dense(labels, kernel_initializer=initializers.GlorotUniform(next(seeds)), name="logits")(x)
    return Model(inputs, layers.Activation("sigmoid", name="probabilities")(x), name="tagger")


def scene_net(input_shape, *, width=12, seed=0):
    """(inputs, features at a quarter of the size, features at half the size, seeds): down to an eighth, and up again.

    Sums and concatenation in the way of Lin et al. 2017 (arXiv:1612.03144) and Ronneberger et al. 2015.
    """
    height, across = input_shape[0], input_shape[1]
    if len(input_shape) != 3 or height % 8 or across % 8:
        raise ValueError(f"The default net takes images (height, width, channels), height and width whole multiples of "
                         f"8. Received: {tuple(input_shape)}. Pad or resize them, or give a model of your own.")
    seeds = itertools.count(1000 * seed)
    inputs = Input(input_shape, name="image")
    half = _conv_bn(inputs, width, 3, strides=2, seeds=seeds, rank=2)
    quarter = _residual(half, 2 * width, 3, 2, seeds, rank=2)
    x = _residual(quarter, 4 * width, 3, 2, seeds, rank=2)
    x = _conv_bn(x, 4 * width, 3, seeds=seeds, rank=2)
    x = layers.Concatenate()([layers.UpSampling2D(2)(_conv_bn(x, 2 * width, 1, seeds=seeds, rank=2)), quarter])
    return inputs, _conv_bn(x, 4 * width, 3, seeds=seeds, rank=2), half, seeds


def segmenter(input_shape, classes, *, width=12, seed=0):
    """`scene_net`, up to the whole size by a transposed convolution; probabilities of each pixel. 91 k parameters."""
    inputs, x, half, seeds = scene_net(input_shape, width=width, seed=seed)
    x = layers.Concatenate()([layers.UpSampling2D(2)(_conv_bn(x, width, 1, seeds=seeds, rank=2)), half])
    x = _conv_bn(x, 2 * width, 3, seeds=seeds, rank=2)
    x = layers.Conv2DTranspose(classes, 2, 2, kernel_initializer=initializers.GlorotUniform(next(seeds)),
                               name="logits")(x)
    return Model(inputs, layers.Softmax(name="probabilities")(x), name="segmenter")


def detector(input_shape, classes, shapes, *, width=12, seed=0):
    """`scene_net` with two heads at each position of a quarter of the size, for each anchor shape.

    Outputs "boxes" (batch, anchors, 4) and "scores" (batch, anchors, classes), sigmoids; two outputs, because an int8
    file gives each its own range. Scores start at 0.01, in the way of Lin et al. 2017 (arXiv:1708.02002). 107 k
    parameters.
    """
    if input_shape[0] != input_shape[1]:
        raise ValueError(f"The default detector takes square images. Received: {tuple(input_shape)}.")
    inputs, x, _, seeds = scene_net(input_shape, width=width, seed=seed)
    x = _conv_bn(x, 4 * width, 3, seeds=seeds, rank=2)
    anchors = (input_shape[0] // 4) * (input_shape[1] // 4) * shapes

    def branch(columns, name, bias):
        kernel = initializers.RandomNormal(stddev=0.01, seed=next(seeds))
        out = layers.Conv2D(shapes * columns, 1, kernel_initializer=kernel,
                            bias_initializer=initializers.Constant(bias), name=f"{name}_head")(x)
        return layers.Reshape((anchors, columns), name=name if name == "boxes" else "score_logits")(out)

    boxes, scores = branch(4, "boxes", 0.0), branch(classes, "scores", -4.6)
    return Model(inputs, [boxes, layers.Activation("sigmoid", name="scores")(scores)], name="detector")


def line_reader(input_shape, columns, *, width=16, units=48, seed=0):
    """Convolutions that keep the order along the line, then a GRU in both directions; logits a quarter of the width.

    Shi et al. 2015 (CRNN, arXiv:1507.05717), with GRUs and 63 k parameters.
    """
    if len(input_shape) != 3 or input_shape[0] % 4 or input_shape[1] % 4:
        raise ValueError(f"The default net takes lines (height, width, channels), height and width whole multiples of "
                         f"4. Received: {tuple(input_shape)}. Pad or resize them, or give a model of your own.")
    seeds = itertools.count(1000 * seed)
    x = inputs = Input(input_shape, name="line")
    x = layers.MaxPooling2D(2)(_conv_bn(x, width, 3, seeds=seeds, rank=2))
    x = layers.MaxPooling2D(2)(_conv_bn(x, 2 * width, 3, seeds=seeds, rank=2))
    x = _conv_bn(x, 2 * width, 3, seeds=seeds, rank=2)
    x = layers.Reshape((x.shape[2], x.shape[1] * x.shape[3]))(layers.Permute((2, 1, 3))(x))
    x = layers.Dense(64, use_bias=False, kernel_initializer=_he(seeds))(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    gru = layers.GRU(units, return_sequences=True, kernel_initializer=initializers.GlorotUniform(next(seeds)),
                     recurrent_initializer=initializers.Orthogonal(seed=next(seeds)))
    x = layers.Bidirectional(gru, name="both_ways")(x)
    kernel = initializers.GlorotUniform(next(seeds))
    return Model(inputs, layers.Dense(columns, kernel_initializer=kernel, name="logits")(x), name="line_reader")


def transformer(input_shape, classes, *, blocks=2, width=48, heads=4, seed=0):
    """Attention over all steps of a series (steps, channels), twice; probabilities of each step. 46 k parameters.

    Vaswani et al. 2017 (arXiv:1706.03762), normalized before each part; places are told by a depthwise convolution, in
    the way of Chu et al. 2021 (arXiv:2102.10882).
    """
    if len(input_shape) != 2:
        raise ValueError(f"The default net takes series (steps, channels). Received: {tuple(input_shape)}.")
    seeds = itertools.count(1000 * seed)
    inputs = Input(input_shape, name="series")
    x = _conv_bn(inputs, width, 5, seeds=seeds, rank=1)
    place = layers.DepthwiseConv1D(9, padding="same", depthwise_initializer=_he(seeds))(x)
    x = layers.Add()([x, place])
    for block in range(1, blocks + 1):
        normal = layers.LayerNormalization(epsilon=1e-5)(x)
        kernel = initializers.GlorotUniform(next(seeds))
        attend = layers.MultiHeadAttention(heads, width // heads, kernel_initializer=kernel, name=f"attention{block}")
        x = layers.Add()([x, attend(normal, normal)])
        normal = layers.LayerNormalization(epsilon=1e-5)(x)
        wide = layers.Dense(2 * width, activation="relu", kernel_initializer=_he(seeds))(normal)
        narrow = layers.Dense(width, kernel_initializer=initializers.GlorotUniform(next(seeds)))(wide)
        x = layers.Add()([x, narrow])
    x = layers.LayerNormalization(epsilon=1e-5)(x)
    x = layers.Dense(classes, kernel_initializer=initializers.GlorotUniform(next(seeds)), name="logits")(x)
    return Model(inputs, layers.Softmax(name="probabilities")(x), name="transformer")
