import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfcompress import legacy
from tfcompress.keras2_check import compare
from tfcompress.legacy import from_tf_keras, is_tf_keras
from tfcompress.schedules import Constant, Cosine, Linear, OneShot, Polynomial

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras is not installed")
L = tf_keras.layers


def stack(shape, *layers, dtype=None):
    return tf_keras.Sequential([L.Input(shape, dtype=dtype), *layers])


def graph(shape, build, **kwargs):
    inputs = L.Input(shape, **kwargs)
    return tf_keras.Model(inputs, build(inputs))


def classifier():
    tf_keras.utils.set_random_seed(0)
    return stack((12, 12, 2), L.Conv2D(8, 3, activation="relu", name="conv"), L.DepthwiseConv2D(3, name="depthwise"),
                 L.BatchNormalization(), L.ReLU(), L.Flatten(), L.Dense(16, activation="relu", name="hidden"),
                 L.Dense(3, name="out"))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 12, 12, 2)).astype("float32")
    return x, x.mean((1, 2)).argmax(-1)


def fit(model, data, epochs=3):
    model.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(*data, epochs=epochs, batch_size=16, verbose=0, callbacks=legacy.callbacks(model))  # 4 steps an epoch
    return model


def randomize(model):
    """Random weights everywhere (biases and moving averages start at 0 and would hide a wrong order)."""
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.1, 0.9, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


# ---- from_tf_keras -----------------------------------------------------------------------------------------------
def _attention(x):
    return L.LayerNormalization()(x + L.MultiHeadAttention(2, 4)(x, x, attention_mask=None))


def _residual(x):
    y = L.Conv2D(3, 3, padding="same", use_bias=False)(x)
    return tf.nn.relu6(L.BatchNormalization()(y) + x) * (1.0 / 6.0) - 0.5


def _sliced(x):
    y = tf.concat([x[:, 1:, ::2], 1.0 - x[:, :-1, ::2]], axis=-1)
    y = tf.transpose(tf.reshape(y, (-1, 8, 4)), (0, 2, 1)) / 2.0
    return tf.reduce_mean(tf.math.sqrt(tf.abs(y)), axis=1, keepdims=True) + tf.expand_dims(x[:, 0], 1) ** 2


def _functions(x):
    parts = tf.split(x, 2, axis=-1)
    y = tf.clip_by_value(tf.maximum(parts[0], parts[1]), -1.0, 1.0)
    y = tf.stack([y, tf.nn.softmax(y), tf.nn.leaky_relu(-y), tf.cast(y > 0, "float32")], axis=1)
    y = tf.matmul(y, y, transpose_b=True) + tf.squeeze(tf.reduce_max(y, -1, keepdims=True), -1)[:, None, :]
    return tf.pad(tf.math.l2_normalize(y, axis=-1), [[0, 0], [1, 1], [0, 2]]) * tf.constant([1.0, 2, 3, 4, 5, 6])


def _shared(x):
    dense = L.Dense(4, activation="tanh")
    return [dense(dense(x)), L.Subtract()([x, dense(x)])]


def _states(x):
    sequence, h, c = L.LSTM(4, return_sequences=True, return_state=True)(x)
    return L.Bidirectional(L.GRU(4))(L.LSTM(4, return_sequences=True)(sequence, initial_state=[h, c]))


def _nested(x):
    inner = stack((4,), L.Dense(4), L.BatchNormalization(), stack((4,), L.Dense(3, activation="swish")))
    inner.trainable = False
    return L.Concatenate()([inner(x, training=False), inner(x)])


def _input_of_outer(x):
    inner = tf_keras.Sequential([L.Dense(3)])
    inner(x)                                                       # it takes the outer input as its own
    return L.Dense(2)(inner(x)) + L.Dense(2)(x)


def _of_applications(x):
    from tf_keras.src.applications.convnext import LayerScale
    from tf_keras.src.applications.inception_resnet_v2 import CustomScaleLayer
    return CustomScaleLayer(0.17)([x, LayerScale(0.5, 4)(L.Dense(4)(x))])


def _frozen_sequence(x):
    inner = stack((4,), L.Dense(4), L.BatchNormalization(), L.Dense(2))
    return L.TimeDistributed(inner)(x)


MODELS = {
    "conv net": lambda: stack((8, 8, 3), L.Rescaling(1 / 255), L.ZeroPadding2D(1), L.Conv2D(4, 3, strides=2),
                              L.BatchNormalization(), L.ReLU(6.0), L.DepthwiseConv2D(3, padding="same"), L.PReLU(),
                              L.SeparableConv2D(6, 3), L.LeakyReLU(0.2), L.Conv2DTranspose(2, 3, padding="same"),
                              L.UpSampling2D(interpolation="bilinear"), L.MaxPooling2D(), L.SpatialDropout2D(0.1),
                              L.GlobalAveragePooling2D(), L.Dense(3, activation="softmax")),
    "one axis": lambda: stack((16, 3), L.Conv1D(4, 3, dilation_rate=2, padding="causal"),
                              L.BatchNormalization(axis=[2]), L.SeparableConv1D(4, 3), L.AveragePooling1D(),
                              L.Flatten(), L.Dropout(0.5), L.Dense(2)),
    "open size": lambda: stack((None, None, 3), L.Conv2D(4, 3, strides=2), L.GlobalMaxPooling2D()),
    "volume": lambda: stack((6, 6, 6, 1), L.Conv3D(2, 3), L.MaxPooling3D(), L.Flatten()),
    "embedding": lambda: stack((7,), L.Embedding(11, 4, mask_zero=True, input_length=7), L.LSTM(5), L.Dense(2),
                               dtype="int32"),
    "gru": lambda: stack((6, 3), L.GRU(4, reset_after=False, return_sequences=True), L.SimpleRNN(3)),
    "old lstm": lambda: stack((6, 3), L.LSTM(4, recurrent_activation="hard_sigmoid"), L.Activation("hard_sigmoid")),
    "cells": lambda: stack((6, 3), L.RNN([L.LSTMCell(4), L.GRUCell(3)]), L.Dense(2)),
    "bidirectional": lambda: stack((6, 3), L.Masking(),
                                   L.Bidirectional(L.LSTM(3), backward_layer=L.GRU(3, go_backwards=True))),
    "conv lstm": lambda: stack((3, 6, 6, 1), L.ConvLSTM2D(2, 3)),
    "time major": lambda: graph((4, 3), L.LSTM(4, time_major=True, return_sequences=True), batch_size=5),
    "attention": lambda: graph((6, 8), _attention),
    "residual": lambda: graph((8, 8, 3), _residual),
    "sliced": lambda: graph((5, 8), _sliced),
    "functions": lambda: graph((8,), _functions),
    "shared": lambda: graph((4,), _shared),
    "states": lambda: graph((6, 3), _states),
    "nested": lambda: graph((4,), _nested),
    "shared input": lambda: graph((4,), _input_of_outer),
    "inner model": lambda: graph((5, 4), _frozen_sequence),
    "of applications": lambda: graph((4,), _of_applications),
    "einsum": lambda: stack((5, 4), L.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"), L.UnitNormalization()),
    "lambda": lambda: stack((4,), L.Dense(4, activation=tf.nn.relu6), L.Lambda(lambda x: x * 2.0)),
    "layer as activation": lambda: stack((4,), L.Dense(4, activation=L.LeakyReLU(0.3)), L.ThresholdedReLU(0.5)),
    "half": lambda: stack((4,), L.Dense(8, dtype="mixed_float16", activation="gelu"), L.Dense(2, dtype="float32")),
}


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_equal_in_keras_3(name):
    old = randomize(MODELS[name]())
    new = from_tf_keras(old)                                       # compares the outputs itself
    assert isinstance(new, keras.Model) and not is_tf_keras(new)
    assert new.count_params() == old.count_params()
    assert [tuple(t.shape) for t in new.inputs] == [tuple(t.shape) for t in old.inputs]
    assert isinstance(new, keras.Sequential) == (isinstance(old, tf_keras.Sequential) and name != "time major")


def test_translation_trains_saves_and_keeps_what_was_frozen(tmp_path):
    old = MODELS["nested"]()
    new = from_tf_keras(old)
    assert len(new.trainable_weights) == len(old.trainable_weights) == 0
    old = MODELS["residual"]()
    new = from_tf_keras(old)
    new.compile("sgd", "mse")
    x = np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype("float32")
    new.fit(x, x, verbose=0)
    new.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), new.predict(x, verbose=0))
    assert any(isinstance(layer, keras.layers.Add) for layer in new.layers)


def test_names_inputs_and_outputs_are_kept():
    a, b = L.Input((3,), name="left"), L.Input((4,), dtype="int32", name="right")
    y = L.Concatenate(name="block/concat")([a, tf.cast(b, "float32")])
    old = tf_keras.Model({"b": b, "a": a}, {"sum": L.Dense(2, name="sum")(y), "all": y})
    new = from_tf_keras(old)
    x = {"a": np.ones((2, 3), "float32"), "b": np.ones((2, 4), "int32")}
    was, now = old.predict(x, verbose=0), new.predict(x, verbose=0)
    assert sorted(now) == ["all", "sum"] and new.get_layer("block_concat")
    assert {t.name for t in new.inputs} == {"left", "right"}
    for key in now:
        np.testing.assert_allclose(now[key], was[key], atol=1e-6)


def test_normalization_keeps_what_it_adapted_to(data):
    layer = L.Normalization(axis=-1)
    layer.adapt(data[0] * 3 + 1)
    for normalization in (layer, L.Normalization(axis=None, mean=2.0, variance=4.0)):
        old = stack((12, 12, 2), normalization, L.Flatten())
        np.testing.assert_allclose(from_tf_keras(old).predict(data[0], verbose=0), old.predict(data[0], verbose=0),
                                   atol=1e-5)


def test_mobilenet_v2():
    old = tf_keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=5)
    new = from_tf_keras(old)
    assert new.count_params() == old.count_params() and len(new.layers) == len(old.layers)


def test_keras_2_file_that_keras_3_refuses(tmp_path):
    old = stack((6, 6, 3), L.DepthwiseConv2D(3, name="depthwise"), L.Reshape((4, 12)), L.LSTM(3))
    old.save(tmp_path / "old.h5")
    with pytest.raises((TypeError, ValueError), match="time_major|groups|Unrecognized"):
        keras.models.load_model(tmp_path / "old.h5")
    new = from_tf_keras(tmp_path / "old.h5")
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 3)).astype("float32")
    np.testing.assert_allclose(new.predict(x, verbose=0), old.predict(x, verbose=0), atol=1e-6)


def test_file_that_would_run_code_is_refused(tmp_path):
    stack((4,), L.Dense(2), L.Lambda(lambda x: x * 2)).save(tmp_path / "code.h5")
    with pytest.raises(ValueError, match="code.h5.*ambda.*load it yourself"):
        from_tf_keras(tmp_path / "code.h5")
    (tmp_path / "broken.h5").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="can't load .*broken.h5"):
        from_tf_keras(tmp_path / "broken.h5")


def test_layer_without_counterpart_is_named(tmp_path):
    class Scale(L.Layer):
        def call(self, x):
            return 2 * x

    class Subclassed(tf_keras.Model):
        def call(self, x):
            return x

    for model, words in [
        (stack((6, 2), L.LocallyConnected1D(2, 3, name="local")), "'local' .LocallyConnected1D. has no counterpart"),
        (stack((6,), Scale(name="twice")), "'twice' .Scale. has no counterpart.*custom_objects"),
        (graph((6,), lambda x: tf.linalg.band_part(x, 1, 1)), "calls tf.linalg.band_part"),
        (Subclassed(), "subclassed"), (keras.Sequential(), "needs no translation"),
        (tf_keras.Sequential([L.Dense(2)]), "model.build"),
    ]:
        with pytest.raises(ValueError, match=words):
            from_tf_keras(model)
    with pytest.raises(FileNotFoundError, match="nowhere.h5"):
        from_tf_keras(tmp_path / "nowhere.h5")

    class Scale3(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    assert from_tf_keras(stack((6,), Scale()), {"Scale": Scale3}).layers[0].name.startswith("scale")


def test_layer_that_differs_is_named():
    class Wrong(keras.layers.Layer):
        def call(self, x):
            return 3 * x

    class Scale(L.Layer):
        def call(self, x):
            return 2 * x

    old = stack((6,), L.Dense(3), Scale(name="culprit"), L.Dense(2))
    with pytest.raises(ValueError, match="Layer 'culprit' gives other outputs"):
        from_tf_keras(old, {"Scale": Wrong})
    new = from_tf_keras(old, {"Scale": Wrong}, check=False)
    with pytest.raises(ValueError, match="outputs differ"):
        compare(old, new)


# ---- tensorflow-model-optimization -------------------------------------------------------------------------------
def test_importing_tfmot_leaves_the_process_as_it_was():
    code = ("import os, tensorflow as tf, keras, tf_keras; from tfcompress import legacy; "
            "legacy.callbacks(tf_keras.Sequential()); legacy._tfmot(); "
            "print(os.environ.get('TF_USE_LEGACY_KERAS'), tf.keras.Model is keras.Model)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["None", "True"]


def test_is_tf_keras_is_cheap_and_right():
    class Mine(tf_keras.Model):
        pass

    assert is_tf_keras(classifier()) and is_tf_keras(Mine())
    assert not is_tf_keras(keras.Sequential()) and not is_tf_keras("path") and not is_tf_keras(None)


@pytest.mark.parametrize("schedule", [Polynomial(0.75, 0, 8), Linear(0.75, 2, 9), Constant(0.75, 3), OneShot(0.75, 5)])
def test_prune_reaches_its_sparsity_and_spares_head_and_original(schedule, data):
    base = classifier()
    before = base.get_weights()
    pruned = fit(legacy.prune(base, schedule, every=3), data)
    plain = legacy.strip(pruned)
    zeros = {layer.name: float((layer.get_weights()[0] == 0).mean()) for layer in plain.layers if layer.weights}
    assert zeros["conv"] == pytest.approx(0.75, abs=0.005) and zeros["hidden"] == pytest.approx(0.75, abs=0.001)
    assert zeros["out"] == 0 and zeros["depthwise"] == 0
    assert [type(layer) for layer in plain.layers] == [type(layer) for layer in base.layers]
    np.testing.assert_allclose(plain.predict(data[0], verbose=0), pruned.predict(data[0], verbose=0), atol=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(before, base.get_weights(), strict=True))
    assert (from_tf_keras(plain).get_layer("hidden").get_weights()[0] == 0).mean() == zeros["hidden"]


def test_prune_rules_and_errors():
    base = classifier()
    one = legacy.prune(base, OneShot(0.5), layers="hid.*")
    assert [layer.name for layer in one.layers if "prune" in layer.name] == ["prune_low_magnitude_hidden"]
    with pytest.raises(ValueError, match="hdden.*conv.*hidden.*out"):
        legacy.prune(base, OneShot(0.5), layers="hdden")
    with pytest.raises(ValueError, match="Cosine.*from_tf_keras"):
        legacy.prune(base, Cosine(0.5, 0, 9))
    rnn = stack((5, 3), L.Bidirectional(L.LSTM(4), name="both"), L.Dense(2))
    with pytest.raises(ValueError, match="can't prune 'both'.*from_tf_keras"):
        legacy.prune(rnn, OneShot(0.5))
    with pytest.raises(ValueError, match="strip"):
        legacy.prune(one, OneShot(0.5))
    with pytest.raises(ValueError, match="Keras 3 models go to"):
        legacy.prune(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]), OneShot(0.5))


def test_cluster_leaves_that_many_values(data):
    base = fit(classifier(), data)
    clustered = fit(legacy.cluster(base, 4), data, epochs=1)
    plain = legacy.strip(clustered)
    assert len(np.unique(plain.get_layer("hidden").get_weights()[0])) <= 4
    assert len(np.unique(plain.get_layer("conv").get_weights()[0])) <= 4
    assert len(np.unique(plain.get_layer("out").get_weights()[0])) == 48
    with pytest.raises(ValueError, match="at least 2"):
        legacy.cluster(base, 1)


def test_quantize_aware_trains_and_names_what_it_cannot(data, tmp_path):
    aware = fit(legacy.quantize_aware(classifier(), keep_float=("out",)), data, epochs=1)
    names = [layer.name for layer in aware.layers]
    assert "quant_conv" in names and "out" in names
    assert legacy.strip(aware) is aware and legacy.callbacks(aware) == []
    assert legacy.is_aware(aware) and not legacy.is_aware(classifier()) and not legacy.is_aware(keras.Sequential())
    aware.save(tmp_path / "aware.h5")
    again = legacy.load(tmp_path / "aware.h5")
    np.testing.assert_allclose(again.predict(data[0], verbose=0), aware.predict(data[0], verbose=0), atol=1e-6)
    with pytest.raises(ValueError, match="wrapped by TFMOT"):
        from_tf_keras(aware)
    with pytest.raises(ValueError, match="matched no layer"):
        legacy.quantize_aware(classifier(), keep_float=("outt",))
    with pytest.raises(ValueError, match="bits=4.*from_tf_keras"):
        legacy.quantize_aware(classifier(), bits=4)
    with pytest.raises(ValueError, match="can't quantize 'lonely'.*from_tf_keras"):
        legacy.quantize_aware(stack((4,), L.Dense(3), L.LayerNormalization(name="lonely")))
    inner = stack((4,), L.Dense(2))
    for model, name in ((graph((4,), inner), inner.name), (graph((4,), lambda x: x + L.Dense(4)(x)), "tf.__oper")):
        with pytest.raises(ValueError, match=f"can't quantize '{name}.*keep_float.*from_tf_keras"):
            legacy.quantize_aware(model)


def test_quantize_aware_keeps_the_zeros_of_a_pruned_model(data):
    plain = legacy.strip(fit(legacy.prune(classifier(), OneShot(0.75, 1)), data))
    aware = fit(legacy.quantize_aware(plain, preserve="sparsity"), data, epochs=2)
    kernel = next(w for w in aware.get_layer("quant_hidden").weights if "kernel" in w.name)
    assert (kernel.numpy() == 0).mean() >= 0.749
    with pytest.raises(ValueError, match="Known"):
        legacy.quantize_aware(plain, preserve="zeros")


def test_environment_flag_set_by_the_user_stays(monkeypatch):
    monkeypatch.setenv(legacy.FLAG, "0")
    legacy._tfmot()
    assert os.environ[legacy.FLAG] == "0"
