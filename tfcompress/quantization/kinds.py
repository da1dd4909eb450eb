"""What TFLite makes of a layer: where an int8 kernel has its result, and what passes the range of its input on."""

import keras

from tfcompress.quantization.fold import activation, is_kernel
from tfcompress.quantization.integer import ChannelAffine, IntegerKernel

L = keras.layers

KERNEL = "kernel"            # int8 kernel with weights; result has its own range, a ReLU behind it is fused
BINARY = "binary"            # add, subtract, multiply: own range, a ReLU behind it is fused
UNARY = "unary"              # own range: mean, leaky ReLU, gelu, hard swish, a ReLU that nothing fuses
RELU = "relu"                # fused into the kernel before it where it is that kernel's only reader
FIXED = "fixed"              # range fixed by TFLite
SAME = "same"                # moves values around: range of its input
AVERAGE = "average"          # new values, range of its input
UNION = "union"              # concatenate, maximum: inputs and result share one range
FLOAT = "float"              # no int8 kernel, or none that is worth its error: left float, and listed

LIMITS = {"sigmoid": (0.0, 255.0 / 256.0), "softmax": (0.0, 255.0 / 256.0), "tanh": (-1.0, 127.0 / 128.0)}
_UNARY = ("leaky_relu", "gelu", "hard_silu", "hard_swish")
_CLASSES = {
    BINARY: (L.Add, L.Subtract, L.Multiply),
    UNARY: (L.GlobalAveragePooling1D, L.GlobalAveragePooling2D),
    SAME: (L.MaxPooling1D, L.MaxPooling2D, L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.Flatten, L.Reshape, L.Permute,
           L.ZeroPadding1D, L.ZeroPadding2D, L.Cropping1D, L.Cropping2D, L.Identity, L.Dropout, L.SpatialDropout1D,
           L.SpatialDropout2D, L.GaussianNoise, L.GaussianDropout, L.ActivityRegularization),
    AVERAGE: (L.AveragePooling1D, L.AveragePooling2D),
    UNION: (L.Concatenate, L.Maximum, L.Minimum),
}
_OPERATIONS = {"Add": BINARY, "Subtract": BINARY, "Multiply": BINARY, "Mean": UNARY, "Concatenate": UNION,
               "Maximum": UNION, "Minimum": UNION, "Reshape": SAME, "Transpose": SAME, "Squeeze": SAME,
               "ExpandDims": SAME, "GetItem": SAME}


def kind(node):
    """The kind of the layer that ``node`` calls."""
    layer, inputs = node.layer, node.inputs
    name = activation(layer)
    if any(v.dtype != "float32" for v in inputs + node.outputs):
        return FLOAT
    if is_kernel(layer) or isinstance(layer, (IntegerKernel, ChannelAffine)):
        return KERNEL
    if name is not None:
        return (RELU if name in ("relu", "relu6") else FIXED if name in LIMITS else UNARY if name in _UNARY
                else SAME if name == "linear" else FLOAT)
    if type(layer) is L.UpSampling2D and None not in inputs[0].shape[1:]:
        return {"nearest": SAME, "bilinear": AVERAGE}.get(layer.interpolation, FLOAT)
    for known, classes in _CLASSES.items():
        if type(layer) in classes:
            return FLOAT if getattr(layer, "data_format", "") == "channels_first" else known
    if type(layer).__module__.startswith("keras.src.ops"):
        known = _OPERATIONS.get(type(layer).__name__, FLOAT)
        return FLOAT if known in (BINARY, UNION) and len(inputs) < 2 else known
    return FLOAT


def limits(layer):
    """The range TFLite fixes for the layer's result, or ``None``."""
    return LIMITS.get(activation(layer)) or getattr(layer, "clip", None)

