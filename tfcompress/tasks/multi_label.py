"""Multi-label: any number of labels an example. y 0 or 1 (N, labels); the net gives a score for each (N, labels)."""

import numpy as np

from tfcompress.recipes import Recipe
from tfcompress.tasks import nets, scenes
from tfcompress.tasks.losses import binary_cross_entropy
from tfcompress.tasks.task import PARTS, Task, one_output, soft


def mean_average_precision(outputs, y):
    """Mean over the labels that occur in y of the average precision of the examples ranked by that label's score.

    Precision at each distinct score, weighted by the recall it adds (scikit-learn's rule): equal scores, which int8
    files have many of, count as one step. Probabilities and logits give the same.

    >>> mean_average_precision([[[0.9], [0.8], [0.1]]], [[1], [0], [1]])      # (1 + 2 / 3) / 2
    0.8333333333333333
    """
    y = np.asarray(y)
    scores = one_output(outputs, 2, y)
    if scores.shape != y.shape:
        raise ValueError(f"Expected a score for each label of y {y.shape}. Received: {scores.shape}.")
    found = [average_precision(column, labels) for column, labels in zip(scores.T, y.T, strict=True) if labels.any()]
    if not found:
        raise ValueError("No example of y has a label.")
    return float(np.mean(found))


def average_precision(scores, labels):
    """Of one label: scores (N,), labels 0 or 1 (N,), at least one of them 1."""
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(labels[order])
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)       # of each run of equal scores
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def model(data, seed=0):
    """`nets.tagger`: the strongest answer over all positions, a sigmoid for each label."""
    return nets.tagger(data.input_shape, data.classes, seed=seed)


def check(data):
    """y are 0 or 1, (N, labels), one column a class name."""
    for part in PARTS:
        y = getattr(data, f"y_{part}")
        if y.ndim != 2 or y.dtype.kind not in "iubf" or not np.isin(y, (0, 1)).all():
            raise ValueError(f"{data.name}: y_{part} are 0 or 1, (examples, labels). Received: {y.dtype} {y.shape}.")
    if data.classes != data.y_train.shape[1]:
        raise ValueError(f"{data.name}: y has {data.y_train.shape[1]} labels. Received {data.classes} class names: "
                         "give one a label (class_names in the .npz).")


def _digits_shown(made):
    y = np.zeros((len(made.x), 10), "int32")
    rows, columns = np.nonzero(made.boxes[..., 0] >= 0)
    y[rows, made.boxes[rows, columns, 0].astype(int)] = 1
    return y


def load(**options):
    """Scenes of digits; y says which digits are in it. Options: `scenes.scenes`."""
    return scenes.scenes(_digits_shown, "scenes", "y says which digits a scene shows.", tuple("0123456789"), **options)


TASK = Task(
    name="multi_label",
    metric="mean average precision",
    higher_is_better=True,
    score=mean_average_precision,
    loss=binary_cross_entropy,
    model=model,
    recipe=Recipe(epochs=15, batch_size=32, learning_rate=4e-3),
    datasets={"scenes": load},
    check=check,
    teach=soft,
)
