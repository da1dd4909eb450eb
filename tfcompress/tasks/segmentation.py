"""Segmentation: one class a pixel. y int (N, height, width), -1 counts for nothing; the net gives (N, h, w, classes).
"""

import numpy as np

from tfcompress.recipes import Recipe
from tfcompress.tasks import nets, scenes
from tfcompress.tasks.losses import cross_entropy
from tfcompress.tasks.task import Task, check_classes, one_output, soft


def mean_iou(outputs, y):
    """Mean over the classes, of y or called, of (pixels right) / (pixels of it or called it), over all images at once.

    >>> mean_iou([np.eye(2)[[[[0, 1], [1, 1]]]]], [[[0, 0], [1, 1]]])     # 1 of 2, 2 of 3
    0.5833333333333333
    """
    scores, y = one_output(outputs, 4, y), np.asarray(y)
    if scores.shape[:3] != y.shape:
        raise ValueError(f"Expected scores for each pixel of y {y.shape}. Received: {scores.shape}.")
    called, known = scores.argmax(-1), y >= 0
    both, real = called[known & (called == y)], y[known]
    if not len(real):
        raise ValueError("No pixel of y has a class: all are -1.")
    hits, real, called = (np.bincount(part, minlength=scores.shape[-1]) for part in (both, real, called[known]))
    union = real + called - hits
    return float(np.mean(hits[union > 0] / union[union > 0]))


def model(data, seed=0):
    """`nets.segmenter`: down to an eighth and up again, with shortcuts."""
    return nets.segmenter(data.input_shape, data.classes, seed=seed)


def check(data):
    """y are class numbers (N, height, width), as large as x."""
    check_classes(data, axes=3, lowest=-1)
    if data.y_train.shape[1:] != data.input_shape[:2]:
        raise ValueError(f"{data.name}: y have a class for each pixel of x {data.input_shape[:2]}. Received: "
                         f"{data.y_train.shape[1:]}.")


def load(**options):
    """Scenes of digits; y is the digit a pixel belongs to, 0 for none. Options: `scenes.scenes`."""
    names = ("background", *"0123456789")
    return scenes.scenes(lambda made: made.masks, "scenes", "y is the class of each pixel.", names, **options)


TASK = Task(
    name="segmentation",
    metric="mean IoU",
    higher_is_better=True,
    score=mean_iou,
    loss=cross_entropy,
    model=model,
    recipe=Recipe(epochs=10, batch_size=16, learning_rate=4e-3, warmup=0.05),
    datasets={"scenes": load},
    check=check,
    teach=soft,
)
