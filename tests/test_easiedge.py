"""Filter ADMM (EasiEdge): the penalty and the rounds by hand, a global choice of filters, end to end."""

import keras
import numpy as np
import pytest
from small_models import compiled, image_data

from tfcompress import CompressionCallback, Constant, compress, strip
from tfcompress.model import compressed_tensors
from tfcompress.pruning.easiedge import FilterADMM

L = keras.layers
W = np.array([[1.0, 3.0], [2.0, 4.0]], "float32")


def admm(**options):
    return FilterADMM(**{"schedule": Constant(0.5, begin=0, end=8), "criterion": "l2_norm", "rounds": 2, "rho": 0.1,
                         "growth": 2.0, **options})


def test_the_penalty_and_two_rounds_by_hand():
    method = admm()
    state = {"d/kernel": method.init(W), "d/bias": method.init(W[0])}
    assert float(method.penalty(W, state["d/kernel"])) == 0                   # before the first round
    one = method.update({"d/kernel": W, "d/bias": W[0]}, state, 0)
    kernel = one["d/kernel"]
    assert kernel["z"].tolist() == [[0, 3], [0, 4]] and not kernel["u"].any() and kernel["rho"] == np.float32(0.1)
    assert one["d/bias"]["z"].tolist() == [0, 3]                              # the bias goes with its filter
    np.testing.assert_allclose(method.penalty(W, kernel), 0.05 * (1 + 4), rtol=1e-6)
    w = np.array([[0.5, 3.0], [1.0, 4.0]], "float32")                         # drawn half the way
    two = method.update({"d/kernel": w, "d/bias": w[0]}, one, 4)["d/kernel"]
    assert two["rho"] == np.float32(0.2)
    np.testing.assert_allclose(two["u"], [[0.25, 0], [0.5, 0]])               # (0 + w - z) / growth
    np.testing.assert_allclose(method.penalty(w, two), 0.1 * (0.75 ** 2 + 1.5 ** 2), rtol=1e-6)
    np.testing.assert_allclose(two["rho"] * two["u"], one["d/kernel"]["rho"] * (w - two["z"]))    # the dual is the same


def test_a_filter_that_earned_it_gets_into_z_again():
    method, w = admm(), np.array([[1.0, 3.0]], "float32")
    one = method.update({"d/kernel": w}, {"d/kernel": method.init(w)}, 0)
    two = method.update({"d/kernel": w[:, ::-1]}, one, 4)["d/kernel"]
    assert one["d/kernel"]["z"].tolist() == [[0, 3]] and two["z"].tolist() == [[3, 0]]


def test_rounds_come_at_their_steps_and_the_mask_once():
    method, rounds = admm(rounds=3, schedule=Constant(0.5, begin=2, end=9)), []
    assert method.starts == (2, 4, 6) and method.milestones == (2, 4, 6, 9)
    state = {"d/kernel": method.init(W)}
    for step in range(12):
        state = method.update({"d/kernel": W if step < 10 else W[:, ::-1]}, state, step)
        rounds.append((int(state["d/kernel"]["round"]), state["d/kernel"]["mask"].tolist()))
    assert rounds == [(0, [1, 1])] * 2 + [(1, [1, 1])] * 2 + [(2, [1, 1])] * 2 + [(3, [1, 1])] * 3 + [(4, [0, 1])] * 3
    assert float(method.penalty(W, state["d/kernel"])) == 0                   # fine-tuned freely behind it
    late = method.update({"d/kernel": W}, {"d/kernel": method.init(W)}, 50)["d/kernel"]
    assert late["mask"].tolist() == [0, 1]


@pytest.mark.parametrize("bad", [{"schedule": Constant(0.5)}, {"schedule": 0.5}, {"rounds": 0}, {"rho": 0.0},
                                 {"growth": 0.5}, {"criterion": "size"}], ids=str)
def test_bad_arguments_name_what_came(bad):
    with pytest.raises(ValueError, match="Received|Unknown"):
        admm(**bad)


@pytest.mark.slow
def test_exactly_k_filters_survive_globally_where_they_inform_most():
    """Of 8 and 10 filters 9 stay. Six of the first layer can't reach the classes: they are first to go."""
    i = keras.Input((8, 8, 3))
    x = L.ReLU()(L.BatchNormalization(name="n1")(L.Conv2D(8, 3, name="c1")(i)))
    x = L.ReLU()(L.BatchNormalization(name="n2")(L.Conv2D(10, 3, name="c2")(x)))
    base = keras.Model(i, L.Dense(3, name="head")(L.GlobalAveragePooling2D()(x)))
    kernel = base.get_layer("c2").kernel
    kernel.assign(kernel.numpy() * (np.arange(8) >= 6)[:, None])
    method = FilterADMM(Constant(0.5, end=8), rounds=4, rho=1.0, growth=1.5)
    model = compiled(compress(base, method), run_eagerly=True)
    x, y = image_data(128)
    losses = model.fit(x, y, epochs=3, verbose=0, callbacks=[CompressionCallback(100, (x, y))]).history["loss"]
    plain = strip(model)
    gone = {name: (plain.get_layer(name).kernel.numpy() == 0).all((0, 1, 2)) for name in ("c1", "c2")}
    one, two = (int(zeros.sum()) for zeros in gone.values())
    assert one + two == 9 and one / 8 > 0.5 > two / 10, (one, two)
    for name, zeros in gone.items():
        norm = plain.get_layer(name.replace("c", "n"))
        for vector in (plain.get_layer(name).bias, norm.gamma, norm.beta):
            np.testing.assert_array_equal(vector.numpy() == 0, zeros, err_msg=vector.path)
    np.testing.assert_allclose(plain(x), model(x), atol=1e-5)
    assert np.isfinite(losses).all()
    assert {int(layer.values(key)["round"]) for _, layer, key in compressed_tensors(model)} == {5}
