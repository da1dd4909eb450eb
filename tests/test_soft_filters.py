"""Soft filter pruning (He et al. 2018): zeroed filters go on training, and may come back until the end."""

import keras
import numpy as np
import pytest
from small_models import compiled, image_data

from tfcompress import CompressionCallback, Constant, Distiller, Prune, compress, shrink, strip
from tfcompress.layout import tensors
from tfcompress.model import compressed_tensors, leaves

L = keras.layers
STEPS = 4                                                # of an epoch: 128 images in batches of 32


def net():
    i = keras.Input((8, 8, 3))
    x = L.ReLU()(L.BatchNormalization(name="n1")(L.Conv2D(8, 3, name="c1")(i)))
    x = L.ReLU()(L.BatchNormalization(name="n2")(L.Conv2D(10, 3, name="c2")(x)))
    return keras.Model(i, L.Dense(3, name="head")(L.GlobalAveragePooling2D()(x)))


def zero(w):
    return frozenset(np.flatnonzero((w.reshape(-1, w.shape[-1]) == 0).all(0)).tolist())


def planted(model):
    """``model`` whose filters 1 and 5 of c1, 0 and 9 and 4 of c2 are a thousand times smaller.

    Behind a ReLU a filter of zeros gets a gradient only where its beta is above 0.
    """
    for name, small in (("c1", [1, 5]), ("c2", [0, 4, 9])):
        model.get_layer(name.replace("c", "n")).beta.assign(model.get_layer(name).bias + 0.5)
        kernel = model.get_layer(name).kernel
        w = kernel.numpy()
        w[..., small] *= 1e-3
        kernel.assign(w)
    return model


class Watch(keras.callbacks.Callback):
    """The zero filters of each latent kernel at the end of each batch, after the update."""

    def on_train_begin(self, logs=None):
        self.seen = {"c1": [self.look("c1")], "c2": [self.look("c2")]}

    def look(self, name):
        return zero(dict(leaves(getattr(self.model, "student", self.model)))[name].latent("kernel"))

    def on_train_batch_end(self, batch, logs=None):
        for name, seen in self.seen.items():
            seen.append(self.look(name))


def check_end(model, count):
    """The stripped model has ``count`` zero filters a layer, their bias, gamma and beta included, and agrees."""
    plain = strip(model)
    for conv, norm in (("c1", "n1"), ("c2", "n2")):
        gone = zero(plain.get_layer(conv).kernel.numpy())
        assert len(gone) == count[conv]
        for vector in (plain.get_layer(conv).bias, plain.get_layer(norm).gamma, plain.get_layer(norm).beta):
            assert zero(vector.numpy()) == gone, vector.path
    x = image_data(16)[0]
    np.testing.assert_allclose(plain(x), model(x), atol=1e-5)
    small = shrink(plain)
    assert {name: plain.get_layer(name).filters - small.get_layer(name).filters for name in count} == count
    np.testing.assert_allclose(small(x), model(x), atol=1e-5)
    return plain


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["filter", "group"])
def test_zeroed_filters_train_on_until_the_end_and_are_then_gone(granularity):
    model = compiled(compress(planted(net()), Prune(Constant(0.3, end=3 * STEPS), "l2_norm", granularity, soft=True)),
                     run_eagerly=True)
    watch = Watch()
    model.fit(*image_data(128), epochs=4, verbose=0, callbacks=[CompressionCallback(STEPS), watch])
    one, two = watch.seen["c1"], watch.seen["c2"]
    assert (one[0], two[0]) == ({1, 5}, {0, 4, 9})                   # 30 % of 8 and of 10, the planted ones
    for step in range(0, 3 * STEPS):
        both = len(one[step]) + len(two[step])
        assert both == (5 if step % STEPS == 0 else 0), step         # zero at the update, trained by the next step
        assert granularity == "group" or step % STEPS or (len(one[step]), len(two[step])) == (2, 3)
    masks = {path: layer.values(key)["mask"] for path, layer, key in compressed_tensors(model)}
    assert {path: mask.shape for path, mask in masks.items() if "c1" in path or "n1" in path} == dict.fromkeys(
        ("c1/kernel", "c1/bias", "n1/gamma", "n1/beta"), (8,))
    frozen = {path: zero(mask[None]) for path, mask in masks.items()}
    plain = check_end(model, {"c1": len(frozen["c1/kernel"]), "c2": len(frozen["c2/kernel"])})
    assert len(frozen["c1/kernel"]) + len(frozen["c2/kernel"]) == 5
    model.fit(*image_data(128), epochs=1, verbose=0, callbacks=[CompressionCallback(1)])
    assert {path: zero(layer.values(key)["mask"][None]) for path, layer, key in compressed_tensors(model)} == frozen
    again = strip(model)
    for (_, before), (_, after) in zip(leaves(plain), leaves(again), strict=True):
        for key, (variable, _) in tensors(before).items():
            assert zero(variable.numpy()) == zero(tensors(after)[key][0].numpy())


def test_a_zeroed_filter_can_come_back_and_another_go():
    method = Prune(Constant(0.5, end=10), "l2_norm", "filter", soft=True)
    w, state = np.array([[1.0, 2, 3, 4]], "float32"), {"d/kernel": method.init(np.ones((1, 4)))}
    new = method.update({"d/kernel": w}, state, 0)
    assert new["d/kernel"]["weight"].tolist() == [[0, 0, 3, 4]] and new["d/kernel"]["mask"].tolist() == [1] * 4
    w = np.array([[5.0, 0.1, 3, 4]], "float32")                      # the first has learned
    new = method.update({"d/kernel": w}, new, 5)
    assert new["d/kernel"]["weight"].tolist() == [[5, 0, 0, 4]]
    new = method.update({"d/kernel": w}, new, 10)
    assert new["d/kernel"]["mask"].tolist() == [1, 0, 0, 1] and "weight" not in new["d/kernel"]
    assert method.update({"d/kernel": w[:, ::-1]}, new, 11)["d/kernel"]["mask"].tolist() == [1, 0, 0, 1]


def test_vectors_wait_for_the_end():
    """A gamma of zero would keep its filter from ever coming back."""
    method = Prune(Constant(0.5, end=10), "l2_norm", "filter", soft=True)
    weights = {"d/kernel": np.array([[1.0, 2, 3, 4]]), "d/bias": np.ones(4)}
    states = {path: method.init(w) for path, w in weights.items()}
    early = method.update(weights, states, 5)
    assert early["d/bias"]["mask"].min() == 1 and "weight" not in early["d/bias"]
    assert method.update(weights, states, 10)["d/bias"]["mask"].tolist() == [0, 0, 1, 1]


@pytest.mark.slow
def test_knowledge_transferred_filter_pruning_is_a_composition():
    """Filters go softly, at rates that differ between the layers, while the unpruned net teaches."""
    x, y = image_data(128)
    teacher = compiled(net(), run_eagerly=True)
    teacher.fit(x, y, epochs=2, verbose=0)
    before = [w.copy() for w in teacher.get_weights()]
    student = compress(teacher, Prune(Constant(0.5, end=2 * STEPS), "l2_norm", "group", soft=True))
    distiller = Distiller(student, teacher, temperature=4.0, alpha=0.7)
    watch = Watch()
    compiled(distiller, run_eagerly=True)
    history = distiller.fit(x, y, epochs=3, verbose=0, callbacks=[CompressionCallback(STEPS), watch]).history
    assert history["soft_loss"][-1] < history["soft_loss"][0] and np.isfinite(history["loss"]).all()
    assert [len(watch.seen["c1"][s]) + len(watch.seen["c2"][s]) for s in (0, STEPS)] == [9, 9]
    plain = strip(student)
    counts = {name: len(zero(plain.get_layer(name).kernel.numpy())) for name in ("c1", "c2")}
    assert sum(counts.values()) == 9 and counts["c1"] / 8 != counts["c2"] / 10
    check_end(student, counts)
    for one, two in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
