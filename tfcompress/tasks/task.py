"""`Task`: what a job needs to know of a task; `TaskData`: its arrays."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfcompress.recipes import Recipe

PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class TaskData:
    """Train, validation and test arrays of one task.

    `x_*` float32, first axis = example. `y_*` in the form that the task asks for (see its file). `about` is one
    sentence: what is real and what is composed. `class_names`: of class numbers, labels or characters, in their order;
    empty where there are none. `drawn`: names of parts, such as "x_test", that were taken from training examples: a net
    that was trained on these before is judged too well by them.

    >>> data = TaskData("toy", *[np.zeros((2, 3)), np.array([0, 1])] * 3, class_names=("a", "b"))
    >>> print(data)
    toy: (3,) -> y (); 2 train, 2 validation, 2 test
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    licence: str = ""
    about: str = ""
    class_names: tuple = ()
    drawn: tuple = ()

    def __post_init__(self):
        for part in PARTS:
            x, y = np.asarray(getattr(self, f"x_{part}"), "float32"), np.asarray(getattr(self, f"y_{part}"))
            if len(x) == 0 or len(x) != len(y):
                raise ValueError(f"{self.name}: the {part} part holds {len(x)} examples and {len(y)} targets. Expected "
                                 "as many targets as examples, and at least one.")
            if x.shape[1:] != self.input_shape or y.shape[1:] != np.shape(self.y_train)[1:]:
                raise ValueError(f"{self.name}: an example of {part} has x {x.shape[1:]} and y {y.shape[1:]}. Expected "
                                 f"those of train: {self.input_shape} and {np.shape(self.y_train)[1:]}.")
            if not np.isfinite(x).all():
                raise ValueError(f"{self.name}: x_{part} holds NaN or infinity. Clean or fill it first.")
            object.__setattr__(self, f"x_{part}", x)
            object.__setattr__(self, f"y_{part}", y)
        object.__setattr__(self, "class_names", tuple(str(name) for name in self.class_names))

    @classmethod
    def of(cls, splits, about=""):
        """A `tfcompress.datasets.Splits` as task data, for tasks whose y are class numbers."""
        arrays = [getattr(splits, f"{axis}_{part}") for part in PARTS for axis in "xy"]
        return cls(splits.name, *arrays, licence=splits.licence, about=about, class_names=splits.class_names)

    @property
    def input_shape(self):
        """Shape of one example, without the batch axis."""
        return np.shape(self.x_train)[1:]

    @property
    def classes(self):
        """Number of class names."""
        return len(self.class_names)

    def __str__(self):
        return (f"{self.name}: {self.input_shape} -> y {self.y_train.shape[1:]}; {len(self.x_train)} train, "
                f"{len(self.x_val)} validation, {len(self.x_test)} test")


def same_targets(model, y):
    """`y` as it is."""
    return y


def same_model(model):
    """`model` as it is."""
    return model


@dataclass(frozen=True)
class Task:
    """One task, as plain functions: how to train for it, and how to judge a `.tflite` file.

    Attributes:
        name: key in `TASKS`.
        metric: what `score` gives, in words.
        higher_is_better: of the metric.
        score: `(outputs, y) -> float`: numpy only; `outputs` are the arrays of `tfcompress.measure.run`.
        loss: `(model) -> loss` for `model.compile`: one, or a list in the order of the model's outputs.
        model: `(data, seed) -> keras.Model`: a small default net for `data`, uncompiled.
        recipe: `Recipe` of that net on the default data.
        datasets: `{name: loader(**options) -> TaskData}`; the first is the default.
        check: `(data)`: ValueError where `data.y_*` are not of this task.
        targets: `(model, y) -> y` for `fit`, an array or a tuple of them, where a net is trained on another form of y.
        export: `(trained model) -> model` that ships, where the head is for training only (verification).
        relative: the metric is in the units of y, not a share of 1: what is lost is told as a share of its value.
        teach: `(student, teacher, temperature, alpha) -> Distiller`, or None where soft targets make no sense.
    """

    name: str
    metric: str
    higher_is_better: bool
    score: Callable
    loss: Callable
    model: Callable
    recipe: Recipe
    datasets: dict
    check: Callable
    targets: Callable = same_targets
    export: Callable = same_model
    relative: bool = False
    teach: Callable | None = None


def soft(student, teacher, temperature=4.0, alpha=0.9):
    """A `Distiller` on the teacher's softened outputs: `compile` or `tasks.fit` it in the student's place."""
    from tfcompress.distillation.distiller import Distiller

    return Distiller(student, teacher, temperature=temperature, alpha=alpha)


def check_classes(data, axes, lowest=0):
    """ValueError unless y are whole numbers with `axes` axes, from `lowest` to the last class name."""
    for part in PARTS:
        y = getattr(data, f"y_{part}")
        if y.ndim != axes or y.dtype.kind not in "iu":
            wanted = "(examples,)" if axes == 1 else f"with {axes} axes, examples first"
            raise ValueError(f"{data.name}: y_{part} are whole class numbers {wanted}. Received: {y.dtype} {y.shape}.")
        if y.min() < lowest or y.max() >= data.classes:
            padded = " (-1 pads)" if lowest < 0 else ""
            raise ValueError(f"{data.name}: y_{part} run from {y.min()} to {y.max()}. Expected {lowest}.."
                             f"{data.classes - 1}{padded} for {data.classes} class names.")


def one_output(outputs, axes, y):
    """The only array of `outputs`; ValueError unless it has `axes` axes and as many examples as y."""
    if not isinstance(outputs, list | tuple) or len(outputs) != 1:
        raise ValueError(f"Expected a list of one output, as tfcompress.measure.run gives. Received: "
                         f"{type(outputs).__name__} of {len(outputs)}.")
    scores = np.asarray(outputs[0], "float32")
    if scores.ndim != axes or len(scores) != len(y):
        raise ValueError(f"Expected one output with {axes} axes and {len(y)} examples. Received: {scores.shape}. Give "
                         "the outputs of tfcompress.measure.run on the x that belong to y.")
    if not np.isfinite(scores).all():
        raise ValueError("The outputs hold NaN or infinity: look at the model's weights and the input's range.")
    return scores
