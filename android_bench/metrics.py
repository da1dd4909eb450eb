"""Accuracy, recalls and F1 of a classifier, in plain numpy. Fractions, 0..1."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Metrics:
    """How well a classifier did on `samples` labelled inputs.

    `recalls` and `f1` map a class name to a fraction, or to None where the class has no sample (recall) or neither a
    sample nor a prediction (F1). `confusion[i][j]` counts samples of class i that were called j.
    """

    accuracy: float
    macro_f1: float
    recalls: dict[str, float | None]
    f1: dict[str, float | None]
    confusion: tuple[tuple[int, ...], ...]
    samples: int


def classify(scores) -> np.ndarray:
    """Class numbers, int64 (n,), of scores (n, classes); of one column (n,) or (n, 1): 1 where above 0.5.

    >>> classify([[0.1, 0.9], [0.8, 0.2]]).tolist()
    [1, 0]
    >>> classify([[0.2], [0.7]]).tolist()
    [0, 1]
    """
    scores = np.asarray(scores)
    if scores.ndim == 2 and scores.shape[1] > 1:
        return scores.argmax(axis=1)
    if scores.ndim <= 1 or scores.shape[1:] == (1,):
        return (scores.reshape(-1) > 0.5).astype(np.int64)
    raise ValueError(f"Scores of a classifier have shape (samples, classes). Received: {scores.shape}")


def confusion_matrix(labels, predicted, classes: int) -> np.ndarray:
    """int64 (classes, classes): [i, j] = samples of class i that were called j.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    labels, predicted = np.asarray(labels, np.int64), np.asarray(predicted, np.int64)
    if labels.shape != predicted.shape or labels.ndim != 1:
        raise ValueError(f"Expected one label and one prediction a sample. Received: {labels.shape}, {predicted.shape}")
    for name, values in (("Labels", labels), ("Predictions", predicted)):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(f"{name} must lie in 0..{classes - 1}. Received: {values.min()}..{values.max()}")
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def metrics(labels, scores, class_names: Sequence[str] | None = None) -> Metrics:
    """Judge `scores`, (n, classes) probabilities or logits, by `labels`, ints (n,) or (n, 1) or one-hot (n, classes).

    Macro-F1 is the mean F1 over the classes that have a sample or a prediction, as scikit-learn has it.

    >>> metrics([0, 0, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], ["N", "V"]).recalls
    {'N': 0.5, 'V': 1.0}

    Raises:
        ValueError: no samples, lengths that differ, labels outside the classes, NaN scores.
    """
    scores = np.asarray(scores)
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        if labels.shape != scores.shape:
            raise ValueError(f"One-hot labels {labels.shape} don't match the model's output {scores.shape}.")
        labels = labels.argmax(axis=1)
    labels = labels.reshape(-1)
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.floor(labels)):
        raise ValueError(f"Labels are whole class numbers. Received: {labels[labels != np.floor(labels)][0]}.")
    if not len(labels) or len(labels) != len(scores):
        raise ValueError(f"Expected as many labels as outputs, one or more. Received: {len(labels)} and {len(scores)}")
    if not np.isfinite(scores).all():
        raise ValueError("The model's outputs hold NaN or infinity: look at its weights and at the input's range.")
    classes = max(2, scores.shape[1]) if scores.ndim == 2 else 2
    names = [str(name) for name in class_names] if class_names is not None else [str(k) for k in range(classes)]
    if len(names) != classes:
        raise ValueError(f"The model has {classes} classes. Received {len(names)} class names: {names}")
    table = confusion_matrix(labels, classify(scores), classes)
    hits, real, called = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    f1 = [2 * float(h) / int(r + c) if r + c else None for h, r, c in zip(hits, real, called, strict=True)]
    recalls = [float(h) / int(r) if r else None for h, r in zip(hits, real, strict=True)]
    return Metrics(
        accuracy=float(hits.sum()) / len(labels),
        macro_f1=float(np.mean([value for value in f1 if value is not None])),
        recalls=dict(zip(names, recalls, strict=True)),
        f1=dict(zip(names, f1, strict=True)),
        confusion=tuple(tuple(row) for row in table.tolist()),
        samples=len(labels),
    )


def agreement(scores, reference) -> float:
    """Share of samples, 0..1, that two models put in the same class; both (n, classes).

    >>> agreement([[0.1, 0.9], [0.8, 0.2]], [[0.4, 0.6], [0.1, 0.9]])
    0.5
    """
    first, second = classify(scores), classify(reference)
    if len(first) != len(second) or not len(first):
        raise ValueError(f"Expected two outputs of the same length. Received: {len(first)} and {len(second)}")
    return float(np.mean(first == second))
