"""Small models that several test files share: one builder a layer type or graph shape."""

import keras
import numpy as np

L = keras.layers


def image_net():
    """Conv + BN + ReLU + depthwise + dropout + head, on 8x8x3 images of three classes."""
    i = keras.Input((8, 8, 3))
    x = L.Conv2D(8, 3, padding="same", name="conv")(i)
    x = L.ReLU()(L.BatchNormalization(name="bn")(x))
    x = L.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = L.Dropout(0.2)(x)
    return keras.Model(i, L.Dense(3, name="head")(L.Flatten()(x)))


def softmax_net():
    """Conv + BN + ReLU6 + depthwise + two dense layers, on 12x12x3 images called "image", to four "scores"."""
    i = keras.Input((12, 12, 3), name="image")
    x = L.Conv2D(16, 3, use_bias=False, name="conv")(i)
    x = L.ReLU(max_value=6.0)(L.BatchNormalization()(x))
    x = L.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = L.Dense(32, activation="relu")(L.Flatten()(x))
    return keras.Model(i, L.Dense(4, activation="softmax", name="scores")(x))


def normal(*shape, count=100):
    """``count`` samples of white noise, the same ones every time."""
    return np.random.default_rng(0).standard_normal((count, *shape)).astype("float32")


def image_data(n=256):
    x = np.random.default_rng(0).standard_normal((n, 8, 8, 3)).astype("float32")
    return x, x.mean((1, 2)).argmax(-1)


def compiled(model, **options):
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  metrics=["accuracy"], **options)
    return model


def sequence(layer, shape=(5, 4)):
    i = keras.Input(shape)
    return keras.Model(i, layer(i))


def attention():
    i = keras.Input((5, 8))
    x = L.MultiHeadAttention(2, 3, name="attention")(i, i)
    return keras.Model(i, L.LayerNormalization()(x + i))


def masked_lstm():
    i = keras.Input((6,), dtype="int32")
    x = L.Embedding(11, 4, mask_zero=True, name="embedding")(i)
    x = L.LSTM(5, name="lstm")(x)
    return keras.Model(i, x)


def lstm_with_state():
    i = keras.Input((5, 4))
    x, h, c = L.LSTM(3, return_sequences=True, return_state=True, name="encoder")(i)
    return keras.Model(i, L.LSTM(3, name="decoder")(x, initial_state=[h, c]))


def shared():
    a, b = keras.Input((4,)), keras.Input((4,))
    tower = L.Dense(6, name="tower")
    return keras.Model([a, b], L.Dense(2, name="out")(L.concatenate([tower(a), tower(b)])))


def nested():
    """Two sub-models that each hold a layer called ``d``: their paths collide in Keras."""
    def block(name):
        return keras.Sequential([keras.Input((4,)), L.Dense(4, name="d", use_bias=False)], name=name)
    i = keras.Input((4,))
    return keras.Model(i, L.Dense(2, name="out")(block("two")(block("one")(i))))


LAYERS = {
    "dense": lambda: sequence(L.Dense(3), (4,)),
    "conv1d": lambda: sequence(L.Conv1D(3, 2)),
    "conv2d": lambda: sequence(L.Conv2D(3, 2), (5, 5, 2)),
    "conv3d": lambda: sequence(L.Conv3D(3, 2), (4, 4, 4, 2)),
    "depthwise1d": lambda: sequence(L.DepthwiseConv1D(2, depth_multiplier=2)),
    "depthwise2d": lambda: sequence(L.DepthwiseConv2D(2, depth_multiplier=2), (5, 5, 2)),
    "separable1d": lambda: sequence(L.SeparableConv1D(3, 2)),
    "separable2d": lambda: sequence(L.SeparableConv2D(3, 2), (5, 5, 2)),
    "transpose1d": lambda: sequence(L.Conv1DTranspose(3, 2)),
    "transpose2d": lambda: sequence(L.Conv2DTranspose(3, 2), (4, 4, 2)),
    "einsum": lambda: sequence(L.EinsumDense("abc,cde->abde", output_shape=(None, 3, 2))),
    "attention": attention,
    "lstm": lambda: sequence(L.LSTM(3)),
    "gru": lambda: sequence(L.GRU(3, return_sequences=True)),
    "bidirectional": lambda: sequence(L.Bidirectional(L.LSTM(3))),
    "conv_lstm": lambda: sequence(L.ConvLSTM1D(2, 2), (3, 5, 2)),
    "stacked": lambda: sequence(L.RNN([L.LSTMCell(3), L.LSTMCell(2)])),
    "time_distributed": lambda: sequence(L.TimeDistributed(L.Dense(3))),
    "masked_lstm": masked_lstm,
    "lstm_with_state": lstm_with_state,
    "shared": shared,
    "nested": nested,
}


def inputs_for(model, n=4, seed=0):
    """Random inputs that fit ``model.inputs``: integers where it takes integers."""
    rng = np.random.default_rng(seed)
    made = []
    for i in model.inputs:
        shape = (n, *i.shape[1:])
        integer = "int" in str(i.dtype)
        made.append(rng.integers(0, 10, shape).astype("int32") if integer else
                    rng.standard_normal(shape).astype("float32"))
    return made if len(made) > 1 else made[0]
