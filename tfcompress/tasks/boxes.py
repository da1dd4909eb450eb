"""Boxes in plain numpy: overlap, anchors and their offsets, non-maximum suppression, mean average precision.

A box is (top, left, bottom, right), in shares of the image.
"""

import numpy as np

SCALES = (0.1, 0.1, 0.2, 0.2)       # of the offsets: centre y, x, log height, log width (Liu et al. 2016, SSD)


def overlaps(one, other):
    """Intersection over union of each box of `one` (n, 4) with each of `other` (m, 4): (n, m).

    >>> overlaps([[0, 0, 2, 2]], [[0, 1, 2, 3], [2, 2, 3, 3]]).round(3)
    array([[0.333, 0.   ]])
    """
    one, other = np.asarray(one, "float64")[:, None], np.asarray(other, "float64")[None]
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    shared = np.prod(np.maximum(high - low, 0), -1)
    both = np.prod(one[..., 2:] - one[..., :2], -1) + np.prod(other[..., 2:] - other[..., :2], -1) - shared
    return np.where(both > 0, shared / np.where(both > 0, both, 1), 0.0)


def anchors(count, shapes):
    """`count` boxes (count, 4) on a square grid, one of each (height, width) of `shapes` at each position.

    >>> anchors(4, [(0.5, 0.25)])[0].tolist()
    [0.0, 0.125, 0.5, 0.375]
    """
    side = round((count / len(shapes)) ** 0.5)
    if side * side * len(shapes) != count:
        raise ValueError(f"Expected a square grid with {len(shapes)} anchors at each position. Received: {count} "
                         "anchors in all.")
    middle = (np.arange(side) + 0.5) / side
    y, x, shape = np.meshgrid(middle, middle, np.arange(len(shapes)), indexing="ij")
    height, width = np.asarray(shapes, "float64")[shape].transpose(3, 0, 1, 2)
    return np.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], -1).reshape(-1, 4)


def encode(boxes, anchors):
    """Offsets (..., 4) of boxes from their anchors, which a net learns; `decode` is the way back."""
    (centre, size), (middle, shape) = _centred(boxes), _centred(anchors)
    return np.concatenate([(centre - middle) / shape, np.log(size / shape)], -1) / SCALES


def decode(offsets, anchors):
    """Boxes (..., 4) of offsets.

    >>> at = anchors(4, [(0.5, 0.25)])
    >>> bool(np.allclose(decode(encode(at[:1], at[1:2]), at[1:2]), at[:1]))
    True
    """
    offsets, (middle, shape) = np.asarray(offsets, "float64") * SCALES, _centred(anchors)
    centre, size = middle + offsets[..., :2] * shape, np.exp(np.minimum(offsets[..., 2:], 4)) * shape
    return np.concatenate([centre - size / 2, centre + size / 2], -1)


def _centred(boxes):
    boxes = np.asarray(boxes, "float64")
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def suppress(boxes, scores, threshold=0.45):
    """Indices of the boxes that stay, best first: one goes where a better one overlaps it by more than `threshold`.

    >>> suppress([[0, 0, 1, 1], [0, 0, 1, 0.9], [0, 2, 1, 3]], [0.8, 0.9, 0.7]).tolist()
    [1, 2]
    """
    order, kept = np.argsort(-np.asarray(scores), kind="stable"), []
    shared = overlaps(boxes, boxes)
    while len(order):
        kept.append(order[0])
        order = order[1:][shared[order[0], order[1:]] <= threshold]
    return np.array(kept, int)


def mean_average_precision(found, real, threshold=0.5):
    """Mean over the classes that occur in `real` of the area under the precision-recall curve.

    Detections are taken from the surest down; one is right if it overlaps a real box of its class in its image by at
    least `threshold`, the best of those; a second one for the same box is wrong. Precision is the highest at this
    recall or a greater one, at every recall that is reached (VOC's rule since 2010, all points).

    Args:
        found: a list of arrays (n, 6), one an image: class, score, box.
        real: as many arrays (m, 5): class, box.

    Source: Everingham et al., "The Pascal Visual Object Classes Challenge", IJCV 2010.

    >>> box = [0.0, 0.0, 1.0, 1.0]
    >>> mean_average_precision([np.array([[0, 0.9, *box]])], [np.array([[0, *box], [0, 0.0, 0.0, 0.1, 0.1]])])
    0.5
    """
    if len(found) != len(real):
        raise ValueError(f"Expected detections for each of {len(real)} images. Received: {len(found)}.")
    classes = np.unique(np.concatenate([boxes[:, 0] for boxes in real])) if real else []
    if not len(classes):
        raise ValueError("No image has a box.")
    return float(np.mean([_average_precision(number, found, real, threshold) for number in classes]))


def _average_precision(number, found, real, threshold):
    right, scores, total = [], [], 0
    for detections, boxes in zip(found, real, strict=True):
        boxes = boxes[boxes[:, 0] == number, 1:]
        detections = detections[detections[:, 0] == number]
        detections = detections[np.argsort(-detections[:, 1], kind="stable")]
        shared, taken = overlaps(detections[:, 2:], boxes), np.zeros(len(boxes), bool)
        total += len(boxes)
        for row in shared:
            best = int(row.argmax()) if len(row) else -1
            hit = best >= 0 and row[best] >= threshold and not taken[best]
            right.append(hit)
            if hit:
                taken[best] = True
        scores.append(detections[:, 1])
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hits = np.cumsum(np.array(right, float)[order])
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(hits / total, prepend=0) * best))
