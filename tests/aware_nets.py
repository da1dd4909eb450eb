"""Networks for the quantization-aware tests, and how an int8 file compares with the model it came from."""

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType

L = keras.layers
IMAGE = np.random.default_rng(0).standard_normal((128, 10, 10, 3)).astype("float32")
SEQUENCE = np.random.default_rng(1).standard_normal((128, 20, 4)).astype("float32")


def net(body, x):
    """``body`` on inputs like ``x``, then a Dense layer of 5; batch statistics drawn at random, as if trained."""
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, L.Dense(5, name="out")(L.Flatten()(body(inputs))))
    return trained(model)


def trained(model):
    rng = np.random.default_rng(2)
    for layer in model._flatten_layers():
        if isinstance(layer, L.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(rng.normal(0, 0.3, shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, shape))
            layer.gamma.assign(rng.uniform(0.5, 1.5, shape))
            layer.beta.assign(rng.normal(0, 0.3, shape))
    return model


def norm(x):
    return L.ReLU()(L.BatchNormalization()(x))


def mobile(x):
    x = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(8, 3, strides=2, use_bias=False)(x)))
    y = norm(L.DepthwiseConv2D(3, padding="same", use_bias=False)(x))
    y = L.BatchNormalization()(L.Conv2D(8, 1)(y))
    return L.GlobalAveragePooling2D()(L.ReLU()(L.Add()([x, y])))


def branches(x):
    """Concatenations over pools and a tensor that others read, too; a maximum; a sum of three."""
    x = L.Conv2D(4, 1)(x)
    a = norm(L.Conv2D(4, 3, padding="same")(x))
    x = L.Concatenate()([a, L.AveragePooling2D(3, 1, padding="same")(x), L.MaxPooling2D(3, 1, padding="same")(x)])
    y = L.Concatenate()([x, L.SeparableConv2D(4, 3, padding="same", activation="relu")(norm(x))])
    y = L.Conv2D(4, 1)(y)
    return L.Maximum()([y, L.Add()([a, y, a])])


def activations(x):
    """Squeeze and excite with swish and both spellings of hard sigmoid; slices and operators."""
    x = L.Activation("swish")(L.BatchNormalization()(L.Conv2D(8, 3)(L.Rescaling(0.5, offset=0.25)(x))))
    gate = L.Conv2D(8, 1, activation="hard_sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    gate = gate * (L.ReLU(6.0)(L.Conv2D(8, 1)(gate) + 3.0) * (1.0 / 6.0))
    x = x * gate
    return L.Activation("tanh")(x[:, ::2, ::2] - L.Conv2D(8, 1, strides=2, activation="sigmoid")(x))


def coarse(x):
    """XNNPACK computes these with 8-bit multipliers, and scales of its own: nearly every output is equal, not all."""
    x = L.Activation("hard_swish")(L.Conv2D(8, 3)(x))
    return L.LeakyReLU(negative_slope=0.1)(L.Conv2D(8, 3)(L.Activation("gelu")(L.Conv2D(8, 1)(x))))


def resized(x):
    x = L.Conv2D(4, 3, dilation_rate=2, activation="relu")(L.ZeroPadding2D(1)(L.Dropout(0.5)(x)))
    x = L.UpSampling2D(2, interpolation="bilinear")(L.UpSampling2D(2)(x))
    return L.Conv2D(4, 3, strides=2)(L.Cropping2D(1)(x))


def sequence(x):
    x = norm(L.Conv1D(8, 3, padding="causal", dilation_rate=2)(x))
    x = L.BatchNormalization()(L.MaxPooling1D(2)(x))             # nothing to fold into
    x = L.Dense(8, activation="relu")(norm(L.SeparableConv1D(8, 3)(L.AveragePooling1D(2)(x))))
    return L.GlobalAveragePooling1D()(x)


NETS = {"mobile": (mobile, IMAGE), "branches": (branches, IMAGE), "activations": (activations, IMAGE),
        "resized": (resized, IMAGE), "sequence": (sequence, SEQUENCE)}


def file_of(baked):
    converter = tf.lite.TFLiteConverter.from_keras_model(baked)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


class File:
    """An int8 file with float inputs and output: its ops, and what it computes on XNNPACK."""

    def __init__(self, content):
        self.content = content
        plain = Interpreter(
            model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
        plain.allocate_tensors()
        self.tensors = {d["index"]: d for d in plain.get_tensor_details()}
        self.ops = [(op["op_name"], np.dtype(self.tensors[op["outputs"][0]]["dtype"]).name)
                    for op in plain._get_ops_details() if op["outputs"][0] in self.tensors]
        self.step = self.tensors[plain._get_ops_details()[-1]["inputs"][0]]["quantization"][0]
        self.kernels = [plain.get_tensor(i) for i, d in self.tensors.items()
                        if d["dtype"] == np.int8 and len(d["quantization_parameters"]["scales"]) > 1]

    @property
    def float_ops(self):
        return [name for name, dtype in self.ops if dtype.startswith("float") and name != "DEQUANTIZE"]

    def predict(self, x):
        interpreter = Interpreter(model_content=self.content, num_threads=1)
        index = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(index, x.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(index, x)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    def agreement(self, model, x):
        """``(share of equal int8 outputs, largest difference in steps)``."""
        gap = np.abs(np.round((self.predict(x) - model.predict(x, verbose=0)) / self.step))
        return float((gap == 0).mean()), int(gap.max())
