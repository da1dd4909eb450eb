"""Bits per layer: the optimizer finds a grid's minimum, the budget is kept, the network decides who gets the bits."""

import itertools

import keras
import numpy as np
import pytest

from tfcompress import compress, strip
from tfcompress.quantization.adaptive_float import AdaptiveFloat
from tfcompress.quantization.bits_per_layer import (
    allocations,
    bayesian_minimum,
    choose_bits,
    expected_improvement,
)

L = keras.layers
GRID = np.array(list(itertools.product(range(6), range(1, 7))))          # exponent and mantissa bits: 36 formats


def scores(w):
    """``log10`` of the relative squared error and 0.3 a bit: the exhaustive answer."""
    found = []
    for e, m in GRID.tolist():
        q = np.array(AdaptiveFloat(e, m).apply(w, {}))
        found.append(np.log10(np.mean((q - w) ** 2) / np.mean(w**2)) + 0.3 * (1 + e + m))
    return np.array(found)


@pytest.mark.parametrize("weights", ["normal", "laplace", "uniform", "standard_t"])
def test_the_minimum_of_the_grid_within_half_its_evaluations(weights):
    """With five seeds for each kind of weights, 20 in all: the exhaustive answer, always."""
    rng = np.random.default_rng(0)
    draw = {"uniform": lambda n: rng.uniform(-1, 1, n), "standard_t": lambda n: rng.standard_t(3, n)}
    exact = scores(draw.get(weights, lambda n: getattr(rng, weights)(size=n))(2000).astype("float32"))
    for seed in range(5):
        best, known = bayesian_minimum(lambda i: exact[i], GRID, trials=18, seed=seed)
        assert len(known) <= 18 and best == exact.argmin(), (seed, GRID[best], GRID[exact.argmin()])


def test_it_expects_nothing_where_it_knows_and_most_beside_the_best():
    tried, values = np.array([[0.0], [1.0], [2.0]]), [3.0, 1.0, 2.0]
    gain = expected_improvement(np.array([[0.0], [1.0], [1.3], [9.0]]), tried, values)
    assert gain[0] < 1e-6 and gain[1] < 0.02 and gain[2] == gain[:3].max() and (gain >= 0).all()
    _, known = bayesian_minimum(lambda i: 0.0, GRID, trials=36, patience=5)
    assert len(known) == 6                                               # the first counts as a gain
    _, known = bayesian_minimum(lambda i: float(i), GRID, trials=99)
    assert len(known) == 36


@pytest.mark.parametrize("bits", [2.0, 2.7, 4.0, 6.31, 8.0, 20.0])
def test_every_way_keeps_the_budget_and_nothing_more_fits(bits):
    sizes = np.array([144, 1000, 4096, 36])
    budget = int(bits * sizes.sum())
    errors = np.tile(4.0 ** -np.arange(7), (4, 1))
    ways = allocations(errors, sizes, budget, np.random.default_rng(0))
    assert (ways @ sizes <= budget).all() and ways.min() >= 2 and ways.max() <= 8
    assert not ((ways < 8) & ((ways @ sizes)[:, None] + sizes <= budget)).any()
    assert len({tuple(way) for way in ways.tolist()}) == len(ways)
    assert (len(ways) == 1) == (bits in (2.0, 8.0, 20.0))


def two_paths():
    """The output is what goes through ``much``, plus a thousandth of what goes through ``little``."""
    i = keras.Input((16,))
    much, little = L.Dense(16, use_bias=False, name="much"), L.Dense(16, use_bias=False, name="little")
    model = keras.Model(i, L.Dense(16, name="head")(L.Add()([much(i), L.Rescaling(1e-3)(little(i))])))
    rng = np.random.default_rng(0)
    for layer in (much, little, model.get_layer("head")):
        layer.kernel.assign(rng.standard_normal((16, 16)))
    model.compile(loss="mse")
    x = rng.standard_normal((200, 16)).astype("float32")
    return model, x, np.array(model(x))


def predicted(model, x, many):
    """The outputs with ``many`` bits for "much" and what is left of nine for "little", each in its best format."""
    rules = []
    for name, bits in (("much", many), ("little", 9 - many)):
        w = model.get_layer(name).kernel.numpy()
        formats = [AdaptiveFloat(e, bits - 1 - e) for e in range(min(5, bits - 1) + 1)]
        rules.append((name, min(formats, key=lambda m, w=w: np.mean((np.array(m.apply(w, {})) - w) ** 2))))
    return np.array(strip(compress(model, rules))(x))


def test_the_layer_that_matters_gets_the_bits_as_brute_force_says():
    model, x, y = two_paths()
    rules = choose_bits(model, (x, y), bits_per_weight=4.5, trials=20)
    bits = {path: method.bits for path, method in rules}
    losses = {many: np.mean((predicted(model, x, many) - y) ** 2) for many in range(2, 8)}  # all ways to spend 9
    assert min(losses, key=losses.get) == 7 == bits["much/kernel"] and bits["little/kernel"] == 2
    plain = strip(compress(model, rules))
    np.testing.assert_allclose(np.mean((np.array(plain(x)) - y) ** 2), losses[7], rtol=1e-4)


@pytest.mark.parametrize("sparse", [True, False], ids=["labels", "one hot"])
def test_accuracy_judges_where_the_loss_would_choose_another_way(sparse):
    model, x, y = two_paths()
    y = np.argmax(y, -1)
    from_logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=from_logits if sparse else keras.losses.CategoricalCrossentropy(from_logits=True))
    rules = choose_bits(model, (x, y if sparse else np.eye(16)[y]), bits_per_weight=4.5, by="accuracy", trials=20)
    logits = {many: predicted(model, x, many) for many in range(2, 8)}
    wrong = {many: np.mean(np.argmax(logits[many], -1) != y) for many in logits}
    losses = {many: float(from_logits(y, logits[many])) for many in logits}
    assert dict(rules)["much/kernel"].bits == min(wrong, key=wrong.get) != min(losses, key=losses.get)
    with pytest.raises(ValueError, match="Received: by='f1'"):
        choose_bits(model, (x, y), by="f1")


@pytest.mark.parametrize("outputs", [0, 2])
def test_accuracy_of_a_sequential_model_and_of_two_outputs(outputs):
    i = keras.Input((6,))
    hidden = L.Dense(8, name="hidden")(i)
    model = keras.Model(i, [L.Dense(3, name=f"out{k}")(hidden) for k in range(outputs)]) if outputs else (
        keras.Sequential([i, L.Dense(8, name="hidden"), L.Dense(3)]))  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=[loss, loss] if outputs else loss)
    x, y = np.random.default_rng(0).standard_normal((40, 6)), np.arange(40) % 3
    rules = choose_bits(model, (x, [y, y] if outputs else y), bits_per_weight=5.0, by="accuracy", trials=2)
    assert [path for path, _ in rules] == ["hidden/kernel"] and rules[0][1].bits == 5


def test_a_budget_that_no_format_fits_is_refused():
    model, x, y = two_paths()
    with pytest.raises(ValueError, match="512 weights take 1,024 bits.*Received: bits_per_weight=1.9"):
        choose_bits(model, (x, y), bits_per_weight=1.9)
    lone = keras.Sequential([keras.Input((2,)), L.Dense(2)])
    lone.compile(loss="mse")
    with pytest.raises(ValueError, match="include_head"):
        choose_bits(lone, (x, y))
    model.compiled = False
    with pytest.raises(ValueError, match="compile"):
        choose_bits(model, (x, y))
