"""Small named Keras models, made of layers that quantization-aware training and TFLite know.

Every function takes `input_shape` (without batch), `classes`, `logits` (False: softmax at the end, probabilities out;
True: raw scores) and `seed` (same seed, same start weights) and returns an uncompiled Keras model.

>>> ecg_cnn().output_shape, ecg_cnn().count_params()
((None, 4), 55052)
"""

import itertools

from keras import Input, Model, initializers, layers


def ecg_cnn(input_shape=(187, 4), classes=4, *, logits=False, seed=0):
    """1-D CNN of the Acharya 2017 type for one heartbeat, about 55 k parameters: 4 x (Conv1D, BN, ReLU, pool).

    Acharya UR et al., "A deep convolutional neural network model to classify heartbeats", Comput Biol Med 89, 2017;
    batch normalization and padding are added.
    """
    seeds = itertools.count(1000 * seed)
    x = inputs = Input(input_shape, name="beat")
    for filters, kernel in ((16, 7), (32, 5), (48, 5), (64, 5)):
        x = _conv_bn(x, filters, kernel, seeds=seeds, rank=1)
        x = layers.MaxPooling1D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(40, activation="relu", kernel_initializer=_he(seeds))(x)
    return _head(inputs, x, classes, logits, seeds, "ecg_cnn")


def ecg_resnet(input_shape=(187, 4), classes=4, *, logits=False, seed=0):
    """Residual 1-D net for one heartbeat, 1.06 M parameters: stem, 4 blocks, average pool; kernels 16 samples wide.

    Hannun AY et al., "Cardiologist-level arrhythmia detection ... using a deep neural network", Nat Med 25, 2019, whose
    kernels are as wide; a tenth of its size.
    """
    seeds = itertools.count(1000 * seed)
    x = inputs = Input(input_shape, name="beat")
    x = _conv_bn(x, 48, 16, strides=2, seeds=seeds, rank=1)
    for filters, strides in ((48, 2), (72, 2), (96, 2), (144, 1)):
        x = _residual(x, filters, 16, strides, seeds, rank=1)
    x = layers.GlobalAveragePooling1D()(x)
    return _head(inputs, x, classes, logits, seeds, "ecg_resnet")


def image_resnet(input_shape=(28, 28, 1), classes=10, *, width=16, logits=False, seed=0):
    """Small ResNet for images: stem, 3 residual blocks (width, 2 x width, 4 x width), average pool; 79 k parameters.

    He K et al., "Deep Residual Learning for Image Recognition", 2016.
    """
    seeds = itertools.count(1000 * seed)
    x = inputs = Input(input_shape, name="image")
    x = _conv_bn(x, width, 3, seeds=seeds, rank=2)
    for filters, strides in ((width, 2), (2 * width, 2), (4 * width, 2)):
        x = _residual(x, filters, 3, strides, seeds, rank=2)
    x = layers.GlobalAveragePooling2D()(x)
    return _head(inputs, x, classes, logits, seeds, "image_resnet")


def image_mobilenet(input_shape=(28, 28, 1), classes=10, *, blocks=6, width=96, logits=False, seed=0):
    """Depthwise-separable residual net for images: stem, `blocks` x (depthwise, BN, ReLU, 1x1, BN, add, ReLU).

    67 k parameters with the defaults. Howard A et al., "MobileNets", 2017, with the residual sum of MobileNetV2.
    """
    seeds = itertools.count(1000 * seed)
    x = inputs = Input(input_shape, name="image")
    x = _conv_bn(x, width, 3, strides=2, seeds=seeds, rank=2)
    x = layers.MaxPooling2D(2)(x)
    for _ in range(blocks):
        shortcut = x
        x = _depthwise_bn(x, 1, seeds)
        x = _conv_bn(x, width, 1, relu=False, seeds=seeds, rank=2)
        x = layers.ReLU()(layers.Add()([x, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return _head(inputs, x, classes, logits, seeds, "image_mobilenet")


def image_mobilenet_v1(input_shape=(28, 28, 1), classes=10, *, width=32, logits=False, seed=0):
    """MobileNet for small images: stem, 6 x (depthwise, BN, ReLU, 1x1, BN, ReLU), average pool; 209 k parameters.

    Channels grow from `width` to 8 x `width`, and no sum ties them: each 1x1 convolution can lose filters by itself.
    Howard A et al., "MobileNets", arXiv:1704.04861, 2017, half as deep.
    """
    seeds = itertools.count(1000 * seed)
    x = inputs = Input(input_shape, name="image")
    x = _conv_bn(x, width, 3, strides=2, seeds=seeds, rank=2)
    for times, strides in ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (8, 1)):
        x = _depthwise_bn(x, strides, seeds)
        x = _conv_bn(x, times * width, 1, seeds=seeds, rank=2)
    x = layers.GlobalAveragePooling2D()(x)
    return _head(inputs, x, classes, logits, seeds, "image_mobilenet_v1")


def image_alexnet(input_shape=(28, 28, 1), classes=10, *, units=(1536, 1024), logits=False, seed=0):
    """AlexNet for small images: 5 convolutions, 3 fully connected layers with 96 % of the weights; 2.9 M parameters.

    Krizhevsky A et al., "ImageNet classification with deep convolutional neural networks", 2012, with batch
    normalization in place of local response normalization. `units` are those of the two hidden dense layers.
    """
    seeds = itertools.count(1000 * seed)
    x = inputs = Input(input_shape, name="image")
    for filters, kernel, pool in ((24, 5, True), (48, 5, True), (64, 3, False), (64, 3, False), (48, 3, True)):
        x = _conv_bn(x, filters, kernel, seeds=seeds, rank=2)
        x = layers.MaxPooling2D(3, 2, padding="same")(x) if pool else x
    x = layers.Flatten()(x)
    for number in units:
        x = layers.Dense(number, activation="relu", kernel_initializer=_he(seeds))(x)
        x = layers.Dropout(0.5, seed=next(seeds))(x)
    return _head(inputs, x, classes, logits, seeds, "image_alexnet")


def image_vgg(input_shape=(28, 28, 1), classes=10, *, width=24, logits=False, seed=0):
    """VGG for small images: 3 x (convolution, BN, ReLU, twice; pool) of `width`, 2 x and 4 x it; 176 k parameters.

    Simonyan K, Zisserman A, "Very deep convolutional networks for large-scale image recognition", 2015, with batch
    normalization, and an average in place of the fully connected layers.
    """
    seeds = itertools.count(1000 * seed)
    x = inputs = Input(input_shape, name="image")
    for stage, filters in enumerate((width, 2 * width, 4 * width)):
        x = layers.MaxPooling2D(2)(x) if stage else x
        for _ in range(2):
            x = _conv_bn(x, filters, 3, seeds=seeds, rank=2)
    x = layers.GlobalAveragePooling2D()(x)
    return _head(inputs, x, classes, logits, seeds, "image_vgg")


def lstm(input_shape=(48, 20), classes=10, *, units=64, logits=False, seed=0):
    """One LSTM over (steps, channels), then the head; 22 k parameters with the defaults."""
    seeds = itertools.count(1000 * seed)
    inputs = Input(input_shape, name="sequence")
    x = layers.LSTM(
        units,
        kernel_initializer=initializers.GlorotUniform(next(seeds)),
        recurrent_initializer=initializers.Orthogonal(seed=next(seeds)),
    )(inputs)
    return _head(inputs, x, classes, logits, seeds, "lstm")


MODELS = {
    "ecg_cnn": ecg_cnn,
    "ecg_resnet": ecg_resnet,
    "image_resnet": image_resnet,
    "image_mobilenet": image_mobilenet,
    "image_mobilenet_v1": image_mobilenet_v1,
    "image_alexnet": image_alexnet,
    "image_vgg": image_vgg,
    "lstm": lstm,
}


def build(name, input_shape, classes, **options):
    """The model called `name`, fitted to a data set: `build("ecg_cnn", splits.input_shape, splits.classes)`.

    >>> build("alexnet", (28, 28, 1), 10)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: Unknown model 'alexnet'. Known: ecg_cnn, ecg_resnet, image_resnet, image_mobilenet, ...
    """
    if name not in MODELS:
        raise ValueError(f"Unknown model {name!r}. Known: {', '.join(MODELS)}.")
    return MODELS[name](input_shape, classes, **options)


def _he(seeds):
    return initializers.HeNormal(next(seeds))


def _conv_bn(x, filters, kernel, *, strides=1, relu=True, seeds, rank):
    conv = layers.Conv1D if rank == 1 else layers.Conv2D
    x = conv(filters, kernel, strides, padding="same", use_bias=False, kernel_initializer=_he(seeds))(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.ReLU()(x) if relu else x


def _depthwise_bn(x, strides, seeds):
    conv = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False, depthwise_initializer=_he(seeds))
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(conv(x)))


def _residual(x, filters, kernel, strides, seeds, rank):
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = _conv_bn(x, filters, 1, strides=strides, relu=False, seeds=seeds, rank=rank)
    x = _conv_bn(x, filters, kernel, strides=strides, seeds=seeds, rank=rank)
    x = _conv_bn(x, filters, kernel, relu=False, seeds=seeds, rank=rank)
    return layers.ReLU()(layers.Add()([x, shortcut]))


def _head(inputs, x, classes, logits, seeds, name):
    initializer = initializers.GlorotUniform(next(seeds))
    x = layers.Dense(classes, kernel_initializer=initializer, name="logits")(x)
    return Model(inputs, x if logits else layers.Softmax(name="probabilities")(x), name=name)
