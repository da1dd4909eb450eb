"""The named models: sizes, heads, and the same start weights for the same seed."""

import numpy as np
import pytest

from tfcompress import zoo

SHAPES = {
    "ecg_cnn": (187, 4),
    "ecg_resnet": (187, 4),
    "image_resnet": (28, 28, 1),
    "image_mobilenet": (28, 28, 1),
    "image_mobilenet_v1": (28, 28, 1),
    "image_alexnet": (28, 28, 1),
    "image_vgg": (28, 28, 1),
    "lstm": (48, 20),
}


@pytest.mark.parametrize("name", zoo.MODELS)
def test_ends_in_probabilities_or_logits_and_repeats_from_its_seed(name):
    x = np.random.default_rng(0).normal(size=(3, *SHAPES[name])).astype("float32")
    model, twin, other = (zoo.build(name, SHAPES[name], 7, seed=seed) for seed in (4, 4, 5))
    probabilities = np.asarray(model(x))
    assert probabilities.shape == (3, 7)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), twin.get_weights(), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))

    logits = zoo.build(name, SHAPES[name], 7, seed=4, logits=True)
    shifted = np.exp(np.asarray(logits(x)))
    np.testing.assert_allclose(shifted / shifted.sum(1, keepdims=True), probabilities, rtol=1e-4)


@pytest.mark.parametrize(
    "name, least, most",
    [
        ("ecg_cnn", 50_000, 60_000), ("ecg_resnet", 1_000_000, 1_100_000), ("image_mobilenet", 50_000, 100_000),
        ("image_resnet", 75_000, 80_000), ("image_mobilenet_v1", 200_000, 220_000),
        ("image_alexnet", 2_800_000, 2_950_000),
    ],  # fmt: skip
)
def test_has_the_size_that_the_study_is_about(name, least, most):
    assert least <= zoo.MODELS[name]().count_params() <= most
