"""Random networks of every shape that pruning must follow, drawn by hypothesis: blocks behind each other."""

import keras
import numpy as np
from hypothesis import strategies as st

L = keras.layers
ACTIVATIONS = ["relu", "swish", "gelu", "tanh", "sigmoid", "linear"]


def conv(draw, x, filters=None, **options):
    filters = filters or draw(st.integers(2, 6))
    x = L.Conv2D(filters, draw(st.sampled_from([1, 3])), padding=draw(st.sampled_from(["same", "valid"])) if
                 x.shape[1] > 4 and not options else "same", use_bias=draw(st.booleans()))(x)
    if draw(st.booleans()):
        x = L.BatchNormalization(scale=draw(st.booleans()))(x)
    return L.Activation(draw(st.sampled_from(ACTIVATIONS)))(x)


def plain(draw, x):
    return conv(draw, x)


def residual(draw, x):
    y = conv(draw, conv(draw, x, padding="same"), x.shape[-1], padding="same")
    return L.Add()([x, y]) if draw(st.booleans()) else x + 0.5 * y


def dense_block(draw, x):
    for _ in range(draw(st.integers(1, 2))):
        x = L.Concatenate()([x, conv(draw, x, padding="same")])
    return x


def depthwise(draw, x):
    if draw(st.booleans()):
        return L.SeparableConv2D(draw(st.integers(2, 5)), 3, padding="same", depth_multiplier=2)(x)
    return L.DepthwiseConv2D(3, padding="same", depth_multiplier=draw(st.integers(1, 2)), activation="relu")(x)


def squeeze_excite(draw, x):
    s = L.GlobalAveragePooling2D(keepdims=draw(st.booleans()))(x)
    s = L.Reshape((1, 1, x.shape[-1]))(s)
    s = L.Conv2D(draw(st.integers(2, 3)), 1, activation="relu")(s)
    return L.Multiply()([x, L.Conv2D(x.shape[-1], 1, activation=draw(st.sampled_from(["sigmoid", "relu"])))(s)])


def grouped(draw, x):
    groups = draw(st.sampled_from([2, 3]))
    x = L.Conv2D(groups * draw(st.sampled_from([1, 2, 4])), 1)(x)
    return L.Conv2D(groups * draw(st.integers(1, 3)), 3, padding="same", groups=groups, activation="relu")(x)


def shared(draw, x):
    tower = L.Conv2D(x.shape[-1], 3, padding="same", activation="relu")
    return L.Concatenate()([tower(x), tower(tower(x))]) if draw(st.booleans()) else tower(tower(x))


def nested(draw, x):
    i = keras.Input(x.shape[1:])
    inner = keras.Model(i, conv(draw, conv(draw, i, padding="same"), padding="same"))
    return inner(inner(x)) if inner.output_shape[-1] == x.shape[-1] else inner(x)


def moved(draw, x):
    kind = draw(st.sampled_from(["pad", "up", "pool", "shuffle", "transpose", "slice", "prelu"]))
    if kind == "pad":
        return L.Cropping2D(1)(L.ZeroPadding2D(2)(x))
    if kind == "up":
        return L.MaxPooling2D(2)(L.UpSampling2D(2)(x))
    if kind == "pool":
        return L.AveragePooling2D(2, 1, padding="same")(x)
    if kind == "shuffle" and x.shape[-1] % 2 == 0:
        h, w, c = x.shape[1:]
        return L.Reshape((h, w, c))(L.Permute((1, 2, 4, 3))(L.Reshape((h, w, 2, c // 2))(x)))
    if kind == "transpose":
        return L.Conv2DTranspose(3, 2, 1, padding="same")(x)
    if kind == "slice" and x.shape[1] > 2:
        return x[:, 1:]
    return L.PReLU(shared_axes=[1, 2])(x)


def attention(draw, x):
    h, w, c = x.shape[1:]
    tokens = L.Reshape((h * w, c))(x)
    y = L.MultiHeadAttention(draw(st.integers(2, 3)), 2)(tokens, tokens)
    if draw(st.booleans()):
        y = L.LayerNormalization()(y)
    y = L.Dense(5, activation=draw(st.sampled_from(["gelu", "sigmoid"])))(y + tokens)
    last = L.EinsumDense("abc,cd->abd", (h * w, c), bias_axes=draw(st.sampled_from(["d", "bd", None])))
    return L.Reshape((h, w, c))((last if draw(st.booleans()) else L.Dense(c))(y))


def recurrent(draw, x):
    h, w, c = x.shape[1:]
    layer = draw(st.sampled_from([L.LSTM, L.GRU, L.SimpleRNN]))(draw(st.integers(2, 4)), return_sequences=True)
    layer = L.Bidirectional(layer) if draw(st.booleans()) else layer
    y = L.TimeDistributed(L.Dense(c, activation="relu"))(layer(L.Reshape((h * w, c))(x)))
    return L.Reshape((h, w, c))(y)


def halves(draw, x):
    """Gated (GLU), or one half through a convolution (CSPNet)."""
    one, two = keras.ops.split(L.Conv2D(2 * draw(st.integers(2, 4)), 1)(x), 2, axis=-1)
    if draw(st.booleans()):
        return one * keras.ops.sigmoid(two)
    return L.Concatenate()([one, conv(draw, two, padding="same")])


def mixer(draw, x):
    """Positions mixed, where channels are another axis (MLP-Mixer)."""
    h, w, c = x.shape[1:]
    y = L.Permute((2, 1))(L.Reshape((h * w, c))(x))
    y = L.Dense(h * w)(L.Dense(draw(st.integers(3, 5)), activation="gelu")(y))
    return x + L.Reshape((h, w, c))(L.Permute((2, 1))(y))


BLOCKS = [plain, residual, dense_block, depthwise, squeeze_excite, grouped, shared, nested, moved, attention, recurrent,
          halves, mixer]


@st.composite
def models(draw):
    """A network of two to four random blocks, one or two inputs, pooled or flattened in the end; random statistics."""
    inputs = [keras.Input((6, 6, 3)) for _ in range(draw(st.integers(1, 2)))]
    x = conv(draw, inputs[0], 4, padding="same")
    if len(inputs) > 1:
        x = L.Add()([x, conv(draw, inputs[1], 4, padding="same")])
    for block in draw(st.lists(st.sampled_from(BLOCKS), min_size=2, max_size=4)):
        x = block(draw, x)
    x = L.Flatten()(x) if draw(st.booleans()) else L.GlobalAveragePooling2D()(x)
    x = L.Dense(6, activation="relu")(x)
    model = keras.Model(inputs, L.Dense(3, activation=draw(st.sampled_from(["softmax", None])))(x))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    for weight in model.weights:
        spread = 0.5 if len(weight.shape) < 2 else np.prod(weight.shape[:-1]) ** -0.5
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) if "var" in weight.name else
                      rng.normal(0, spread, weight.shape))
    return model
