"""The study's 18 files in small: one net trained for seconds on real digits, pruned and converted in both orders."""

import keras
import numpy as np

from tfcompress.convert import convert_all
from tfcompress.datasets import load
from tfcompress.quantization.float16 import Float16
from tfcompress.quantization.uniform import Uniform

PRECISIONS = {"": "float32", "Q16": "float16", "Q8": "int8"}
FIRST = {"Q16": Float16(), "Q8": Uniform(bits=8)}


def make(folder) -> tuple[np.ndarray, np.ndarray]:
    """Write C0, Q16, Q8, P70 ... Q8P90 as `.tflite` files; returns 200 test images and their labels."""
    keras.utils.set_random_seed(3)
    data = load("digits")
    net = keras.Sequential([
        keras.Input((28, 28, 1), name="image"), keras.layers.Conv2D(8, 3, 2, activation="relu"),
        keras.layers.Conv2D(16, 3, 2, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(10, "softmax"),
    ])  # fmt: skip
    net.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    net.fit(data.x_train[:1500], data.y_train[:1500], epochs=3, batch_size=50, verbose=0)
    trained = net.get_weights()
    for percent in (0, 70, 80, 90):
        pruned = [_without_small(weight, percent) for weight in trained]
        _write(folder, net, pruned, percent, PRECISIONS, data.x_train[:100])
        for name, method in FIRST.items() if percent else ():
            rounded = [np.asarray(method.apply(w, {})) if w.ndim > 1 else w for w in trained]
            both = [_without_small(weight, percent) for weight in rounded]
            _write(folder, net, both, percent, {name: PRECISIONS[name]}, data.x_train[:100], first=True)
    return data.x_test[:200], data.y_test[:200]


def _write(folder, net, weights, percent, precisions, calibration, first=False):
    net.set_weights(weights)
    files = convert_all(net, tuple(precisions.values()), calibration)
    for name, precision in precisions.items():
        pruned = f"P{percent}" if percent else ""
        files[precision].save(folder / f"{(name + pruned if first else pruned + name) or 'C0'}.tflite")


def _without_small(weight, percent):
    if weight.ndim == 1:
        return weight
    return np.where(np.abs(weight) > np.percentile(np.abs(weight), percent), weight, 0) if percent else weight
