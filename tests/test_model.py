"""compress and strip: rules, head, chaining, errors."""

import warnings

import keras
import numpy as np
import pytest
from small_models import LAYERS, compiled, image_data, image_net, inputs_for

from tfcompress import (
    ADMM,
    Chain,
    Cluster,
    CompressionCallback,
    Constant,
    Float16,
    Linear,
    OneShot,
    Polynomial,
    Prune,
    QuantizationNetwork,
    Uniform,
    compress,
    strip,
)
from tfcompress.model import compressed_tensors, head, leaves

L = keras.layers
HALF = Prune(Constant(0.5))


def methods(model):
    return {path: layer.methods[key] for path, layer, key in compressed_tensors(model)}


def test_first_matching_rule_wins_and_head_is_named_or_spared():
    model = compress(image_net(), [("conv", Uniform(4)), (".*", HALF)])
    assert methods(model) == {"conv/kernel": Uniform(4), "depthwise/kernel": HALF, "head/kernel": HALF}
    assert list(methods(compress(image_net(), HALF))) == ["conv/kernel", "depthwise/kernel"]


def test_rules_reach_single_tensors():
    model = compress(LAYERS["lstm"](), [(r".*recurrent_kernel", Uniform(4))])
    assert list(methods(model)) == ["lstm/lstm_cell/recurrent_kernel"] or \
        [p.split("/", 1)[1] for p in methods(model)] == ["lstm_cell/recurrent_kernel"]


def test_head_is_found_behind_activations_branches_and_nesting():
    def names(model):
        ids = head(model)
        return sorted(path for path, layer in leaves(model) if id(layer) in ids)
    i = keras.Input((4,))
    x = L.Dense(4, name="body")(i)
    two = keras.Model(i, [L.Softmax()(L.Dense(2, name="a")(x)), L.Dense(3, name="b")(x)])
    assert names(two) == ["a", "b"]
    sequential = keras.Sequential([keras.Input((4,)), L.Dense(3, name="body"), L.Dense(2, name="out"), L.Softmax()])
    assert names(sequential) == ["out"]
    outer = keras.Model(i, sequential(L.Dense(4, name="first")(i)))
    assert [n.split("/")[-1] for n in names(outer)] == ["out"]


def test_unused_rule_names_what_there_is():
    with pytest.raises(ValueError, match=r"matched no layer: \['cnv'\].*\['conv', 'depthwise', 'head'\]"):
        compress(image_net(), [("cnv", HALF)])


@pytest.mark.parametrize("rules", ["prune", [HALF], [("conv", "prune")], [], None, Uniform, [("(", HALF)], [(3, HALF)]],
                         ids=str)  # fmt: skip
def test_rules_of_the_wrong_kind(rules):
    with pytest.raises(ValueError, match="`rules` is a Method, or a list"):
        compress(image_net(), rules)


def test_models_that_cannot_be_compressed_say_what_to_do():
    class Mine(keras.Model):
        def call(self, x):
            return x
    with pytest.raises(ValueError, match="subclassed.*functional API"):
        compress(Mine(), HALF)
    with pytest.raises(ValueError, match="not built"):
        compress(keras.Sequential([L.Dense(2)]), HALF)
    with pytest.raises(ValueError, match="Expected a Keras model. Received: int"):
        compress(3, HALF)
    i = keras.Input((3,))
    with pytest.raises(ValueError, match="include_head=True"):
        compress(keras.Model(i, L.Dense(2)(i)), HALF)


def test_input_model_is_left_alone():
    base = compiled(image_net())
    before = [w.copy() for w in base.get_weights()]
    model = compiled(compress(base, HALF))
    model.fit(*image_data(64), verbose=0, callbacks=[CompressionCallback()])
    assert base.compiled and not any(type(layer).__name__ == "Compressed" for layer in base.layers)
    for old, new in zip(before, base.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_compressing_a_compressed_model_chains_and_keeps_state():
    model = compress(image_net(), Prune(OneShot(0.5)))
    layer, key = compressed_tensors(model)[0][1:]
    mask = np.zeros_like(layer.values(key)["mask"])
    mask[0] = 1
    layer.write(key, {"mask": mask})
    both = compress(model, [("conv", Uniform(8))])
    assert methods(both)["conv/kernel"] == Chain((Prune(OneShot(0.5)), Uniform(8)))
    np.testing.assert_array_equal(compressed_tensors(both)[0][1].values("kernel")["0.mask"], mask)
    three = compress(both, [("conv", Prune(OneShot(0.75)))])
    assert len(methods(three)["conv/kernel"].methods) == 3
    np.testing.assert_array_equal(compressed_tensors(three)[0][1].values("kernel")["0.mask"], mask)
    x = inputs_for(both)
    np.testing.assert_array_equal(three.predict(x, verbose=0), both.predict(x, verbose=0))


def test_strip_warns_where_the_callback_was_forgotten():
    model = compiled(compress(image_net(), Prune(Polynomial(0.5, 0, 4))))
    model.fit(*image_data(64), verbose=0)
    with pytest.warns(UserWarning, match="CompressionCallback"):
        strip(model)


@pytest.mark.parametrize("method", [
    QuantizationNetwork(Linear(50.0, 0, 4, initial=5.0), (-1, 0, 1)), Cluster(4, until=3), ADMM((0, 1), end=4),
    Chain((Prune(Polynomial(0.5, 0, 4)), Cluster(4))), Chain((Uniform(8), Prune(Polynomial(0.5, 0, 4)))),
], ids=lambda method: type(method).__name__)  # fmt: skip
def test_strip_warns_too_where_training_has_moved_weights_and_scales(method):
    model = compiled(compress(image_net(), method))
    model.fit(*image_data(64), verbose=0)
    with pytest.warns(UserWarning, match="Nothing was done"):
        strip(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(*image_data(64), verbose=0, callbacks=[CompressionCallback()])
        strip(model)


def test_strip_does_not_miss_a_callback_that_was_there_in_a_run_too_short():
    model = compiled(compress(image_net(), Chain((Prune(Polynomial(0.5, 0, 40)), Cluster(4, until=100)))))
    with pytest.warns(UserWarning, match="before the schedule's end at 100"):
        model.fit(*image_data(64), verbose=0, callbacks=[CompressionCallback()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strip(model)


def test_strip_is_silent_where_nothing_is_left_to_do_between_steps():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strip(compress(image_net(), Cluster(4)))


def test_names_and_input_names_stay():
    base = image_net()
    plain = strip(compress(base, Float16()))
    assert [layer.name for layer in plain.layers] == [layer.name for layer in base.layers]
    named = keras.Input((4,), name="heartbeat")
    plain = strip(compress(keras.Model({"heartbeat": named}, L.Dense(2)(named)), Float16(), include_head=True))
    assert list(plain.input) == ["heartbeat"] and plain.inputs[0].name == "heartbeat"


def test_frozen_layers_stay_frozen():
    base = image_net()
    base.get_layer("conv").trainable = False
    model = compress(base, HALF)
    assert not model.get_layer("conv").trainable
    assert "conv" not in {v.path.split("/")[0] for v in model.trainable_variables}


def test_strip_sends_a_quantization_aware_model_to_convert():
    from tfcompress import quantize_aware
    with pytest.raises(ValueError, match="quantization-aware.*convert"):
        strip(compress(quantize_aware(image_net()), HALF))


def test_batch_norm_trains_fused_with_keras_numbers_and_is_stripped():
    base = image_net()
    x = np.random.default_rng(0).normal(1, 3, (16, 8, 8, 3)).astype("float32")
    model = compress(base, HALF)
    plain = strip(model)
    kinds = [type(m.get_layer("bn")).__name__ for m in (model, plain)]
    assert kinds == ["FusedBatchNormalization", "BatchNormalization"]
    own, fused = base.get_layer("bn"), model.get_layer("bn")
    inputs = base.get_layer("conv")(x)
    np.testing.assert_allclose(fused(inputs, training=True), own(inputs, training=True), atol=1e-5)
    for one, two in zip(own.variables, fused.variables, strict=True):
        np.testing.assert_allclose(two.numpy(), one.numpy(), rtol=1e-5, err_msg=one.path)
