"""Detection: what is where? y float (N, most boxes, 5): class, top, left, bottom, right in shares of the image, class
-1 where an image has fewer boxes.

The net answers for a grid of anchors, in the way of SSD (Liu et al. 2016, arXiv:1512.02325), in two outputs, in this
order: boxes (N, anchors, 4), offsets from the anchors, and scores (N, anchors, classes), probabilities.
"""

from functools import partial

import keras
import numpy as np

from tfcompress.method import serializable
from tfcompress.recipes import Recipe
from tfcompress.tasks import nets, scenes
from tfcompress.tasks.boxes import anchors, decode, encode, mean_average_precision, overlaps, suppress
from tfcompress.tasks.task import PARTS, Task

SHAPES = ((0.32, 0.26), (0.32, 0.1))        # anchors: height and width; digits, and the figure one
FEWEST = 0.02                               # scores below it are no detections
MOST = 30                                   # detections an image and class
NEGATIVE, IGNORED = -1, -2


def detections(outputs, shapes=SHAPES):
    """A list of arrays (n, 6), one an image: class, score, box; best first in each class, doubles suppressed."""
    boxes, scores = _pair(outputs)
    boxes, found = decode(boxes, anchors(boxes.shape[1], shapes)), []
    for image_boxes, image_scores in zip(boxes, scores, strict=True):
        parts = [np.zeros((0, 6))]
        for number, column in enumerate(image_scores.T):
            sure = np.flatnonzero(column >= FEWEST)
            sure = sure[np.argsort(-column[sure], kind="stable")][: 4 * MOST]
            kept = sure[suppress(image_boxes[sure], column[sure])[:MOST]]
            parts.append(np.column_stack([np.full(len(kept), number), column[kept], image_boxes[kept]]))
        found.append(np.concatenate(parts))
    return found


def score(outputs, y, shapes=SHAPES):
    """Mean average precision at an overlap of 0.5: `boxes.mean_average_precision` of `detections`."""
    return mean_average_precision(detections(outputs, shapes), [boxes[boxes[:, 0] >= 0] for boxes in np.asarray(y)])


def targets(model, y, shapes=SHAPES):
    """What each anchor is to learn: offsets and a 1 where it has a box (N, anchors, 5), class numbers (N, anchors).

    An anchor has a box that it overlaps by half or more, or that overlaps no other anchor more; overlaps from 0.4 to
    0.5 are left out of the loss (class -2), the rest is background (-1).
    """
    if len(model.outputs) != 2 or model.outputs[0].shape[-1] != 4:
        raise ValueError(f"Expected a model with two outputs: boxes (anchors, 4), then scores (anchors, classes). "
                         f"Received: {[tuple(output.shape) for output in model.outputs]}.")
    at = anchors(model.outputs[0].shape[1], shapes)
    offsets, classes = np.zeros((len(y), len(at), 5), "float32"), np.full((len(y), len(at)), NEGATIVE, "int32")
    for i, boxes in enumerate(np.asarray(y)):
        boxes = boxes[boxes[:, 0] >= 0]
        if not len(boxes):
            continue
        shared = overlaps(at, boxes[:, 1:])
        best, share = shared.argmax(1), shared.max(1)
        forced = shared.argmax(0)
        best[forced], share[forced] = np.arange(len(boxes)), 1.0
        classes[i, share >= 0.4] = IGNORED
        own = share >= 0.5
        classes[i, own] = boxes[best[own], 0]
        offsets[i, own] = np.column_stack([encode(boxes[best[own], 1:], at[own]), np.ones(own.sum())])
    return offsets, classes


@serializable
class FocalLoss(keras.losses.Loss):
    """Focal loss of sigmoid scores, an image: the sum over anchors and classes by the number of anchors with a box.

    `-a * (1 - p)**2 * log(p)`, p the probability given to the right answer; a is 0.25 for "yes", 0.75 for "no".
    y: class numbers (anchors,), -1 background, -2 left out.

    Source: Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002.

    >>> round(float(FocalLoss()([[0, -2]], [[[0.5], [0.9]]])), 4)            # 0.25 * 0.25 * log(2)
    0.0433
    """

    def __init__(self, *, name="focal", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        y_pred = keras.ops.clip(keras.ops.convert_to_tensor(y_pred), 1e-6, 1 - 1e-6)
        labels = keras.ops.cast(y_true, "int32")
        yes = keras.ops.one_hot(labels, y_pred.shape[-1], dtype=y_pred.dtype)        # all 0 for negative numbers
        right = yes * y_pred + (1 - yes) * (1 - y_pred)
        focal = -(0.75 - 0.5 * yes) * keras.ops.square(1 - right) * keras.ops.log(right)
        counts = keras.ops.cast(labels != IGNORED, y_pred.dtype)
        positive = keras.ops.sum(keras.ops.cast(labels >= 0, y_pred.dtype), -1)
        return keras.ops.sum(keras.ops.sum(focal, -1) * counts, -1) / keras.ops.maximum(positive, 1.0)


@serializable
class BoxLoss(keras.losses.Loss):
    """Huber's loss of the offsets of anchors with a box, their mean in an image. y: offsets and a 1 or 0 (anchors, 5).

    >>> float(BoxLoss()([[[0, 0, 0, 0, 1], [9, 9, 9, 9, 0]]], [[[2, 0, 0, 0], [0, 0, 0, 0]]]))
    0.375
    """

    def __init__(self, *, name="box", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        y_true = keras.ops.convert_to_tensor(y_true)
        far = keras.ops.abs(y_true[..., :4] - y_pred)
        huber = keras.ops.where(far < 1, far * far / 2, far - 0.5)
        own = y_true[..., 4]
        return keras.ops.sum(keras.ops.mean(huber, -1) * own, -1) / keras.ops.maximum(keras.ops.sum(own, -1), 1.0)


def loss(model):
    """Of the boxes and of the scores."""
    return [BoxLoss(), FocalLoss()]


def model(data, seed=0, shapes=SHAPES):
    """`nets.detector` with `shapes` at each position."""
    return nets.detector(data.input_shape, data.classes, len(shapes), seed=seed)


def check(data):
    """y are boxes (N, most boxes, 5) in shares of the image, classes -1 or below the number of class names."""
    for part in PARTS:
        y = getattr(data, f"y_{part}")
        if y.ndim != 3 or y.shape[2] != 5 or y.dtype.kind not in "fiu":
            raise ValueError(f"{data.name}: y_{part} are boxes (examples, most boxes, 5): class, top, left, bottom, "
                             f"right. Received: {y.dtype} {y.shape}.")
        real = y[y[..., 0] >= 0]
        if len(real) and (real[:, 0].max() >= data.classes or (real[:, 0] % 1).any()):
            raise ValueError(f"{data.name}: classes of y_{part} run up to {real[:, 0].max()}. Expected whole numbers "
                             f"0..{data.classes - 1} for {data.classes} class names (class_names in the .npz).")
        if len(real) and ((real[:, 1:] < 0) | (real[:, 1:] > 1)).any() or (real[:, 3:] <= real[:, 1:3]).any():
            raise ValueError(f"{data.name}: boxes of y_{part} are shares 0..1 of the image, top above bottom and left "
                             "of right: divide pixels by the image's height and width.")


def load(**options):
    """Scenes of digits; y are their boxes. Options: `scenes.scenes`."""
    ends = "y are the tight boxes of the digits."
    return scenes.scenes(lambda made: made.boxes, "scenes", ends, tuple("0123456789"), **options)


def with_anchors(shapes):
    """The task with anchors of other (height, width), in shares of the image: some near to each size of your boxes.

    >>> with_anchors([(0.5, 0.5), (0.2, 0.2), (0.1, 0.1)]).metric
    'mAP@0.5'
    """
    return Task(
        name="detection",
        metric="mAP@0.5",
        higher_is_better=True,
        score=partial(score, shapes=shapes),
        loss=loss,
        model=partial(model, shapes=shapes),
        recipe=Recipe(epochs=8, batch_size=32, learning_rate=4e-3, warmup=0.05),
        datasets={"scenes": load},
        check=check,
        targets=partial(targets, shapes=shapes),
    )


def _pair(outputs):
    shapes = [np.shape(output) for output in outputs]
    if len(shapes) != 2 or any(len(shape) != 3 for shape in shapes) or shapes[0][:2] != shapes[1][:2] \
            or shapes[0][2] != 4:
        raise ValueError(f"Expected two outputs: boxes (examples, anchors, 4), then scores (examples, anchors, "
                         f"classes). Received: {shapes}.")
    if not all(np.isfinite(output).all() for output in outputs):
        raise ValueError("The outputs hold NaN or infinity: look at the model's weights and the input's range.")
    return outputs


TASK = with_anchors(SHAPES)
