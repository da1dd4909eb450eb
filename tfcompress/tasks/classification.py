"""Classification: one class an example. y int (N,); the net gives probabilities or logits (N, classes)."""

import numpy as np

from android_bench.metrics import classify
from tfcompress import datasets, zoo
from tfcompress.recipes import RECIPES
from tfcompress.tasks.losses import cross_entropy, one_sigmoid
from tfcompress.tasks.task import Task, TaskData, check_classes, one_output, soft


def accuracy(outputs, y):
    """Share of examples whose highest output is the right class.

    >>> accuracy([[[0.1, 0.9], [0.8, 0.2]]], [1, 1])
    0.5
    """
    return float(np.mean(classify(one_output(outputs, 2, y)) == np.asarray(y)))


def model(data, seed=0):
    """`zoo.image_resnet` for images (height, width, channels), the 1-D `zoo.ecg_cnn` for series (steps, channels)."""
    nets = {3: zoo.image_resnet, 2: zoo.ecg_cnn}
    if len(data.input_shape) not in nets:
        raise ValueError(f"The default nets take images (height, width, channels) or series (steps, channels). "
                         f"Received: examples {data.input_shape}. Give a model of your own.")
    return nets[len(data.input_shape)](data.input_shape, data.classes, seed=seed)


def check(data):
    """y are class numbers (N,)."""
    check_classes(data, axes=1)


def targets(model, y):
    """Class numbers as they are; ValueError for more than two classes and one sigmoid."""
    if len(y) and y.max() > 1 and one_sigmoid(model):
        raise ValueError(f"One sigmoid tells two classes apart. Received: class numbers up to {y.max()}. Give the "
                         f"model a softmax over {y.max() + 1} classes or more.")
    return y


def _loader(name):
    return lambda **options: TaskData.of(datasets.load(name, **options), "Real examples, as they are.")


TASK = Task(
    name="classification",
    metric="accuracy",
    higher_is_better=True,
    score=accuracy,
    loss=cross_entropy,
    model=model,
    recipe=RECIPES["digits"],
    datasets={name: _loader(name) for name in datasets.DATASETS},
    check=check,
    targets=targets,
    teach=soft,
)
