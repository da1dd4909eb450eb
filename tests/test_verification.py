import numpy as np
import pytest

from tfcompress.distillation.verification import Pairs, best_threshold, cosine_scores, pairs, verification_accuracy


def hand_made(seed=0, count=200):
    """Two hundred pairs whose scores overlap, with ties."""
    random = np.random.default_rng(seed)
    same = np.arange(count) % 2 == 0
    return np.round(random.normal(np.where(same, 0.6, 0.3), 0.2), 2), same


def candidates(scores):
    values = sorted(set(scores))
    return [values[0], *[(a + b) / 2 for a, b in zip(values, values[1:], strict=False)], values[-1] + 1e-9]


def brute_force(scores, same):
    """First candidate with most pairs right, each counted in a loop."""
    best, right = None, -1
    for threshold in candidates(scores):
        hits = sum((score >= threshold) == answer for score, answer in zip(scores, same, strict=True))
        if hits > right:
            best, right = threshold, hits
    return best, right / len(scores)


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_brute_force_search_on_200_pairs(seed):
    scores, same = hand_made(seed)
    found = verification_accuracy(scores, same, folds=10, seed=None)
    right = []
    for fold in np.split(np.arange(200), 10):
        train = np.setdiff1d(np.arange(200), fold)
        threshold, _ = brute_force(scores[train], same[train])
        right.append(np.mean((scores[fold] >= threshold) == same[fold]))
    assert found.accuracy == np.mean(right)
    np.testing.assert_allclose(found.deviation, np.std(right, ddof=1))
    threshold, best = brute_force(scores, same)
    np.testing.assert_allclose(found.threshold, threshold, atol=1e-8)
    dense = max(np.mean((scores >= t) == same) for t in np.linspace(-1, 2, 3001))
    assert np.mean((scores >= found.threshold) == same) == best >= dense


def test_error_rates_equal_a_brute_force_search():
    scores, same = hand_made(1)
    found = verification_accuracy(scores, same)
    points = [((scores[~same] >= t).mean(), (scores[same] < t).mean()) for t in candidates(scores)]
    assert found.true_accept_rate == max(1 - refused for accepted, refused in points if accepted <= 0.01)
    lower = max(min(p) for p in points)
    upper = min(max(p) for p in points)
    assert lower <= found.equal_error_rate <= upper and upper - lower < 0.05


def test_known_answers():
    apart = verification_accuracy([3, 2, 1, -1, -2, -3], [True] * 3 + [False] * 3, folds=3)
    assert (apart.accuracy, apart.deviation, apart.threshold) == (1, 0, 0)
    assert (apart.equal_error_rate, apart.true_accept_rate) == (0, 1)
    constant = verification_accuracy(np.zeros(40), np.arange(40) % 2 == 0)
    assert (constant.accuracy, constant.equal_error_rate, constant.true_accept_rate) == (0.5, 0.5, 0)
    wrong = verification_accuracy(-np.arange(40.0), np.arange(40) >= 20)       # the wrong way round
    assert wrong.equal_error_rate == 1 and wrong.accuracy <= 0.5
    np.testing.assert_allclose(verification_accuracy([4, 3, 2, 1], [1, 0, 1, 0], folds=2).equal_error_rate, 0.5)


def test_threshold_lies_between_neighbouring_floats_too():
    low = 0.1
    high = np.nextafter(low, 1)
    threshold = best_threshold([low, high], [False, True])
    assert threshold == high
    assert best_threshold([1.0, 2.0], [True, False]) == 1.0                    # as good as any: all are "same"
    assert best_threshold([1.0, 2.0, 3.0], [False, False, False]) > 3.0


def test_chance_is_a_half_and_the_seed_decides_the_folds():
    random = np.random.default_rng(2)
    scores, same = random.random(4000), np.arange(4000) < 2000
    first, again, other = (verification_accuracy(scores, same, seed=seed) for seed in (0, 0, 1))
    assert first == again and abs(first.accuracy - 0.5) < 0.05 and first.deviation > 0
    assert other.accuracy != first.accuracy and other.threshold == first.threshold
    shuffled = random.permutation(4000)
    moved = verification_accuracy(scores[shuffled], same[shuffled])
    assert (moved.threshold, moved.equal_error_rate) == (first.threshold, first.equal_error_rate)


@pytest.mark.parametrize("arguments, message", [
    (([1, 2], [1]), "One score and one answer"), (([1, np.nan, 0], [1, 0, 1]), "1 that are not"),
    (([1, 2, 3], [1, 1, 0]), "2 same, 1 different pairs, folds=10"), (([1, 0], [1, 0], 1), "two folds"),
])  # fmt: skip
def test_mistakes_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        verification_accuracy(*arguments)


def test_pairs_are_balanced_distinct_and_without_repeats():
    labels = np.random.default_rng(3).integers(0, 5, 40)
    found = pairs(labels, 120, seed=4)
    assert found.same.sum() == 60 and (found.first != found.second).all()
    np.testing.assert_array_equal(labels[found.first] == labels[found.second], found.same)
    assert len({frozenset(pair) for pair in zip(found.first, found.second, strict=True)}) == 120
    again, other = pairs(labels, 120, seed=4), pairs(labels, 120, seed=5)
    assert np.array_equal(found.first, again.first) and not np.array_equal(found.first, other.first)
    assert 20 < found.same[:60].sum() < 40


def test_every_pair_is_drawn_and_as_often():
    labels = np.array(["a", "b", "a", "b", "a"])
    everyone = pairs(labels, 8)                                                # all four pairs of one class
    assert {frozenset(p) for p, s in zip(zip(everyone.first, everyone.second, strict=True), everyone.same, strict=True)
            if s} == {frozenset(p) for p in ((0, 2), (0, 4), (2, 4), (1, 3))}
    drawn = [pairs(labels, 2, seed=seed) for seed in range(1200)]
    counts = np.unique([tuple(sorted((p.first[i], p.second[i]))) for p in drawn for i in range(2)],
                       axis=0, return_counts=True)[1]
    assert len(counts) == 10 and 150 < counts.min() and counts.max() < 360     # 6 of two classes: 200, 4 of one: 300
    with pytest.raises(ValueError, match="5 pairs of the same class where there are 4"):
        pairs(labels, 10)
    for wrong in (3, 0):
        with pytest.raises(ValueError, match="even count"):
            pairs(labels, wrong)


def test_many_examples_take_no_time():
    found = pairs(np.arange(100_000) // 10, 6000)
    assert found.same.sum() == 3000


def test_embeddings_that_tell_the_classes_apart_reach_one():
    random = np.random.default_rng(5)
    labels = np.repeat(np.arange(6), 10)
    embeddings = np.eye(6)[labels] * random.uniform(1, 9, (60, 1)) + 0.02 * random.standard_normal((60, 6))
    chosen = pairs(labels, 200)
    scores = cosine_scores(embeddings.astype("float32"), chosen)
    assert scores.dtype == float and np.abs(scores).max() <= 1 + 1e-12
    assert verification_accuracy(scores, chosen.same).accuracy == 1.0
    zero = cosine_scores(np.zeros((2, 3)), Pairs(np.array([0]), np.array([1]), np.array([True])))
    assert zero.tolist() == [0.0]
