import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfcompress.convert import convert
from tfcompress.distillation.margin import MARGINS, MarginCrossEntropy, MarginSoftmax


@pytest.fixture(scope="module")
def cosines():
    return np.random.default_rng(0).uniform(-0.95, 0.95, (8, 5)), np.array([0, 1, 2, 3, 4, 0, 1, 2])


def reference(kind, cosine, labels, scale, margin):
    cosine, rows = cosine.copy(), np.arange(len(labels))
    true = cosine[rows, labels]
    if kind == "cosface":
        moved = true - margin
    else:
        angle = np.arccos(true)
        moved = np.where(angle + margin < np.pi, np.cos(angle + margin), true - margin * math.sin(margin))
    cosine[rows, labels] = moved
    logits = scale * cosine
    return np.log(np.exp(logits).sum(-1)) - logits[rows, labels]


@pytest.mark.parametrize("kind", MARGINS)
@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5, 1.2])
def test_value_and_gradient_are_those_of_the_formula(kind, margin, cosines):
    cosine, labels = cosines
    loss = MarginCrossEntropy(kind, scale=10, margin=margin, reduction="none", dtype="float64")
    logits = tf.constant(10 * cosine)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(labels, logits)
    np.testing.assert_allclose(value, reference(kind, cosine, labels, 10, margin), rtol=1e-10)
    finite = np.zeros_like(cosine)
    for index in np.ndindex(cosine.shape):
        step = np.zeros_like(cosine)
        step[index] = 1e-6
        sides = [reference(kind, cosine + sign * step, labels, 10, margin).sum() for sign in (1, -1)]
        finite[index] = (sides[0] - sides[1]) / 2e-6 / 10
    np.testing.assert_allclose(tape.gradient(value, logits), finite, atol=1e-8)


@pytest.mark.parametrize("kind", MARGINS)
def test_margin_0_is_plain_cross_entropy_bit_for_bit(kind, cosines):
    cosine, labels = cosines
    logits, loss = (30 * cosine).astype("float32"), MarginCrossEntropy(kind, scale=30, margin=0)
    one_hot = np.eye(5, dtype="float32")[labels]
    assert loss(labels, logits) == keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    assert loss(one_hot, logits) == keras.losses.CategoricalCrossentropy(from_logits=True)(one_hot, logits)


@pytest.mark.parametrize("kind", MARGINS)
def test_labels_of_every_form_agree_and_others_are_refused(kind, cosines):
    cosine, labels = cosines
    loss, logits = MarginCrossEntropy(kind), 64 * cosine
    values = [float(loss(y, logits)) for y in (labels, labels[:, None], np.eye(5, dtype=int)[labels], labels.tolist())]
    np.testing.assert_allclose(values, values[0], rtol=1e-6)
    assert loss.margin == MARGINS[kind] and values[0] > float(MarginCrossEntropy(kind, margin=0)(labels, logits))
    with pytest.raises(ValueError, match="class numbers"):
        loss(np.zeros((8, 3)), logits)
    sequence = loss(np.stack([labels, labels]), np.stack([logits, logits]))
    np.testing.assert_allclose(sequence, values[0], rtol=1e-6)


@pytest.mark.parametrize("cosine", [-1.0, 1.0, 1.0000001, 0.99999994, -1.0000001])
def test_gradient_is_finite_at_the_ends_of_the_angle(cosine):
    logits = tf.constant([[64 * cosine, 0.0, -64.0]], "float32")
    for kind in MARGINS:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = MarginCrossEntropy(kind)([0], logits)
        assert np.isfinite(value) and np.isfinite(tape.gradient(value, logits)).all()


def test_harder_angle_is_never_an_easier_one():
    angles = np.linspace(0, np.pi, 500)
    losses = MarginCrossEntropy("arcface", scale=8, reduction="none", dtype="float64")(
        np.zeros(500, int), 8 * np.stack([np.cos(angles), 0 * angles], -1)).numpy()
    assert (np.diff(losses) > -1e-12).all()


def test_head_gives_scaled_cosines_whatever_the_lengths():
    head = MarginSoftmax(4, scale=20)
    x = np.random.default_rng(1).standard_normal((6, 3)).astype("float32")
    found = np.asarray(head(x))
    kernel = head.kernel.numpy()
    expected = 20 * x @ kernel / np.linalg.norm(x, axis=1, keepdims=True) / np.linalg.norm(kernel, axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(head(1e3 * x), found, rtol=1e-4, atol=1e-4)
    assert not np.asarray(head(0 * x)).any() and head.compute_output_shape((None, 3)) == (None, 4)


def test_mistakes_are_told():
    for wrong, message in (({"classes": 1}, "two classes"), ({"classes": 3, "scale": 0}, "scale")):
        with pytest.raises(ValueError, match=message):
            MarginSoftmax(**wrong)
    for wrong, message in (({"kind": "sphere"}, "Known: .'arcface', 'cosface'"), ({"scale": -1}, "scale"),
                           ({"margin": -0.1}, "margin"), ({"margin": 3.5}, "margin")):
        with pytest.raises(ValueError, match=message):
            MarginCrossEntropy(**wrong)
    with pytest.raises(ValueError, match="known features"):
        MarginSoftmax(3)(keras.Input((None,)))


def embedding_net():
    return keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(8, 3, activation="relu"),
                             layers.GlobalAveragePooling2D(), layers.Dense(4, name="embedding")])


def test_saved_with_the_model(tmp_path):
    model = keras.Sequential([embedding_net(), MarginSoftmax(3, scale=16, name="head")])
    model.compile("adam", MarginCrossEntropy("cosface", scale=16, margin=0.2), metrics=["accuracy"])
    model.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    x = np.random.default_rng(2).standard_normal((5, 8, 8, 1)).astype("float32")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.loss.get_config() == model.loss.get_config() and loaded.layers[-1].scale == 16
    config = MarginCrossEntropy("arcface", 32, 0.3, dtype="float64").get_config()
    assert MarginCrossEntropy.from_config(config).get_config() == config


def test_mixed_precision_keeps_cosines_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([embedding_net(), MarginSoftmax(3)])
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile("sgd", MarginCrossEntropy(), jit_compile=False)
    x, y = np.ones((4, 8, 8, 1), "float32"), np.array([0, 1, 2, 0])
    assert model(x).dtype == "float32" and np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()


@pytest.mark.slow
def test_margin_pulls_classes_together():
    random = np.random.default_rng(3)
    y = np.repeat(np.arange(3), 400)
    x = random.standard_normal((3, 8, 8, 1))[y] + 0.7 * random.standard_normal((1200, 8, 8, 1))
    model = keras.Sequential([embedding_net(), MarginSoftmax(3, scale=16)])
    loss = MarginCrossEntropy("arcface", scale=16)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"], jit_compile=False)
    history = model.fit(x, y, batch_size=40, epochs=3, verbose=0).history
    assert history["accuracy"][-1] > 0.9 and history["loss"][-1] < history["loss"][0] / 2


@pytest.mark.slow
def test_embedding_is_exported_without_the_head():
    net = embedding_net()
    keras.Sequential([net, MarginSoftmax(3, scale=16)])
    x = np.random.default_rng(4).standard_normal((8, 8, 8, 1)).astype("float32")
    file = convert(net, "float32")
    np.testing.assert_allclose(np.reshape(file.predict(x), (8, 4)), net(x), rtol=1e-3, atol=1e-4)
