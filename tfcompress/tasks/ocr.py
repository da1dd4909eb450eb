"""Text in an image: y int (N, longest), characters as numbers from 0, then -1.

The net gives logits (N, steps, characters + 1): column 0 is the blank of CTC, column c + 1 is character c. The class
names are the alphabet.
"""

import keras
import numpy as np

from tfcompress.method import serializable
from tfcompress.recipes import Recipe
from tfcompress.tasks import lines, nets
from tfcompress.tasks.task import Task, check_classes, one_output


@serializable
class CTC(keras.losses.Loss):
    """Connectionist temporal classification of logits, for y padded with -1. One value an example.

    Source: Graves et al., "Connectionist temporal classification", ICML 2006.

    >>> round(float(CTC()([[0, -1]], np.log([[[0.5, 0.5], [0.5, 0.5]]]))), 4)      # -log(0.75): three of four paths
    0.2877
    """

    def __init__(self, *, name="ctc", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        y_pred = keras.ops.convert_to_tensor(y_pred)
        text = keras.ops.cast(y_true, "int32") + 1
        lengths = keras.ops.sum(keras.ops.cast(text > 0, "int32"), -1)
        steps = keras.ops.full((keras.ops.shape(y_pred)[0],), y_pred.shape[1], dtype="int32")
        return keras.ops.ctc_loss(text, y_pred, lengths, steps, mask_index=0)


def decode(scores):
    """Characters, a list of numbers an example: the highest column a step, repeats joined, blanks left out.

    >>> decode(np.eye(3)[[[1, 1, 0, 1, 2, 2, 0]]])
    [[0, 0, 1]]
    """
    best = np.asarray(scores).argmax(-1)
    kept = (best > 0) & (np.diff(best, axis=1, prepend=0) != 0)
    return [(row[keep] - 1).tolist() for row, keep in zip(best, kept, strict=True)]


def edit_distance(one, other):
    """Fewest insertions, deletions and replacements that make `one` of `other` (Levenshtein 1966).

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        corner, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (a != b))
    return row[-1]


def character_error_rate(outputs, y):
    """Edits from what was read to what is there, over all examples, by the number of characters that are there.

    >>> character_error_rate([np.eye(3)[[[1, 0, 2], [2, 2, 2]]]], [[0, 1], [1, 1]])      # one character lacks
    0.25
    """
    y = np.asarray(y)
    right = [[int(c) for c in row if c >= 0] for row in y]
    if not sum(map(len, right)):
        raise ValueError("No example of y has a character: all are -1.")
    found = decode(one_output(outputs, 3, y))
    return sum(map(edit_distance, found, right)) / sum(map(len, right))


def loss(model):
    """CTC on the model's logits."""
    return CTC()


def model(data, seed=0):
    """`nets.line_reader`: convolutions, then a GRU in both directions along the line."""
    return nets.line_reader(data.input_shape, data.classes + 1, seed=seed)


def check(data):
    """y are characters (N, longest), all -1 at the end of a text and none within it."""
    check_classes(data, axes=2, lowest=-1)
    for part in ("train", "val", "test"):
        y = getattr(data, f"y_{part}")
        if ((y[:, :-1] < 0) & (y[:, 1:] >= 0)).any():
            raise ValueError(f"{data.name}: y_{part} has a -1 before a character. Expected texts from the left, then "
                             "-1 up to the longest one's length.")


def load(**options):
    """Lines of digits; y is the text. Options: `lines.lines`."""
    return lines.lines(lambda made: [made.x, made.text], "lines", "y is what is written.", tuple("0123456789"),
                       **options)


TASK = Task(
    name="ocr",
    metric="character error rate",
    higher_is_better=False,
    score=character_error_rate,
    loss=loss,
    model=model,
    recipe=Recipe(epochs=10, batch_size=32, learning_rate=4e-3),
    datasets={"lines": load},
    check=check,
)
