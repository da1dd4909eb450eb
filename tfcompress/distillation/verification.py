"""Verification: do two examples show the same person? Accuracy at the best threshold, as on LFW. NumPy only."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Verification:
    """How well scores tell pairs of the same class from pairs of two classes.

    Attributes:
        accuracy: mean over the folds, each judged at the best threshold of the other folds; 0..1.
        deviation: sample standard deviation of the folds' accuracies.
        threshold: the best one on all pairs: a score of at least this means "same".
        equal_error_rate: where as many different pairs are accepted as same pairs are refused, interpolated.
        true_accept_rate: largest share of same pairs accepted while at most 1 % of different pairs are.
    """

    accuracy: float
    deviation: float
    threshold: float
    equal_error_rate: float
    true_accept_rate: float


@dataclass(frozen=True, eq=False)
class Pairs:
    """Indices of two examples a pair, and whether their classes are the same; three arrays of one length."""

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


def verification_accuracy(scores, same, folds=10, seed=0):
    """Accuracy at the best threshold by cross-validation, and what the ROC says: a ``Verification``.

    For each fold the threshold is the one with most pairs right in all the others, searched exactly: midway between
    two neighbouring scores, the lowest score, or just above the highest; the lowest of several as good ones. Same and
    different pairs are dealt out evenly, in an order from ``seed``; with ``seed=None`` the folds are runs of the pairs
    as given, which is LFW's own protocol (its list has ten sets one after the other).

    Args:
        scores: ``(pairs,)``, higher is more alike (``cosine_scores`` of ``pairs``, both here; negate distances).
        same: ``(pairs,)``, true where both are of one class.
        folds: two or more.

    Raises:
        ValueError: other lengths, a score that is not finite, or fewer pairs of a kind than folds.

    Source: Huang et al., "Labeled Faces in the Wild", 2007.

    >>> found = verification_accuracy([0.9, 0.8, 0.7, 0.3, 0.2, 0.1], [1, 1, 1, 0, 0, 0], folds=3)
    >>> found.accuracy, found.threshold, found.equal_error_rate, found.true_accept_rate
    (1.0, 0.5, 0.0, 1.0)
    """
    scores, same = np.asarray(scores, float), np.asarray(same).astype(bool)
    _check(scores, same, folds)
    fold = _folds(same, folds, seed)
    right = []
    for number in range(folds):
        test = fold == number
        threshold = best_threshold(scores[~test], same[~test])
        right.append(np.mean((scores[test] >= threshold) == same[test]))
    thresholds, accepted_same, accepted_different = _roc(scores, same)
    allowed = accepted_different <= 0.01
    return Verification(
        accuracy=float(np.mean(right)),
        deviation=float(np.std(right, ddof=1)),
        threshold=best_threshold(scores, same),
        equal_error_rate=_equal_error(1 - accepted_same, accepted_different),
        true_accept_rate=float(accepted_same[allowed].max()),
    )


def best_threshold(scores, same):
    """The lowest threshold with most pairs right, where ``score >= threshold`` means "same". Exact.

    >>> best_threshold([0.1, 0.4, 0.6, 0.9], [0, 1, 0, 1])
    0.25
    """
    scores, same = np.asarray(scores, float), np.asarray(same).astype(bool)
    thresholds, accepted_same, accepted_different = _roc(scores, same, counts=True)
    return float(thresholds[np.argmax(accepted_same - accepted_different)])


def pairs(labels, count, seed=0):
    """``count`` different pairs of two different examples: half of one class, half of two. Uniform, without repeats.

    Raises:
        ValueError: an odd count, or more pairs asked for than there are.

    >>> found = pairs([7, 7, 7, 5, 5], 6)
    >>> found.same.sum(), (found.first != found.second).all()
    (np.int64(3), np.True_)
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or count < 2 or count % 2:
        raise ValueError(f"Pairs need labels (examples,) and an even count. Received: labels {labels.shape}, {count=}.")
    random, order = np.random.default_rng(seed), np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], labels[order], side="right")  # where the class of each ends, in that order
    places = np.arange(len(labels))
    chosen = [_draw(random, partners, starts, count // 2, kind) for kind, partners, starts in (
        ("the same class", ends - places - 1, places + 1), ("two classes", len(labels) - ends, ends))]
    first, second = (order[np.concatenate(side)] for side in zip(*chosen, strict=True))
    swap = random.random(count) < 0.5
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    mixed = random.permutation(count)
    return Pairs(first[mixed], second[mixed], (np.arange(count) < count // 2)[mixed])


def cosine_scores(embeddings, pairs):
    """Cosine of the two embeddings of each pair, float64 ``(pairs,)``; 0 where one of them is zero.

    ``embeddings`` are ``(examples, ...)``, flattened. Average those of an image and its mirror image before, for both
    nets or for neither.

    >>> cosine_scores([[1, 0], [3, 3], [0, 2]], Pairs(np.array([0, 0]), np.array([1, 2]), np.array([1, 0]))).round(4)
    array([0.7071, 0.    ])
    """
    embeddings = np.asarray(embeddings, float)
    embeddings = embeddings.reshape(len(embeddings), -1)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    embeddings = embeddings / np.where(norms > 0, norms, 1)
    return np.einsum("pd,pd->p", embeddings[pairs.first], embeddings[pairs.second])


def _check(scores, same, folds):
    if scores.ndim != 1 or scores.shape != same.shape:
        raise ValueError(f"One score and one answer a pair. Received: scores {scores.shape}, same {same.shape}.")
    if not np.isfinite(scores).all():
        raise ValueError(f"Scores must be finite. Received: {np.sum(~np.isfinite(scores))} that are not, of "
                         f"{len(scores)}. Look for a net that diverged.")
    if not isinstance(folds, int) or folds < 2 or min(same.sum(), (~same).sum()) < folds:
        raise ValueError(
            f"Every fold needs a pair of the same class and one of two, and there are two folds or more. Received: "
            f"{same.sum()} same, {(~same).sum()} different pairs, folds={folds}. Give more pairs or take fewer folds.")


def _folds(same, folds, seed):
    """The fold of each pair."""
    if seed is None:
        return np.arange(len(same)) * folds // len(same)
    fold, random = np.empty(len(same), int), np.random.default_rng(seed)
    for kind in (True, False):
        where = random.permutation(np.flatnonzero(same == kind))
        fold[where] = np.arange(len(where)) % folds
    return fold


def _roc(scores, same, counts=False):
    """Thresholds that tell all distinct scores apart, rising, and the share of same and different pairs accepted."""
    values, place = np.unique(scores, return_inverse=True)
    middle = values[:-1] + (values[1:] - values[:-1]) / 2
    middle = np.where(middle > values[:-1], middle, values[1:])         # neighbouring floats have nothing between
    thresholds = np.concatenate([values[:1], middle, [np.nextafter(values[-1], np.inf)]])
    accepted = []
    for kind in (same, ~same):
        below = np.cumsum(np.bincount(place[kind], minlength=len(values)))
        taken = below[-1] - np.concatenate([[0], below])
        accepted.append(taken if counts else taken / below[-1])
    return thresholds, *accepted


def _equal_error(refused_same, accepted_different):
    """Where the rising and the falling error meet, on the line between the two thresholds around."""
    gap = refused_same - accepted_different                             # from -1 up to 1
    after = int(np.argmax(gap >= 0))
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(refused_same[after - 1] + share * (refused_same[after] - refused_same[after - 1]))


def _draw(random, partners, starts, count, kind):
    """``count`` of the pairs (place, start + 0 .. partners - 1), each equally likely."""
    total = int(partners.sum())
    if count > total:
        raise ValueError(f"Too few examples. Received: a wish for {count} pairs of {kind} where there are {total}. "
                         f"Ask for at most {2 * total} pairs in all.")
    drawn = random.choice(total, count, replace=False)
    upto = np.cumsum(partners)
    place = np.searchsorted(upto, drawn, side="right")
    return place, starts[place] + drawn - (upto - partners)[place]
