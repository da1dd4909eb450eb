"""Sequence labelling: one class a step. y int (N, steps), -1 where there is no step; the net gives (N, steps, classes).
"""

import numpy as np

from tfcompress.recipes import Recipe
from tfcompress.tasks import lines, nets
from tfcompress.tasks.losses import cross_entropy
from tfcompress.tasks.task import Task, check_classes, one_output, soft


def step_accuracy(outputs, y):
    """Share of the steps, over all sequences, whose highest output is the right class; -1 in y is no step.

    >>> step_accuracy([[[[0.9, 0.1], [0.2, 0.8], [1.0, 0.0]]]], [[0, 0, -1]])
    0.5
    """
    scores, y = one_output(outputs, 3, y), np.asarray(y)
    if scores.shape[:2] != y.shape:
        raise ValueError(f"Expected scores for each step of y {y.shape}. Received: {scores.shape}.")
    if not (y >= 0).any():
        raise ValueError("No step of y has a class: all are -1.")
    return float(np.mean((scores.argmax(-1) == y)[y >= 0]))


def model(data, seed=0):
    """`nets.transformer`: two blocks of attention over all steps."""
    return nets.transformer(data.input_shape, data.classes, seed=seed)


def check(data):
    """y are class numbers (N, steps), a step of x each."""
    check_classes(data, axes=2, lowest=-1)
    if data.y_train.shape[1] != data.input_shape[0]:
        raise ValueError(f"{data.name}: y have a class for each of the {data.input_shape[0]} steps of x. Received: "
                         f"{data.y_train.shape[1]}.")


def load(**options):
    """Lines of digits as series (112 columns, 28 rows); y is the digit that a column belongs to, or "gap"."""
    ends = "x is the series of its columns, y the digit or gap that a column belongs to; lines differ in length."
    return lines.lines(lambda made: [made.x[..., 0].transpose(0, 2, 1), made.columns], "lines", ends,
                       (*"0123456789", "gap"), **options)


TASK = Task(
    name="sequence_labelling",
    metric="step accuracy",
    higher_is_better=True,
    score=step_accuracy,
    loss=cross_entropy,
    model=model,
    recipe=Recipe(epochs=20, batch_size=32, learning_rate=2e-3, warmup=0.1),
    datasets={"lines": load},
    check=check,
    teach=soft,
)
