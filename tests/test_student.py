import itertools

import keras
import numpy as np
import pytest
from keras import layers
from small_models import normal

from tfcompress.convert import convert
from tfcompress.distillation.student import scaled, solve
from tfcompress.inspect import inspect
from tfcompress.stages import BLOCKS, parameters, staged

WIDE = {"blocks": (6, 8, 6), "channels": (64, 128, 192)}


class Counted:
    """Stands in for a model whose parameters are known by formula."""

    built = 0

    def __init__(self, amount):
        Counted.built += 1
        self.amount = amount

    def count_params(self):
        return self.amount


def by_formula(**options):
    return lambda depth, width: Counted(parameters((32, 32, 3), 10, depth=depth, width=width, **options))


# ---- the rule ----
def test_blocks_and_channels_follow_the_rule():
    assert scaled((2, 3, 4), (16, 32, 64), 1, 1) == ((2, 3, 4), (16, 32, 64))
    assert scaled((2, 3, 4), (16, 32, 64), 0.1, 0.1) == ((1, 1, 1), (8, 8, 8))
    assert scaled((2, 3, 4), (16, 32, 64), 2, 1.3) == ((4, 6, 8), (24, 40, 80))
    for depth, width in itertools.product((0.3, 0.7, 1.5), repeat=2):
        blocks, channels = scaled((5, 7), (40, 100), depth, width)
        assert blocks == tuple(max(1, round(depth * n)) for n in (5, 7))
        assert channels == tuple(max(8, 8 * round(width * c / 8)) for c in (40, 100))


@pytest.mark.parametrize("arguments", [((2,), (16, 32), 1, 1), ((), (), 1, 1), ((0,), (8,), 1, 1), ((2,), (8,), 0, 1),
                                       ((2,), (8,), 1, float("nan"))])  # fmt: skip
def test_nonsense_stages_are_refused(arguments):
    with pytest.raises(ValueError, match="Received"):
        scaled(*arguments)


# ---- stages ----
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("shape", [(16, 16, 3), (40, 2)])
def test_formula_equals_count_params(block, shape):
    small = {"block": block, "blocks": (1, 2), "channels": (16, 24)}
    for depth, width in ((0.5, 0.5), (1.5, 0.3), (0.3, 2)):
        options = {"depth": depth, "width": width, **small}
        assert staged(shape, 7, **options).count_params() == parameters(shape, 7, **options)
    for extra in ({"classes": None}, {"classes": 5, "embedding": 12}):
        assert staged(shape, **extra, **small).count_params() == parameters(shape, **extra, **small)


@pytest.mark.parametrize("block", BLOCKS)
def test_stages_repeat_from_their_seed_and_take_any_resolution(block):
    options = {"block": block, "blocks": (1, 2), "channels": (8, 16)}
    first, again, other = (staged((16, 16, 3), 4, seed=seed, **options) for seed in (1, 1, 2))
    weights = [model.get_weights() for model in (first, again, other)]
    assert all(np.array_equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))
    small, free = staged((9, 7, 3), 4, logits=True, **options), staged((None, None, 3), 4, **options)
    small.set_weights(weights[0])
    free.set_weights(weights[0])
    x = normal(9, 7, 3, count=2)
    np.testing.assert_allclose(free(x), keras.ops.softmax(small(x)), rtol=1e-4, atol=1e-6)
    names = {layer.name for layer in first.layers}
    assert {"stage1_block1_conv1", "stage1_block1_out", "stage2_block2_out", "average", "logits"} <= names
    assert first.get_layer("stage2_block1_out").output.shape == (None, 8, 8, 16)
    unit = staged((16, 16, 3), None, embedding=6, **options)(normal(16, 16, 3, count=3))
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-5)


def test_nonsense_nets_are_refused():
    for wrong, message in (({"block": "dense"}, "Known: .'basic'"), ({"input_shape": (8,)}, "An image is"),
                           ({"input_shape": (8, 8, None)}, "known channels")):
        with pytest.raises(ValueError, match=message):
            staged(**wrong)
        with pytest.raises(ValueError, match=message):
            parameters(**wrong)


@pytest.mark.slow
@pytest.mark.parametrize("shape, block, precision, within", [
    ((12, 12, 3), "bottleneck", "float32", 1e-4), ((24, 2), "inverted", "int8", 0.1)])  # fmt: skip
def test_stages_and_embeddings_convert(shape, block, precision, within):
    model = staged(shape, None, embedding=8, block=block, blocks=(1, 1), channels=(8, 16))
    x = normal(*shape, count=4)
    options = {"calibration": normal(*shape)} if precision == "int8" else {}
    found = np.asarray(convert(model, precision, **options).predict(x)).reshape(4, 8)
    np.testing.assert_allclose(found, model(x), atol=within)


# ---- budgets ----
LINES = {"width": lambda s: (1, s), "depth": lambda s: (s, 1), "balanced": lambda s: (s * s, s)}


@pytest.mark.parametrize("scaling", LINES)
@pytest.mark.parametrize("block", BLOCKS)
def test_budget_is_met_within_5_percent_or_nothing_on_the_line_does(scaling, block):
    build, met = by_formula(block=block, **WIDE), 0
    full = build(1, 1).amount
    line = [build(*LINES[scaling](number / 401.7)).amount for number in range(1, 402)]    # on no edge of a step
    for budget in (0.75 * full, 0.5 * full, 0.3 * full, 0.15 * full):
        Counted.built, nearest = 0, min(abs(amount - budget) for amount in line)
        try:
            student = solve(build, budget / full, scaling=scaling)
        except ValueError:
            assert nearest > 0.05 * budget and scaling != "balanced"
            student = solve(build, budget, scaling=scaling, tolerance=None)
            assert abs(student.amount - budget) == nearest
            continue
        met += 1
        assert Counted.built <= 25 and student.budget == budget and (student.metric, student.scaling) == (
            "parameters", scaling)
        assert abs(student.amount - budget) <= min(0.05 * budget, max(nearest, 0.001 * budget))
        assert student.amount == student.model.count_params() == build(student.depth, student.width).amount
        assert scaling != "width" or student.depth == 1
        assert scaling != "depth" or student.width == 1
    assert met == 4 if scaling == "balanced" else met >= 1


def test_balanced_stays_on_its_line_where_that_meets_the_budget():
    build = by_formula(**WIDE)
    student = solve(build, 0.5, scaling="balanced")
    assert student.depth == student.width**2
    refined = solve(build, 0.15, scaling="balanced")
    assert refined.depth != refined.width**2 and abs(refined.depth - refined.width**2) < 0.2 * refined.depth
    nearest = solve(build, 0.15, scaling="balanced", tolerance=None)
    assert nearest.depth == nearest.width**2 and abs(nearest.amount / nearest.budget - 1) > 0.05


def test_real_models_of_one_budget():
    def build(depth, width):
        return staged((16, 16, 3), 4, depth=depth, width=width, blocks=(1, 1), channels=(64, 136))

    student = solve(build, 0.4)
    full = build(1, 1).count_params()
    assert abs(student.model.count_params() / (0.4 * full) - 1) <= 0.05 and student.model.output_shape == (None, 4)


def test_budget_above_the_full_model_and_the_budget_of_the_full_model():
    build = by_formula(**WIDE)
    full = build(1, 1).amount
    larger = solve(build, 3 * full, scaling="balanced")
    assert larger.width > 1 and abs(larger.amount / (3 * full) - 1) < 0.05
    Counted.built = 0
    assert (solve(build, full).width, Counted.built) == (1.0, 1)


def test_whole_blocks_can_miss_a_budget():
    build = by_formula()                                    # 2, 2, 2 blocks: few steps
    told = "within 5%.*scaling='depth'. Nearest: 78,714.*depth=0.5,.*smallest: 78,714.*tolerance=None"
    with pytest.raises(ValueError, match=told):
        solve(build, 0.2, scaling="depth")
    nearest = solve(build, 0.2, scaling="depth", tolerance=None)
    assert nearest.amount == build(0.01, 1).amount > 0.2 * build(1, 1).amount
    middle = 0.55 * build(1, 1).amount
    reachable = {build(n / 100, 1).amount for n in range(1, 150)}
    found = solve(build, middle, scaling="depth", tolerance=None).amount
    assert abs(found - middle) == min(abs(amount - middle) for amount in reachable)
    with pytest.raises(ValueError, match="smallest: [0-9,]+ .depth=1, width=0.0"):
        solve(build, 10)


def test_models_that_do_not_change_end_the_search():
    Counted.built = 0
    with pytest.raises(ValueError, match="Nearest: 500"):
        solve(lambda depth, width: Counted(500), 10_000)
    assert Counted.built < 10


def test_mistakes_are_told():
    build = by_formula()
    for wrong, message in ((("flops",), "measure="), (("latency_us",), "measure="), (("bytes",), "Known"),
                           (("parameters", "height"), "Known")):
        with pytest.raises(ValueError, match=message):
            solve(build, 0.5, *wrong)
    for wrong in (0, -3, float("nan")):
        with pytest.raises(ValueError, match="A budget is positive"):
            solve(build, wrong)
    with pytest.raises(ValueError, match="Look at `measure`"):
        solve(build, 0.5, "flops", measure=lambda model: 0)
    with pytest.raises(ValueError, match="tolerance"):
        solve(build, 0.5, tolerance=5)


def test_latency_that_wobbles_still_ends():
    random = np.random.default_rng(0)

    def wobbling(model):
        return model.amount / 1000 * random.uniform(0.99, 1.01)

    Counted.built = 0
    student = solve(by_formula(**WIDE), 0.5, "latency_us", "balanced", measure=wobbling)
    assert abs(student.amount / student.budget - 1) <= 0.05 and Counted.built <= 22


def convolution_macs(model):
    """Multiply-accumulates of the convolutions and dense layers, from the Keras shapes."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, (layers.Conv2D, layers.Dense)):
            total += int(np.prod(layer.output.shape[1:-1])) * layer.kernel.shape.num_elements()
    return total


@pytest.mark.slow
def test_flops_budget_is_that_of_the_converted_file():
    def build(depth, width):
        return staged((16, 16, 3), 4, depth=depth, width=width, blocks=(1, 1), channels=(72, 136))

    student = solve(build, 0.45, "flops", measure=lambda model: 2 * convolution_macs(model))
    counted = 2 * inspect(convert(student.model, "float32")).macs
    assert counted == student.amount and abs(counted / student.budget - 1) <= 0.05
