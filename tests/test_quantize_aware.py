import keras
import numpy as np
import pytest
import tensorflow as tf
from aware_nets import IMAGE, NETS, SEQUENCE, File, coarse, file_of, mobile, net, norm, trained
from keras.src.applications.convnext import LayerScale
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from tfcompress.callback import CompressionCallback
from tfcompress.conversion.int8_kernels import pack
from tfcompress.model import compress, strip
from tfcompress.pruning.prune import Prune
from tfcompress.quantization.admm import ADMM
from tfcompress.quantization.aware import (
    bake_aware,
    calibrate,
    fake_quants,
    freeze_ranges,
    is_aware,
    quantize_aware,
    skipped_layers,
)
from tfcompress.quantization.fake_quant import FakeQuant
from tfcompress.quantization.uniform import Uniform
from tfcompress.schedules import OneShot
from tfcompress.wrapper import Compressed

L = keras.layers


def aware(body, x, **options):
    model = quantize_aware(net(body, x), **options)
    calibrate(model, x)
    return model


def fitted(model, x, epochs=1, **options):
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, np.arange(len(x)) % 5, epochs=epochs, verbose=0, shuffle=False, **options)
    return model


# ---- known answers ----------------------------------------------------------------------------------------------
def test_one_layer_is_the_affine_integer_arithmetic():
    """q_out = round(M * (sum (q_in - z_in) q_w + q_bias)) + z_out, computed here with whole numbers."""
    x = np.random.default_rng(3).uniform(-1, 2, (64, 12)).astype("float32")
    inputs = keras.Input((12,))
    model = keras.Model(inputs, L.Dense(7, bias_initializer="normal", name="out")(inputs))
    w, b = model.get_layer("out").get_weights()
    trained = quantize_aware(model)
    calibrate(trained, x)
    (low, high), (out_low, out_high) = (trained.get_layer(f"{name}_quant").limits for name in ("input", "out"))
    s_in, s_out = (high - low) / 255, (out_high - out_low) / 255
    z_out = np.round(-128 - out_low / s_out)
    s_w = np.abs(w).max(axis=0) / 127
    shifted = np.clip(np.round(x / s_in), *np.round([low / s_in, high / s_in])).astype("int64")      # q_in - z_in
    accumulator = shifted @ np.round(w / s_w).astype("int64") + np.round(b / (s_in * s_w)).astype("int64")
    codes = np.clip(np.round(accumulator * (s_in * s_w / s_out)) + z_out, -128, 127)
    expected = (codes - z_out) * s_out
    gap = np.abs(trained.predict(x, verbose=0) - expected) / s_out
    assert gap.max() < 1.01 and (gap < 0.01).mean() > 0.99
    file = File(file_of(bake_aware(trained)))
    assert np.abs(np.round((file.predict(x) - expected) / s_out)).max() <= 1


def test_biases_of_the_file_are_those_of_the_model():
    """Codes of 100,000 steps: with the step computed in another order, one channel in 50 had another code."""
    inputs = keras.Input((4,))
    model = quantize_aware(keras.Model(inputs, L.Dense(1)(L.Dense(4096, bias_initializer="normal", name="h")(inputs))))
    calibrate(model, np.random.default_rng(3).uniform(-0.03, 0.05, (64, 4)).astype("float32"))
    zeros = keras.ops.zeros((1, 4))
    bias, unit = (v.numpy() for v in keras.Model(model.inputs, model.get_layer("h").output)(zeros, training=False))
    assert np.median(np.abs(bias / unit)) > 1e5
    baked = bake_aware(model).get_layer("h").bias.numpy()
    np.testing.assert_array_equal(np.round(baked / unit), np.round(bias[0] / unit))


def test_fake_quant_range_gradient_and_zero():
    layer = FakeQuant(momentum=0.9)
    layer(np.array([-1.0, 3.0], "float32"), training=True)
    assert layer.limits == (-1.0, 3.0)                           # the first batch's
    layer(np.array([0.5, 5.0], "float32"), training=True)
    assert np.allclose(layer.limits, (-0.9, 3.2))                # minima never rise above zero
    layer(np.array([-9.0, 9.0], "float32"), training=False)
    assert np.allclose(layer.limits, (-0.9, 3.2))                # inference learns nothing
    x = keras.ops.convert_to_tensor([-2.0, 0.0, 1.0, 4.0])
    values, (low, high, step) = layer(x)
    assert values[1] == 0 and np.isclose(float(step), 4.1 / 255)
    codes = np.array(values) / float(step)
    assert np.allclose(codes, np.round(codes), atol=1e-3)
    import tensorflow as tf
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(layer(x)[0])
    assert tape.gradient(total, x).numpy().tolist() == [0.0, 1.0, 1.0, 0.0]


def test_shared_range_is_the_union():
    layer = FakeQuant(members=2, momentum=0.5)
    layer(np.array([-1.0, 1.0], "float32"), member=0, training=True)
    layer(np.array([0.0, 8.0], "float32"), member=1, training=True)
    layer(np.array([-1.0, 1.0], "float32"), member=0, training=True)
    assert layer.limits == (-1.0, 8.0)


# ---- the file computes what the model computes -------------------------------------------------------------------
@pytest.mark.parametrize("name", NETS)
def test_int8_file_equals_the_model(name):
    body, x = NETS[name]
    model = aware(body, x)
    assert skipped_layers(model) == []
    baked = bake_aware(model)
    assert baked.output_names == ["out"]
    file = File(file_of(baked))
    assert file.float_ops == []
    equal, worst = file.agreement(model, x)
    assert equal >= 0.99 and worst <= 1, (equal, worst)


def test_kernels_and_sums_are_equal_to_the_last_bit():
    inputs = keras.Input((10, 10, 3))
    x = norm(L.Conv2D(16, 3, padding="same", use_bias=False)(inputs))
    x = L.ReLU(6.0)(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same", use_bias=False)(x)))
    x = L.ReLU()(L.Add()([x, L.BatchNormalization()(L.Conv2D(16, 1, use_bias=False)(x))]))
    model = quantize_aware(trained(keras.Model(inputs, L.Dense(24)(L.Conv2D(32, 1)(x) + L.Conv2D(32, 1)(x)))))
    images = np.random.default_rng(4).standard_normal((1000, 10, 10, 3)).astype("float32")
    calibrate(model, images[:100])
    assert File(file_of(bake_aware(model))).agreement(model, images) == (1.0, 0)  # 2.4 million codes


def test_affine_layers_are_equal_to_the_last_bit():
    """Every code of 32,768 channels through a batch normalization with no kernel before it, in a compiled graph."""
    rng, initial = np.random.default_rng(0), keras.initializers.RandomUniform
    inputs = keras.Input((32768,))
    norm = L.BatchNormalization(gamma_initializer=initial(0.9, 1.1, 0), beta_initializer=initial(-0.1, 0.1, 1))
    model = quantize_aware(keras.Model(inputs, norm(inputs)))
    x = np.repeat(np.linspace(*rng.uniform([-2, 1], [-1, 2]), 256, dtype="float32")[:, None], 32768, axis=1)
    calibrate(model, x)
    assert File(file_of(bake_aware(model))).agreement(model, x) == (1.0, 0)


def test_compiled_graphs_divide_alike():
    """TensorFlow turns ``x / 127`` of a compiled graph into ``x * (1 / 127)``: another step for one kernel in 20."""
    peaks = keras.ops.convert_to_tensor(np.random.default_rng(0).uniform(0.1, 1, (1, 10000)).astype("float32"))
    method = Uniform(8)
    scale = tf.function(method.scale)(peaks).numpy()
    np.testing.assert_array_equal(scale, method.scale(peaks).numpy())
    np.testing.assert_array_equal(scale, peaks.numpy() / np.float32(127))


def test_scales_of_applications_fold_into_the_kernel_before():
    inputs = keras.Input((10, 10, 3))
    x = L.Conv2D(8, 3, padding="same")(inputs)
    y = LayerScale(0.5, 8, name="scale")(L.Conv2D(8, 1)(x))
    y = CustomScaleLayer(0.17, name="sum")([x, L.Conv2D(8, 1)(L.ReLU()(y))])
    plain = keras.Model(inputs, L.Conv2D(24, 1, name="out")(L.ReLU()(y)))
    plain.get_layer("scale").gamma.assign(np.linspace(-1, 2, 8))
    model = quantize_aware(plain)
    calibrate(model, IMAGE)
    assert skipped_layers(model) == [] and not any("scale" in layer.name for layer in model.layers)
    assert np.abs(model.predict(IMAGE, verbose=0) - plain.predict(IMAGE, verbose=0)).max() < 0.05
    assert File(file_of(bake_aware(model))).agreement(model, IMAGE) == (1.0, 0)


def relu_of_a_sum_in_a_wider_group(x):
    a, b, c = L.Conv2D(4, 3, padding="same")(x), L.Conv2D(4, 1)(x), L.Conv2D(4, 1)(x)
    return L.Concatenate()([L.ReLU()(L.Add()([a, b])), c])


def sum_of_an_image_and_a_vector(x):
    x = L.Conv2D(4, 3, padding="same")(x)
    return L.Add()([x, L.Dense(4)(L.GlobalAveragePooling2D()(x))])


def one_relu_for_each_branch(x):
    """As NASNet's cells begin: the converter makes one ReLU of the three and fuses it into the convolution."""
    x = L.Conv2D(8, 3, padding="same")(x)
    a, b = L.Conv2D(4, 3)(L.ReLU()(x)), L.Conv2D(4, 3)(L.Activation("relu")(x))
    return L.Add()([L.Add()([a, b]), L.Conv2D(4, 3)(keras.ops.relu(x))])


@pytest.mark.parametrize("body", [relu_of_a_sum_in_a_wider_group, sum_of_an_image_and_a_vector,
                                  one_relu_for_each_branch])  # fmt: skip
def test_odd_places(body):
    model = quantize_aware(keras.Model(i := keras.Input((10, 10, 3)), body(i)))
    calibrate(model, IMAGE)
    equal, worst = File(file_of(bake_aware(model))).agreement(model, IMAGE[:10])  # as many samples as columns
    assert equal > 0.999 and worst <= 1, (equal, worst)


def test_a_symmetric_range_has_the_zero_of_the_file():
    x = np.clip(np.random.default_rng(0).uniform(-2.625, 2.625, (256, 12)), -2.5, 2.5).astype("float32")
    model = quantize_aware(keras.Model(i := keras.Input((12,)), L.Dense(4)(i)))
    calibrate(model, x)
    assert File(file_of(bake_aware(model))).agreement(model, x) == (1.0, 0)


def test_an_activity_regularizer_sees_real_values_in_evaluation():
    body = L.Conv2D(4, 3, activity_regularizer=keras.regularizers.L2(1e-3))
    model = aware(body, IMAGE)
    model(IMAGE, training=True)
    trained_loss = float(sum(model.losses))
    model(IMAGE, training=False)
    assert float(sum(model.losses)) == pytest.approx(trained_loss, rel=0.01)


def test_activations_that_xnnpack_approximates_differ_by_one_step():
    model = aware(coarse, IMAGE)
    equal, worst = File(file_of(bake_aware(model))).agreement(model, IMAGE)
    assert skipped_layers(model) == [] and equal >= 0.8 and worst <= 2, (equal, worst)


def test_training_keeps_it_equal_and_moves_the_ranges():
    plain = net(mobile, IMAGE)
    model, before = quantize_aware(plain), plain.predict(IMAGE, verbose=0)
    assert np.abs(model.predict(IMAGE, verbose=0) - before).max() < 0.2 * np.abs(before).max()    # ranges of the batch
    assert fake_quants(model)[0].limits == (0.0, 0.0)
    with pytest.raises(ValueError, match="not known yet: call fit"):
        bake_aware(model)
    fitted(model, IMAGE, epochs=2)
    limits = [layer.limits for layer in fake_quants(model)]
    assert all(high > 0 for _, high in limits)
    assert File(file_of(bake_aware(model))).agreement(model, IMAGE)[0] >= 0.99
    freeze_ranges(model)
    fitted(model, 3 * IMAGE)
    assert [layer.limits for layer in fake_quants(model)] == limits


def test_mixed_precision_models_train_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        plain = net(mobile, IMAGE)
    finally:
        keras.config.set_dtype_policy("float32")
    model = quantize_aware(plain)
    calibrate(model, IMAGE)
    assert skipped_layers(model) == [] and {layer.compute_dtype for layer in model.layers} == {"float32"}
    gap = np.abs(model.predict(IMAGE, verbose=0) - plain.predict(IMAGE, verbose=0).astype("float32")).max()
    assert gap < 0.1 * np.abs(plain.predict(IMAGE, verbose=0)).max()
    assert File(file_of(bake_aware(model))).agreement(model, IMAGE)[0] >= 0.99


def test_shared_layer_has_a_bias_for_each_input_scale():
    inputs = [keras.Input((4,), name="a"), keras.Input((4,), name="b")]
    tower = L.Dense(6, bias_initializer="normal")
    model = keras.Model(inputs, L.Dense(5)(L.concatenate([tower(x) for x in inputs])))
    model = quantize_aware(model)
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(50, 4)).astype("float32"), 9 * rng.normal(size=(50, 4)).astype("float32")]
    calibrate(model, [x])
    baked = bake_aware(model)
    assert len([layer for layer in baked.layers if isinstance(layer, L.Dense)]) == 3
    assert np.abs(baked.predict(x, verbose=0) - model.predict(x, verbose=0)).max() < 1e-5


# ---- layers that stay float ----------------------------------------------------------------------------------------
def test_attention_is_listed_and_trains_with_int8_kernels():
    def body(x):
        x = L.Dense(8, name="embed")(x)
        return L.LayerNormalization(name="norm")(L.Add()([x, L.MultiHeadAttention(2, 4, name="attention")(x, x)]))

    model = aware(body, SEQUENCE)
    assert skipped_layers(model) == ["attention", "norm"]
    attention = model.get_layer("attention")
    assert isinstance(attention, Compressed) and len(attention.methods) == 4
    kernel = attention.baked("query/kernel", canonical=True)
    assert all(len(np.unique(kernel[..., c])) <= 255 for c in range(kernel.shape[-1]))
    file = File(file_of(bake_aware(model)))
    assert np.abs(file.predict(SEQUENCE) - model.predict(SEQUENCE, verbose=0)).max() <= 3 * file.step
    assert ("FULLY_CONNECTED", "int8") in file.ops and ("SOFTMAX", "float32") in file.ops
    packed = File(pack(file.content))                            # float arithmetic, kernels stored as int8
    assert len(packed.content) < len(file.content) and ("DEQUANTIZE", "float32") in packed.ops
    assert np.abs(packed.predict(SEQUENCE) - file.predict(SEQUENCE)).max() <= file.step


def test_keep_float_layers_are_float_in_the_file():
    def body(x):
        return norm(L.Conv2D(4, 3, name="second")(norm(L.Conv2D(4, 3, name="first")(x))))

    model = aware(body, IMAGE, keep_float=["sec.*"])
    assert "second" in skipped_layers(model) and "first" not in skipped_layers(model)
    file = File(file_of(bake_aware(model)))
    assert [dtype for name, dtype in file.ops if name == "CONV_2D"] == ["int8", "float32"]
    assert file.agreement(model, IMAGE)[0] >= 0.99
    with pytest.raises(ValueError, match=r"keep_float rules matched no layer: \['sceond'\]"):
        quantize_aware(net(body, IMAGE), keep_float=["sceond"])


def test_recurrent_and_integer_layers_are_listed():
    inputs = keras.Input((6,), dtype="int32")
    x = L.LSTM(5, name="lstm")(L.Embedding(11, 4, name="embedding")(inputs))
    model = quantize_aware(keras.Model(inputs, L.Dense(2, name="out")(x)))
    assert skipped_layers(model) == ["embedding", "lstm"]


def test_nested_models_are_opened():
    def block(name):
        inputs = keras.Input((10, 10, 3))
        x = norm(L.Conv2D(3, 3, padding="same", name="conv")(inputs))
        return keras.Model(inputs, L.Dropout(0.5, name="drop")(x), name=name)

    one, two = block("one"), block("two")
    model = aware(lambda x: two(L.Add()([x, one(one(x), training=False)])), IMAGE, keep_float="two/conv")
    names = [layer.name for layer in model.layers]
    assert "one_conv" in names and "two_conv" in names
    assert skipped_layers(model)[0] == "two_conv"
    assert File(file_of(bake_aware(model))).agreement(model, IMAGE)[0] >= 0.99


# ---- with the rest of the toolkit -----------------------------------------------------------------------------------
def test_save_load_resume(tmp_path):
    model = fitted(quantize_aware(net(mobile, IMAGE)), IMAGE)
    model.save(tmp_path / "half.keras")
    again = keras.models.load_model(tmp_path / "half.keras")
    assert is_aware(again) and skipped_layers(again) == []
    np.testing.assert_array_equal(again.predict(IMAGE, verbose=0), model.predict(IMAGE, verbose=0))
    for each in (model, again):
        each.fit(IMAGE, np.arange(len(IMAGE)) % 5, verbose=0, shuffle=False)
    for one, two in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy(), err_msg=one.path)


def test_pruning_composes_and_zeros_survive_conversion():
    model = compress(quantize_aware(net(mobile, IMAGE)), Prune(OneShot(0.75)), include_head=True)
    fitted(model, IMAGE, callbacks=[CompressionCallback()])
    baked = bake_aware(model)
    zeros = [float((layer.kernel.numpy() == 0).mean()) for layer in baked.layers if hasattr(layer, "kernel")]
    assert np.allclose(zeros, 0.75, atol=0.01)
    file = File(file_of(baked))
    assert np.allclose(sorted(float((k == 0).mean()) for k in file.kernels), sorted(zeros), atol=1e-6)
    assert file.agreement(model, IMAGE)[0] >= 0.98
    with pytest.raises(ValueError, match="quantization-aware"):
        strip(model)


def test_pruned_first_stays_pruned():
    plain = strip(fitted(compress(net(mobile, IMAGE), Prune(OneShot(0.5))), IMAGE, callbacks=[CompressionCallback()]))
    model = quantize_aware(plain)
    calibrate(model, IMAGE)
    layer = [layer for layer in bake_aware(model).layers if isinstance(layer, L.Conv2D)][0]
    assert np.isclose(float((layer.kernel.numpy() == 0).mean()), 0.5, atol=0.02)


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_are_few_levels_in_the_file(bits):
    model = aware(mobile, IMAGE, bits=bits)
    file = File(file_of(bake_aware(model)))
    assert all(len(np.unique(kernel)) <= 2**bits - 1 for kernel in file.kernels) and len(file.kernels) == 4
    assert file.agreement(model, IMAGE)[0] >= 0.99


def test_16_bits_is_half_precision_weights():
    model = quantize_aware(net(mobile, IMAGE), 16, keep_float=["out"])
    assert not is_aware(model)
    kernels = [layer.kernel.numpy() for layer in strip(model).layers if hasattr(layer, "kernel")]
    exact = [bool((k == k.astype("float16")).all()) for k in kernels]
    assert exact == [True, True, True, False]


def test_what_cannot_be_done_says_what_to_do():
    model = net(mobile, IMAGE)
    with pytest.raises(ValueError, match="`bits` is 2..8, or 16"):
        quantize_aware(model, bits=12)
    with pytest.raises(ValueError, match="quantization-aware already"):
        quantize_aware(quantize_aware(model))

    with pytest.raises(ValueError, match=r"Call strip\(model\) first"):
        quantize_aware(compress(model, Prune(OneShot(0.5))))
    with pytest.raises(ValueError, match="has to look at a plain network"):
        quantize_aware(model, weights=ADMM((0, 1), end=10, keep_best=True))

    class Own(keras.Model):
        pass

    with pytest.raises(ValueError, match="subclassed"):
        quantize_aware(Own())


def test_a_class_that_is_rounded_to_zero_still_teaches():
    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, "softmax", name="d")])
    net.get_layer("d").set_weights([np.array([[8.0, 0.0], [0.0, 8.0]], "float32"), np.zeros(2, "float32")])
    aware = quantize_aware(net)
    x = np.array([[1.0, 0.0]], "float32")
    calibrate(aware, np.eye(2, dtype="float32"))
    assert np.array(aware(x, training=False))[0, 1] == 0 < np.array(aware(x, training=True))[0, 1] < 1 / 512
    aware.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    before = np.array(aware.trainable_variables[0])
    aware.fit(x, np.array([1]), verbose=0)  # all wrong: its class has probability .0003, 0 in int8
    assert np.abs(np.array(aware.trainable_variables[0]) - before).max() > 0.5
    again = keras.models.clone_model(aware)
    again.set_weights(aware.get_weights())
    assert np.array_equal(again(x, training=True), aware(x, training=True))
