"""A recipe draws, shifts and disturbs examples as it says; the same seed gives the same weights."""

import keras
import numpy as np
import pytest

from tfcompress import training, zoo
from tfcompress.datasets import Splits
from tfcompress.distillation.distiller import Distiller
from tfcompress.quantization.aware import quantize_aware
from tfcompress.recipes import RECIPES, Recipe
from tfcompress.training import augment, batches, fit, optimizer


@pytest.fixture(scope="module")
def toy():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 90)
    x = rng.normal(size=(90, 6, 1)) + 2 * y[:, None, None]
    return Splits(
        "toy", ("low", "high"), *(array[part] for part in (slice(60), slice(60, 75), slice(75, 90)) for array in (x, y))
    )


def small(seed=0):
    return keras.Sequential(
        [
            keras.Input((6, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(4, "relu", kernel_initializer=keras.initializers.HeNormal(seed)),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(2, "softmax", kernel_initializer=keras.initializers.HeNormal(seed)),
        ]
    )


def test_same_seed_same_weights_and_it_learns(toy):
    recipe = Recipe(epochs=8, batch_size=16, learning_rate=0.02, balance=0.5, shift=1, noise=0.1, scale=0.1, wander=0.1)
    runs = []
    for seed in (3, 3, 4):
        model = small()
        history = fit(model, toy, recipe, seed=seed)
        runs.append(model.get_weights())
    assert history.history["val_accuracy"][-1] > 0.8
    assert all(np.array_equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(runs[0], runs[2], strict=True))


def test_logits_and_probabilities_get_the_loss_that_fits(toy):
    recipe = Recipe(epochs=1, batch_size=60, learning_rate=1e-9)
    ends = small(), keras.Sequential([small(), keras.layers.Lambda(keras.ops.log)])
    losses = [fit(model, toy, recipe).history["val_loss"][0] for model in ends]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_each_epoch_holds_every_example_once_in_a_new_order():
    stream = batches(np.arange(10.0)[:, None], np.arange(10) % 2, Recipe(epochs=2, batch_size=5), seed=1)
    epochs = [np.concatenate([next(stream)[0], next(stream)[0]]).ravel() for _ in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0].tolist() != epochs[1].tolist()


@pytest.mark.parametrize("shape", [(50, 9, 1), (50, 9, 9, 1)])
def test_shift_moves_by_at_most_so_many_samples(shape):
    x = np.zeros(shape, "float32")
    x[(slice(None),) + (4,) * (len(shape) - 2)] = 1
    moved = augment(x, Recipe(epochs=1, shift=2), np.random.default_rng(0))
    peaks = np.argwhere(moved[..., 0])[:, 1:]
    assert moved.shape == shape and len(peaks) == 50
    assert set(peaks.ravel().tolist()) == {2, 3, 4, 5, 6}


def test_mixup_mixes_examples_and_targets_by_one_share_of_beta():
    y = np.arange(2000) % 2
    x = np.stack([y, 1 - y], axis=1)[:, None, :]  # (N, 1, 2): the example shows how much of each class is in it
    mixed, targets = next(batches(x, y, Recipe(epochs=1, batch_size=2000, mixup=0.4), seed=0))
    assert mixed.dtype == targets.dtype == np.float32
    np.testing.assert_array_equal(mixed[:, 0], targets[:, ::-1])
    other = (targets > 0).all(axis=1)  # partners of the other class: half of all
    np.testing.assert_allclose(other.mean(), 0.5, atol=0.05)
    share = targets[other, 0]
    np.testing.assert_allclose([share.mean(), share.var()], [0.5, 0.25 / 1.8], atol=0.02)  # Beta(a, a): 1 / (8 a + 4)


def test_noise_leaves_the_other_channels_and_the_original_alone():
    x = np.ones((4, 5, 2), "float32")
    recipe = Recipe(epochs=1, scale=0.1, noise=0.1, wander=0.1, noisy_channels=1)
    noisy = augment(x, recipe, np.random.default_rng(0))
    assert (x == 1).all() and (noisy[..., 1] == 1).all() and (noisy[..., 0] != 1).all()


def test_learning_rate_falls_to_zero_or_stays():
    falling = optimizer(Recipe(epochs=1, learning_rate=0.1), 100)
    assert float(falling.learning_rate) == pytest.approx(0.1)
    falling.iterations.assign(100)
    assert float(falling.learning_rate) == pytest.approx(0, abs=1e-8)
    assert float(optimizer(Recipe(epochs=1, learning_rate=0.1, schedule="constant"), 9).learning_rate) == pytest.approx(
        0.1
    )
    assert isinstance(optimizer(Recipe(epochs=1, weight_decay=0.1), 9), keras.optimizers.AdamW)
    warm = optimizer(Recipe(epochs=1, learning_rate=0.1, warmup=0.2), 100)
    rates = []
    for step in (0, 10, 20, 60, 100):
        warm.iterations.assign(step)
        rates.append(float(warm.learning_rate))
    np.testing.assert_allclose(rates, [0, 0.05, 0.1, 0.05, 0], atol=1e-7)


@pytest.mark.parametrize(
    "options", [{"schedule": "linear"}, {"balance": 2}, {"batch_size": 0}, {"mixup": np.nan}, {"warmup": 1}]
)
def test_a_recipe_that_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match="expected"):
        Recipe(epochs=1, **options)


def test_recipes_are_there_for_the_presets():
    assert {"digits", "ecg_cnn", "ecg_resnet"} <= set(RECIPES)


def test_loss_knows_probabilities_behind_fake_quantization_and_in_a_distiller():
    for logits in (False, True):
        net = zoo.image_mobilenet((8, 8, 1), 3, blocks=1, width=4, logits=logits)
        for model in (net, quantize_aware(net), Distiller(net, net)):
            assert training._loss(model, np.ones((2, 8, 8, 1)), 0.0).get_config()["from_logits"] == logits
