"""Pruning: exact counts, schedules, what the callback does and when."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from small_models import compiled, image_data, image_net

from tfcompress import (
    Chain,
    CompressionCallback,
    Constant,
    Linear,
    Method,
    OneShot,
    Polynomial,
    Prune,
    Uniform,
    compress,
    strip,
)
from tfcompress.method import serializable
from tfcompress.model import compressed_tensors
from tfcompress.pruning.granularity import globally, keep_largest


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=40), st.floats(0, 0.99))
def test_zero_count_is_exact_with_ties_and_the_largest_stay(scores, sparsity):
    scores = np.array(scores)
    mask = keep_largest(scores, sparsity)
    assert int((mask == 0).sum()) == round(sparsity * scores.size)
    if 0 < mask.sum() < mask.size:
        assert scores[mask == 1].min() >= scores[mask == 0].max()


def test_global_equals_brute_force_and_keeps_a_floor():
    rng = np.random.default_rng(0)
    scores = {"a": rng.random((4, 5)), "b": rng.random(30) * 1e-3}
    masks = globally(scores, 0.5, floor=0.1)
    assert sum(int((m == 0).sum()) for m in masks.values()) == 25
    assert masks["b"].sum() == 5 and masks["a"].min() == 1           # 3 by the floor, 2 more to fill the count
    kept = np.sort(scores["b"])[-5:]
    np.testing.assert_array_equal(np.sort(scores["b"][masks["b"] == 1]), kept)


def test_polynomial_is_the_papers():
    values = [round(Polynomial(0.9, 0, 100)(step), 4) for step in (0, 25, 50, 75, 100, 101)]
    assert values == [0.0, 0.5203, 0.7875, 0.8859, 0.9, 0.9]


@pytest.mark.parametrize("schedule", [Polynomial(0.9, 3, 3), Linear(0.9, 3, 3), OneShot(0.9, 3)], ids=str)
def test_schedule_of_no_length_is_a_step(schedule):
    assert [schedule(step) for step in (2, 3, 4)] == [0.0, 0.9, 0.9]


@pytest.mark.parametrize("bad", [lambda: Polynomial(0.9, 5, 4), lambda: Prune(Constant(1.0)), lambda: Prune(0.9),
                                 lambda: Prune(Constant(0.5), criterion="size"),
                                 lambda: Prune(Constant(0.5), granularity="x"),
                                 lambda: Uniform(1), lambda: CompressionCallback(0)])
def test_bad_arguments_name_what_came(bad):
    with pytest.raises(ValueError, match="Received|Unknown"):
        bad()


@pytest.mark.slow
def test_sparsity_never_falls_and_ends_exact_although_every_does_not_divide():
    model = compiled(compress(image_net(), Prune(Polynomial(0.9, 2, 21))))
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(sum(int((layer.baked(key) == 0).sum()) for _, layer, key in compressed_tensors(model)))

    model.fit(*image_data(), epochs=3, verbose=0, callbacks=[CompressionCallback(every=5), Watch()])
    assert seen == sorted(seen) and seen[0] == 0
    for _, layer, key in compressed_tensors(strip_keeps(model)):
        w = layer.baked(key)
        assert int((w == 0).sum()) == round(0.9 * w.size)


def strip_keeps(model):
    """The same model, after checking that strip writes the very zeros."""
    plain = strip(model)
    for path, layer, key in compressed_tensors(model):
        np.testing.assert_array_equal(plain.get_layer(path.split("/")[0]).kernel.numpy(), layer.baked(key))
    return model


class Uneven(keras.Model):
    """Makes one optimizer step of a batch, and three of each from the ninth on."""

    def train_step(self, data):
        several = self.optimizer.iterations >= 8
        logs = super().train_step(data)
        for _ in range(2):
            tf.cond(several, lambda: super(Uneven, self).train_step(data), lambda: logs)
        return logs


@pytest.mark.parametrize(("kind", "options", "steps", "reads"), [
    (keras.Model, {}, range(1, 17), 1 + 5 + 2 + 1),      # at the start, where due, at ends of epochs and the end
    (keras.Model, {"steps_per_execution": 3}, [3, 6, 8, 11, 14, 16], 1 + 5 + 2 + 1),
    (keras.Model, {"optimizer": keras.optimizers.Adam(gradient_accumulation_steps=3)}, [i // 3 for i in range(1, 17)],
     None),
    (Uneven, {}, [*range(1, 9), *range(11, 35, 3)], 1 + 16 + 2 + 1),
], ids=["plain", "several steps a call", "accumulated gradients", "own train_step"])
def test_updates_come_with_the_call_in_which_they_are_due(monkeypatch, kind, options, steps, reads):
    base = compress(image_net(), Prune(Linear(0.5, begin=2, end=13)))
    model, seen, read = kind(base.inputs, base.outputs), [], []
    model.compile(**{"optimizer": "adam", "loss": "sparse_categorical_crossentropy", **options})
    real = CompressionCallback._read_step
    monkeypatch.setattr(CompressionCallback, "update", lambda self, step: seen.append(step))
    monkeypatch.setattr(CompressionCallback, "_read_step", lambda self: read.append(real(self)) or read[-1])
    model.fit(*image_data(), epochs=2, verbose=0, callbacks=[CompressionCallback(every=5)])
    marks = {2, 5, 10, 13, 15, 20, 25, 30}
    assert seen == [0, *(new for old, new in itertools.pairwise([0, *steps]) if any(old < m <= new for m in marks))]
    assert read[-1] == steps[-1] and (reads is None or len(read) == reads)


def test_a_loop_that_tells_nothing_of_its_batches_gets_the_update_with_the_epoch(monkeypatch):
    model, seen = compiled(compress(image_net(), Prune(OneShot(0.5, at=3)))), []
    callback = CompressionCallback(every=100)
    callback.set_model(model)
    callback.on_train_begin()
    monkeypatch.setattr(CompressionCallback, "update", lambda self, step: seen.append(step))
    for epoch in range(2):
        model.optimizer.iterations.assign_add(4)
        callback.on_epoch_end(epoch, {})
    assert seen == [4]


def test_mask_is_frozen_after_the_end():
    method, w = Prune(OneShot(0.5, at=2)), np.array([1.0, 2.0, 3.0, 4.0])
    done = method.update({"w": w}, {"w": {"mask": np.ones(4, "float32")}}, 2)
    assert done["w"]["mask"].tolist() == [0, 0, 1, 1]
    assert method.update({"w": w[::-1]}, done, 9)["w"]["mask"].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("granularity", ["global", "4x2", "2:4", "filter", "global filter"])
def test_every_granularity_freezes_once_its_end_is_reached_and_not_before(granularity):
    """The share of zeros may be another than the target: whole filters, blocks at the edge."""
    method, w = Prune(OneShot(0.5, at=2), granularity=granularity), np.random.default_rng(0).random((5, 3))
    fresh = {"w": method.init(w)}
    late = method.update({"w": w}, fresh, 50)
    assert late["w"]["mask"].min() == 0
    assert method.update({"w": w[::-1, ::-1]}, late, 51) is late
    early = method.update({"w": w}, fresh, 1)
    assert early is fresh


def test_pruning_resumed_late_still_prunes():
    method, w = Prune(OneShot(0.5, at=2)), np.array([1.0, 2.0, 3.0, 4.0])
    assert method.update({"w": w}, {"w": {"mask": np.ones(4)}}, 50)["w"]["mask"].tolist() == [0, 0, 1, 1]


def test_chain_shows_each_method_what_the_one_before_made():
    """Quantised to 2 bits, 0.3 and 0.2 become 0: pruning must then rank them below 0.6 of the other channel."""
    w = np.array([[0.9, 0.6], [0.3, 0.2], [0.2, 0.6]], "float32")
    method = Chain((Uniform(2, per_channel=False), Prune(OneShot(0.5))))
    state = method.update({"w": w}, {"w": method.init(w)}, 0)["w"]
    assert state["1.mask"].tolist() == [[1, 1], [0, 0], [0, 1]]


@serializable
class Shrink(Method):
    """Rewrites the latent weight: halves it at each update."""

    def __eq__(self, other):
        return isinstance(other, Shrink)

    def __hash__(self):
        return 1

    def get_config(self):
        return {}

    def penalty(self, w, state):
        return keras.ops.sum(keras.ops.abs(w))

    def update(self, weights, states, step, model=None, data=None):
        return {path: {"weight": w / 2} for path, w in weights.items()}


def test_chain_passes_rewritten_weights_on_and_adds_penalties():
    w = np.array([[4.0, -2.0]], "float32")
    method = Chain((Shrink(), Prune(OneShot(0.5)), Shrink()))
    new = method.update({"w": w}, {"w": method.init(w)}, 0)["w"]
    assert new["weight"].tolist() == [[1.0, 0.0]] and new["1.mask"].tolist() == [[1, 0]]
    pruned = {"1.mask": np.array([[1.0, 0.0]], "float32")}
    assert float(method.penalty(keras.ops.convert_to_tensor(w), pruned)) == 6.0 + 4.0


def test_callback_needs_a_compressed_model():
    with pytest.raises(ValueError, match="no compressed layer"):
        compiled(image_net()).fit(*image_data(32), verbose=0, callbacks=[CompressionCallback()])


def test_stopping_before_the_schedules_end_warns():
    model = compiled(compress(image_net(), Prune(Polynomial(0.9, 0, 100))))
    with pytest.warns(UserWarning, match="step 2, before the schedule's end at 100"):
        model.fit(*image_data(64), verbose=0, callbacks=[CompressionCallback()])


def test_compiling_again_after_the_end_keeps_the_mask():
    """The optimizer's steps begin at 0 again; what was pruned stays pruned."""
    model = compiled(compress(image_net(), Prune(Polynomial(0.9, 0, 8))))
    model.fit(*image_data(), epochs=2, verbose=0, callbacks=[CompressionCallback()])
    before = model.get_layer("conv").values("kernel")["mask"]
    compiled(model).fit(*image_data(64), verbose=0, callbacks=[CompressionCallback()])
    after = model.get_layer("conv").values("kernel")["mask"]
    assert np.mean(before == 0) > 0.89 and np.array_equal(before, after)


def test_the_end_may_fall_between_two_calls():
    model = compiled(compress(image_net(), Prune(Constant(0.5, end=10))), steps_per_execution=8)
    callback = CompressionCallback(every=100)
    seen = []
    update = CompressionCallback.update
    callback.update = lambda step: (seen.append(step), update(callback, step))
    model.fit(*image_data(512), verbose=0, callbacks=[callback])
    assert seen == [0, 16] and model.get_layer("conv").values("kernel")["frozen"] == 1


def test_each_layers_norm_follows_its_own_filters_where_layers_have_methods_of_their_own():
    i = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization(name="n1")(keras.layers.Conv2D(8, 3, name="c1")(i))
    x = keras.layers.BatchNormalization(name="n2")(keras.layers.Conv2D(8, 3, name="c2")(x))
    model = keras.Model(i, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    rules = [("c2", Prune(OneShot(0.25), "l2_norm", "filter")), ("c1|n.*", Prune(OneShot(0.5), "l2_norm", "filter"))]
    model = compiled(compress(model, rules))
    model.fit(*image_data(64), verbose=0, callbacks=[CompressionCallback()])
    for kernel, norm, gone in (("c1", "n1", 4), ("c2", "n2", 2)):
        mask = model.get_layer(kernel).values("kernel")["mask"]
        assert (mask == 0).sum() == gone
        assert np.array_equal(mask, model.get_layer(norm).values("gamma")["mask"])


def test_weights_of_losses_are_those_of_training():
    i = keras.Input((4,))
    x = keras.layers.Dense(6, name="a")(i)
    model = compress(keras.Model(i, [keras.layers.Dense(1)(x), keras.layers.Dense(1)(x)]), Prune(OneShot(0.5), "slope"))
    model.compile("adam", ["mse", "mse"], loss_weights=[1.0, 0.0])
    callback = CompressionCallback(data=None)
    callback.set_model(model)
    callback.update = lambda step: None
    callback.on_train_begin()
    x, zeros, ones = np.ones((2, 4), "float32"), np.zeros((2, 1)), np.full((2, 1), 1e3)
    both = callback.twin.compute_loss(x, [zeros, ones], callback.twin(x))
    assert float(both) < 100


def test_the_floor_of_global_pruning_holds_at_any_sparsity():
    scores = {"a": np.arange(10000.0), "b": np.arange(10000.0), "c": np.arange(150.0) / 1000}
    kept = {path: int(mask.sum()) for path, mask in globally(scores, 0.995).items()}
    assert kept == {"a": 100, "b": 100, "c": 2}


def test_a_forgotten_callback_is_told_for_one_shot_pruning_too():
    with pytest.warns(UserWarning, match="Nothing was done"):
        strip(compress(image_net(), Prune(OneShot(0.5))))
