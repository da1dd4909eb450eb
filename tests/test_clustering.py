"""Weight sharing: k-means by brute force and on planted clusters, the codebook's gradient, pruned weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import compiled, image_data

from tfcompress import Chain, CompressionCallback, Linear, OneShot, Prune, compress, strip
from tfcompress.quantization.clustering import Cluster, k_means


def test_planted_clusters_are_found():
    rng = np.random.default_rng(0)
    centers = np.array([-2.0, -0.7, 0.3, 1.0, 2.4])
    codes = rng.integers(0, 5, 2000)
    values = centers[codes] + rng.uniform(-0.1, 0.1, 2000)
    found, own = k_means(values, np.linspace(values.min(), values.max(), 5))
    np.testing.assert_array_equal(own, codes)
    np.testing.assert_allclose(found, [values[codes == i].mean() for i in range(5)], rtol=1e-12)


def test_k_means_ends_where_no_move_helps():
    """At Lloyd's end each value has the nearest centre and each centre is its members' mean; errors never rise."""
    for seed in range(20):
        values = np.random.default_rng(seed).standard_normal(60)
        start = np.linspace(values.min(), values.max(), 5)
        errors = []
        for steps in range(12):
            centers, codes = k_means(values, start, steps=steps)
            errors.append(np.sum((values - centers[codes]) ** 2))
        assert (np.diff(errors) <= 1e-12).all()
        centers, codes = k_means(values, start)
        np.testing.assert_array_equal(codes, np.abs(values[:, None] - centers).argmin(1))
        np.testing.assert_allclose(centers, [values[codes == i].mean() for i in range(5)])


def test_a_fixed_centre_and_one_without_members_stay():
    found, codes = k_means([1.0, 2.0, 3.0], [-5.0, 0.0, 2.5], fixed=1)
    assert found.tolist() == [-5.0, 0.0, 2.5] and codes.tolist() == [1, 2, 2]


def test_a_centroids_gradient_is_the_sum_of_its_members():
    w, method = np.array([[-1.0, 0.9], [-0.8, 1.1], [0.02, 1.0]], "float32"), Cluster(3)
    state = method.init(w)
    centroids, given = tf.Variable(state["centroids"]), tf.Variable(w)
    upstream = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]], "float32")
    with tf.GradientTape() as tape:
        out = method.apply(given, state | {"centroids": centroids})
        loss = tf.reduce_sum(out * upstream)
    np.testing.assert_allclose(out, [[-0.9, 1.0], [-0.9, 1.0], [0, 1.0]], rtol=1e-6)
    of_centroids, of_weight = tape.gradient(loss, [centroids, given])
    sums = tf.convert_to_tensor(of_centroids).numpy() / state["unit"]    # a centroid counts in units of the deviation
    np.testing.assert_allclose(sums, [3.0, 0.0, 70.0], rtol=1e-6)        # 0 is held: no gradient
    np.testing.assert_array_equal(of_weight, upstream)


@pytest.mark.parametrize("clusters", [2, 3, 16, 40])
@pytest.mark.parametrize("keep_zero", [True, False, None])
def test_at_most_so_many_values_and_never_worse_than_an_even_grid(clusters, keep_zero):
    w = np.random.default_rng(clusters).standard_normal((50, 30)).astype("float32")
    method = Cluster(clusters, keep_zero=keep_zero)
    shared = np.array(method.bake(w, method.init(w)))
    assert len(np.unique(shared)) <= clusters <= 2 ** method.bits
    has_zero = clusters > 2 if keep_zero is None else keep_zero
    assert (0 in shared) == has_zero
    grid = np.linspace(w.min(), w.max(), clusters)
    even = np.mean(np.abs(w[..., None] - grid).min(-1) ** 2)
    assert np.mean((w - shared) ** 2) <= even * (1.3 if has_zero else 1)


def test_codes_follow_the_weights_until_they_stay():
    method, w = Cluster(3, until=10), np.array([-1.0, -0.9, 0.0, 0.4, 1.0], "float32")
    states = {"w": method.init(w)}
    assert states["w"]["codes"].tolist() == [0, 0, 1, 2, 2] or states["w"]["codes"].tolist() == [0, 0, 1, 1, 2]
    moved = np.array([-1.0, 0.8, 0.0, 0.4, 1.0], "float32")
    before = method.update({"w": moved}, states, 5)
    assert before["w"]["codes"][1] == 2 and not before["w"]["frozen"]
    last = method.update({"w": w}, before, 12)
    assert last["w"]["codes"][1] == 0 and last["w"]["frozen"]
    between, after = (np.array(method.apply(moved, state["w"])) for state in (states, last))
    assert between[1] == between[4] and after[1] == after[0]             # at every step the nearest, then frozen
    assert method.update({"w": moved}, last, 13) is last and method.idle(last, 13)


def test_pruned_weights_stay_zero_while_pruning_goes_on_behind_frozen_codes():
    w = np.random.default_rng(0).standard_normal((30, 10)).astype("float32") + 0.5
    chain = Chain((Prune(Linear(0.8, begin=0, end=4)), Cluster(4)))
    states = {"w": chain.init(w)}
    for step in range(6):
        states = chain.update({"w": w}, states, step)
    shared = np.array(chain.bake(w, states["w"]))
    assert (shared[states["w"]["0.mask"] == 0] == 0).all() and (shared == 0).sum() >= 240
    assert len(np.unique(shared)) <= 4


@pytest.mark.slow
def test_a_trained_codebook_keeps_zeros_and_counts_end_to_end():
    base = compiled(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(
        24, activation="relu", name="hidden"), keras.layers.Dense(3, name="out")]))
    x, y = image_data()
    base.fit(x, y, epochs=3, verbose=0)
    model = compiled(compress(base, Chain((Prune(OneShot(0.6, at=0)), Cluster(8, until=8))), include_head=True))
    before = model.evaluate(x, y, verbose=0)[0]
    logs = model.fit(x, y, epochs=4, verbose=0, callbacks=[CompressionCallback(4)]).history
    assert logs["loss"][-1] < before and logs["sparsity"][-1] >= 0.6 and logs["levels"][-1] <= 8
    plain = strip(model)
    for name in ("hidden", "out"):
        kernel = plain.get_layer(name).kernel.numpy()
        assert len(np.unique(kernel)) <= 8 and (kernel == 0).mean() >= 0.59
    np.testing.assert_allclose(plain(x), model(x), atol=1e-5)


@pytest.mark.parametrize("bad", [{"clusters": 1}, {"clusters": 2.5}, {"clusters": 70000}, {"until": -1}], ids=str)
def test_bad_arguments_name_what_came(bad):
    with pytest.raises(ValueError, match="Received"):
        Cluster(**bad)
