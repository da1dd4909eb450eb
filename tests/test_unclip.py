"""A fused LSTM whose cells grow beyond 10, where TFLiteConverter would cut them off."""

import numpy as np
import tf_keras

from tfcompress.convert import convert
from tfcompress.flatbuffer import read
from tfcompress.measure import run


def test_a_cell_that_counts_to_thirty_is_not_cut_off_at_ten():
    net = tf_keras.Sequential([tf_keras.layers.Input((59, 2), batch_size=1), tf_keras.layers.LSTM(4)])
    # Gates: input, forget, cell, output. First input 1: the cells grow by 1; second input 1: they shrink by 1.
    kernel = np.zeros((2, 4, 4), np.float32)
    kernel[:, 2] = [[20], [-20]]
    bias = np.repeat(np.array([20, 20, 0, 0], np.float32), 4)
    net.set_weights([kernel.reshape(2, 16), np.zeros((4, 16), np.float32), bias])
    x = np.zeros((1, 59, 2), np.float32)
    x[:, :30, 0] = x[:, 30:, 1] = 1  # up to 30, then down to 1; from 10 it would end at -19
    file = convert(net, "float32")
    (lstm,) = [op for graph in read(file).graphs for op in graph.ops if op.name == "UNIDIRECTIONAL_SEQUENCE_LSTM"]
    assert lstm.options.cellClip == 0
    np.testing.assert_allclose(run(file, x)[0], np.full((1, 4), 0.5 * np.tanh(1)), atol=1e-3)
    np.testing.assert_allclose(run(file, x)[0], net.predict(x, verbose=0), atol=1e-5)
