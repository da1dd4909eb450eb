"""The wrapper behaves as the layer inside it; each failure found while proving the core has a test."""

import keras
import numpy as np
import pytest
from keras import ops
from small_models import LAYERS, compiled, image_data, image_net, inputs_for

from tfcompress import Compressed, Constant, Method, Prune, Uniform, compress, strip
from tfcompress.layout import kernels
from tfcompress.method import serializable
from tfcompress.model import compressed_tensors, leaves

L = keras.layers


@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS.keys())
def test_layer_compressed_stripped_and_reloaded_agree(build, tmp_path):
    base = build()
    x = inputs_for(base)
    model = compress(base, Uniform(3), include_head=True)
    expected = model.predict(x, verbose=0)
    assert np.abs(expected - base.predict(x, verbose=0)).max() > 1e-6         # three bits must show
    plain = strip(model)
    np.testing.assert_allclose(plain.predict(x, verbose=0), expected, atol=1e-6)
    for (path, old), (_, new) in zip(leaves(model), leaves(plain), strict=True):
        for key in getattr(old, "methods", {}):
            variable, view = kernels(new)[key]
            channels = view.to(variable.numpy(), np).reshape(-1, view.canonical[-1])
            assert max(len(np.unique(c)) for c in channels.T) <= 7, path
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras").predict(x, verbose=0), expected)
    gradients_reach_every_latent(model, x)


def gradients_reach_every_latent(model, x):
    import tensorflow as tf
    latents = [layer.slots[key].latent for _, layer, key in compressed_tensors(model)]
    with tf.GradientTape() as tape:
        loss = ops.sum(model(x, training=True) ** 2)
    for variable, g in zip(latents, tape.gradient(loss, [v.value for v in latents]), strict=True):
        assert g is not None and np.isfinite(ops.convert_to_numpy(g)).all(), variable.path


@pytest.mark.parametrize("name, key, canonical", [
    ("depthwise2d", "kernel", (2, 2, 4)), ("transpose2d", "kernel", (2, 2, 2, 3)), ("einsum", "kernel", (4, 6)),
    ("attention", "attention_output/kernel", (2, 3, 8)), ("attention", "query/kernel", (8, 6)),
    ("bidirectional", "forward_lstm/lstm_cell/recurrent_kernel", (3, 12)),
])
def test_canonical_view_puts_output_channels_last(name, key, canonical):
    found = {k: v for _, layer in leaves(LAYERS[name]()) for k, v in kernels(layer).items()}
    assert key in found or any(k.endswith(key.split("/", 1)[-1]) for k in found), list(found)
    variable, view = found.get(key) or next(v for k, v in found.items() if k.endswith(key.split("/", 1)[-1]))
    assert view.canonical == canonical
    w = np.arange(np.prod(view.shape)).reshape(view.shape)
    np.testing.assert_array_equal(view.back(view.to(w, np), np), w)


def test_nested_models_with_equal_names_keep_their_own_masks():
    model = compress(LAYERS["nested"](), Prune(Constant(0.5)))
    paths = [path for path, _, _ in compressed_tensors(model)]
    assert paths == ["one/d/kernel", "two/d/kernel"]
    (_, one, key), (_, two, _) = compressed_tensors(model)
    one.write(key, {"mask": np.zeros((4, 4))})
    assert two.values(key)["mask"].min() == 1


def test_shared_layer_is_one_layer_and_adds_its_penalty_once():
    model = compress(LAYERS["shared"](), [("tower", Decay())])
    assert [path for path, _, _ in compressed_tensors(model)] == ["tower/kernel"]
    model(inputs_for(model))
    weight = compressed_tensors(model)[0][1].latent("kernel")
    np.testing.assert_allclose(sum(float(loss) for loss in model.losses), (weight ** 2).sum(), rtol=1e-5)


@serializable
class Decay(Method):
    """A penalty and nothing else."""

    def __eq__(self, other):
        return isinstance(other, Decay)

    def __hash__(self):
        return 0

    def get_config(self):
        return {}

    def penalty(self, w, state):
        return ops.sum(ops.square(w))


def test_penalty_adds_to_the_layers_own_regularizer():
    i = keras.Input((4,))
    base = keras.Model(i, L.Dense(3, kernel_regularizer=keras.regularizers.L2(0.5), name="d")(i))
    model = compress(base, [("d", Decay())])
    model(inputs_for(model))
    squares = float((compressed_tensors(model)[0][1].latent("kernel") ** 2).sum())
    np.testing.assert_allclose(sum(float(loss) for loss in model.losses), 1.5 * squares, rtol=1e-5)


def test_updates_made_inside_the_layer_are_kept():
    """A plain StatelessScope left moving means at 0 and drew the same dropout mask at each step."""
    inner = keras.Sequential([keras.Input((4,)), L.Dense(3), L.BatchNormalization(), L.Dropout(0.5)])
    i = keras.Input((5, 4))
    model = compress(keras.Model(i, L.TimeDistributed(inner)(i)), Uniform(8), include_head=True)
    x = inputs_for(model, 64)
    first, second = (ops.convert_to_numpy(model(x, training=True)) for _ in range(2))
    moving = [v.numpy() for v in model.non_trainable_variables if "moving_mean" in v.path]
    assert moving and np.abs(moving[0]).max() > 0
    assert not np.array_equal(first == 0, second == 0)


def test_updates_are_kept_in_a_compiled_step():
    stateful = keras.Sequential([keras.Input(batch_shape=(2, 5, 4)), L.LSTM(3, stateful=True, name="lstm")])
    model = compress(stateful, Uniform(8), include_head=True)
    model.compile("sgd", "mse")
    x = inputs_for(stateful, 2)
    one, two = model.predict(x, batch_size=2, verbose=0), model.predict(x, batch_size=2, verbose=0)
    assert np.abs(one - two).max() > 1e-4, "a stateful LSTM goes on from its last state"


def test_activity_regularizer_of_the_inner_layer_survives():
    i = keras.Input((4,))
    base = keras.Model(i, L.Dense(3, activity_regularizer=keras.regularizers.L2(1.0), name="d")(i))
    model, x = compress(base, [("d", Uniform(8))]), np.ones((2, 4), "float32")
    model(x)
    assert len(model.losses) == 1 and float(model.losses[0]) > 0


def test_mixed_float16_keeps_state_and_sums_in_float32():
    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        i = keras.Input((64,))
        base = keras.Model(i, L.Dense(8, name="out", dtype="float32")(L.Dense(512, activation="relu", name="d")(i)))
        model = compress(base, [("d", SumOfAll())])
    finally:
        keras.mixed_precision.set_dtype_policy(policy)
    layer = model.get_layer("d")
    assert isinstance(layer, Compressed) and layer.layer.compute_dtype == "float16"
    layer.write("kernel", {"weight": np.full((64, 512), 4.0)})
    assert model(np.ones((2, 64), "float16")).dtype == "float32"
    np.testing.assert_array_equal(layer.baked("kernel"), 131072.0)            # 64 * 512 * 4: over float16's 65504


@serializable
class SumOfAll(Decay):
    """Replaces every weight by the sum of all: overflows in float16."""

    def penalty(self, w, state):
        return None

    def apply(self, w, state):
        return ops.zeros_like(w) + ops.sum(w)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"jit_compile": True}, {"steps_per_execution": 4}, {"run_eagerly": True}], ids=str)
def test_every_way_to_run_a_step(options):
    from tfcompress import CompressionCallback, Polynomial
    model = compiled(compress(image_net(), Prune(Polynomial(0.5, 0, 8)), include_head=True), **options)
    history = model.fit(*image_data(), epochs=1, batch_size=32, verbose=0, callbacks=[CompressionCallback(2)]).history
    zeros = [int((layer.baked(key) == 0).sum()) for _, layer, key in compressed_tensors(model)]
    sizes = [layer.baked(key).size for _, layer, key in compressed_tensors(model)]
    assert zeros == [round(0.5 * size) for size in sizes]
    assert history["sparsity"] == [pytest.approx(0.5, abs=0.01)]


def test_unknown_tensor_is_a_clear_error():
    with pytest.raises(ValueError, match=r"has no tensors \['kernal'\]. It has: \['kernel'\]"):
        Compressed(L.Dense(2, name="d"), {"kernal": Uniform(8)}).build((None, 3))
