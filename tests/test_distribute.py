"""Pruning and activations of few bits under tf.distribute: two replicas on this CPU, in a process of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import keras, tensorflow as tf
from small_models import compiled, image_data, image_net
from tfcompress import (
    CompressionCallback, LeastSquaresActivation, Polynomial, Prune, compress, quantize_activations, strip
)
from tfcompress.model import compressed_tensors
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = compiled(compress(image_net(), Prune(Polynomial(0.75, 0, 8)), include_head=True))
log = model.fit(*image_data(), epochs=1, verbose=0, callbacks=[CompressionCallback(3)]).history
for _, layer, key in compressed_tensors(model):
    w = layer.baked(key)
    assert int((w == 0).sum()) == round(0.75 * w.size), layer.name
moving = model.get_layer("bn").moving_mean
assert abs(moving.numpy()).max() > 0
strip(model)
net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(6, "relu", name="few"),
                        keras.layers.Dense(3)])
with strategy.scope():
    model = compiled(quantize_activations(net, LeastSquaresActivation(2), image_data()[0]))
before = model.get_layer("few_levels").get_weights()[1]
model.fit(*image_data(), epochs=1, verbose=0)
for _, variable in model.get_layer("few_levels").state:          # each replica saw other activations
    one, other = (part.numpy() for part in variable.value.values)
    assert (one == other).all(), (one, other)
assert (model.get_layer("few_levels").get_weights()[1] != before).any()
print("sparsity", round(log["sparsity"][-1], 2))
"""


@pytest.mark.slow
def test_two_replicas():
    found = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.split() == ["sparsity", "0.75"]
