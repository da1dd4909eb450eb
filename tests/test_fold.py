import keras
import numpy as np
import pytest
from aware_nets import IMAGE, SEQUENCE, trained

from tfcompress.graph import Graph
from tfcompress.quantization.fold import fold_batch_norm, simplify

L = keras.layers


def model_of(body, x):
    inputs = keras.Input(x.shape[1:])
    return trained(keras.Model(inputs, body(inputs)))


def norms(model):
    return [layer for layer in model.layers if isinstance(layer, L.BatchNormalization)]


LAYERS = {
    "Conv1D": (lambda: L.Conv1D(5, 3), SEQUENCE), "DepthwiseConv1D": (lambda: L.DepthwiseConv1D(3), SEQUENCE),
    "Conv1DTranspose": (lambda: L.Conv1DTranspose(5, 3), SEQUENCE), "Dense": (lambda: L.Dense(6), SEQUENCE),
    "Conv2D": (lambda: L.Conv2D(5, 3, use_bias=False), IMAGE),
    "DepthwiseConv2D": (lambda: L.DepthwiseConv2D(3, depth_multiplier=2), IMAGE),
    "Conv2DTranspose": (lambda: L.Conv2DTranspose(5, 3, strides=2), IMAGE),
}


@pytest.mark.parametrize("name", LAYERS)
def test_folding_keeps_the_outputs(name):
    make, x = LAYERS[name]
    model = model_of(lambda i: L.ReLU()(L.BatchNormalization()(make()(i))), x)
    folded = fold_batch_norm(model)
    assert not norms(folded) and len(folded.layers) == 3
    np.testing.assert_allclose(folded.predict(x, verbose=0), model.predict(x, verbose=0), atol=2e-5)


def test_one_channel_by_hand():
    """kernel 2, bias 1; mean 3, variance 4 - epsilon, gamma 6, beta 5: g = 3, kernel 6, bias (1 - 3) * 3 + 5 = -1."""
    inputs = keras.Input((1,))
    dense, norm = L.Dense(1), L.BatchNormalization(epsilon=1e-3)
    model = keras.Model(inputs, norm(dense(inputs)))
    dense.set_weights([np.array([[2.0]]), np.array([1.0])])
    norm.set_weights([np.array([v]) for v in (6.0, 5.0, 3.0, 4.0 - 1e-3)])
    kernel, bias = fold_batch_norm(model).layers[1].get_weights()
    np.testing.assert_allclose([kernel.item(), bias.item()], [6.0, -1.0], rtol=1e-6)


def test_what_cannot_be_folded_stays():
    """Behind an activation, behind a sum, and where somebody else reads the kernel's output, too."""
    def body(x):
        x = L.BatchNormalization()(L.Conv2D(4, 3, padding="same", activation="relu")(x))
        y = L.Conv2D(4, 1)(x)
        return L.BatchNormalization()(L.Add()([y, L.BatchNormalization()(y)]))

    model = model_of(body, IMAGE)
    folded = fold_batch_norm(model)
    assert len(norms(folded)) == 3
    np.testing.assert_allclose(folded.predict(IMAGE, verbose=0), model.predict(IMAGE, verbose=0), atol=2e-5)


def test_shared_pair_is_folded_once():
    def body(x):
        conv, norm = L.Conv2D(3, 3, padding="same"), L.BatchNormalization()
        return norm(conv(L.ReLU()(norm(conv(x)))))

    model = model_of(body, IMAGE)
    folded = fold_batch_norm(model)
    assert not norms(folded) and len([layer for layer in folded.layers if isinstance(layer, L.Conv2D)]) == 1
    np.testing.assert_allclose(folded.predict(IMAGE, verbose=0), model.predict(IMAGE, verbose=0), atol=2e-5)


def test_simplified_graph_computes_the_same():
    """Separable convolutions, activations inside layers and sums of three are split; nested models opened."""
    def inner(name):
        inputs = keras.Input((10, 10, 3))
        x = L.SeparableConv2D(3, 3, padding="same", activation="relu", name="conv")(inputs)
        return keras.Model(inputs, L.Add()([x, inputs, L.BatchNormalization()(x)]), name=name)

    model = model_of(lambda x: inner("two")(inner("one")(x)), IMAGE)
    graph = Graph(model)
    simplify(graph, spare={node.path for node in graph.nodes if isinstance(node.layer, L.BatchNormalization)})
    plain = graph.build()
    kinds = [type(layer).__name__ for layer in plain.layers]
    assert kinds.count("DepthwiseConv2D") == 2 and kinds.count("Conv2D") == 2 and kinds.count("Add") == 4
    np.testing.assert_allclose(plain.predict(IMAGE, verbose=0), model.predict(IMAGE, verbose=0), atol=2e-5)


def test_structure_of_inputs_and_outputs_is_kept():
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((3,), name="b")}
    hidden = L.BatchNormalization()(L.Dense(4)(L.Concatenate()([inputs["b"], inputs["a"]])))
    model = trained(keras.Model(inputs, {"left": L.Dense(2)(hidden), "right": [hidden]}))
    x = {name: np.random.default_rng(0).normal(size=(5, 3)).astype("float32") for name in "ab"}
    folded = fold_batch_norm(model)
    assert [t.name for t in folded.inputs] == [t.name for t in model.inputs] == ["a", "b"]
    one, two = model.predict(x, verbose=0), folded.predict(x, verbose=0)
    np.testing.assert_allclose(one["left"], two["left"], atol=1e-5)
    np.testing.assert_allclose(one["right"][0], two["right"][0], atol=1e-5)
