"""Random inputs for a model whose floats are row numbers of an Embedding, as Keras 2 has them."""

import numpy as np
import tf_keras

from tfcompress.conversion.interpreter import Tensor
from tfcompress.conversion.samples import random_batches
from tfcompress.convert import convert


def test_floats_that_feed_an_embedding_are_row_numbers():
    net = tf_keras.Sequential([tf_keras.layers.Input((6,)), tf_keras.layers.Embedding(9, 3), tf_keras.layers.Flatten()])
    batches = random_batches({"x": Tensor("x", (None, 6), "float32", 0.0, 0)}, net.layers)
    values = np.concatenate([batch["x"] for batch in batches])
    assert values.dtype == np.float32 and set(np.unique(values)) == set(range(9))
    assert convert(net, "float32").gate.agreement[0].max_difference == 0
