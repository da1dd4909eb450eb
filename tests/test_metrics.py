"""Metrics against scikit-learn and against answers one can see."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from android_bench.metrics import agreement, classify, metrics


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_numbers_are_scikit_learns(classes, seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, 200)
    scores = random.random((200, classes)) + 0.5 * np.eye(classes)[labels]
    found, called = metrics(labels, scores), scores.argmax(1)
    assert found.accuracy == pytest.approx(accuracy_score(labels, called))
    assert found.macro_f1 == pytest.approx(f1_score(labels, called, average="macro"))
    assert list(found.recalls.values()) == pytest.approx(list(recall_score(labels, called, average=None)))
    np.testing.assert_array_equal(found.confusion, confusion_matrix(labels, called))


def test_a_class_nobody_has_and_nobody_calls_counts_for_nothing():
    found = metrics([0, 1, 1], np.eye(4)[[0, 1, 0]], ["N", "S", "V", "F"])
    assert found.recalls == {"N": 1.0, "S": 0.5, "V": None, "F": None}
    assert found.macro_f1 == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_a_class_that_is_called_but_absent_pulls_the_mean_down():
    assert metrics([0, 0], np.eye(3)[[0, 2]]).macro_f1 == pytest.approx((2 / 3 + 0) / 2)


def test_one_hot_columns_and_single_outputs():
    scores = np.array([[0.9, 0.1], [0.4, 0.6]])
    assert metrics(np.eye(2)[[0, 1]], scores) == metrics([[0], [1]], scores)
    assert metrics([0, 1], [[0.2], [0.7]]).accuracy == 1
    assert classify([0.2, 0.7]).tolist() == [0, 1]
    assert agreement(scores, scores[::-1]) == 0


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], np.zeros((0, 2)), "one or more"),
        ([0], np.zeros((2, 2)), "1 and 2"),
        ([5, 0], np.zeros((2, 2)), "0..1"),
        ([0, 1], np.full((2, 2), np.nan), "NaN"),
        ([0, 1], np.zeros((2, 2, 2)), "samples, classes"),
    ],
)
def test_bad_input_is_a_clear_error(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        metrics(labels, scores)


def test_wrong_number_of_class_names():
    with pytest.raises(ValueError, match="3 class names"):
        metrics([0, 1], np.eye(2), ["a", "b", "c"])
