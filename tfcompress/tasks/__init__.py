"""Tasks, one file each: how to train for it, how to judge its `.tflite`, and data to try it on.

`TASKS` is name -> `Task`; `load(task, data)` gives `TaskData`; `fit` trains. A task of your own is one more `Task`.
"""

from pathlib import Path

from . import (
    classification,
    detection,
    multi_label,
    ocr,
    regression,
    segmentation,
    sequence_labelling,
    verification,
)
from .task import Task, TaskData
from .training import fit
from .user_data import read

_MODULES = (classification, multi_label, regression, sequence_labelling, ocr, verification, detection, segmentation)
TASKS = {module.TASK.name: module.TASK for module in _MODULES}


def load(task, data=None, **options):
    """`TaskData` of `task` (a name of `TASKS`, or a `Task`), checked.

    Args:
        data: a name of `task.datasets` (None: the first), or the path of your own `.npz` (see `user_data.read`).
        options: go to the loader of a named set, such as `seed=1`; none for a file.

    Raises:
        ValueError: unknown task or data, arrays that don't fit the task. FileNotFoundError: no such file.

    >>> print(load("classification", "digits"))
    digits: (28, 28, 1) -> y (); 3500 train, 500 validation, 1000 test
    >>> load("clasification")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: Unknown task 'clasification'. Known: classification, ...
    """
    task = find(task)
    names = list(task.datasets)
    data = names[0] if data is None else data
    if str(data) in task.datasets:
        found = task.datasets[str(data)](**options)
    elif Path(data).suffix == ".npz":
        if options:
            raise ValueError(f"A file takes no options. Received: {sorted(options)}.")
        found = read(data)
    else:
        raise ValueError(f"Unknown data {str(data)!r} for {task.name}. Known: {', '.join(names)}; or the path of an "
                         ".npz file with x_train and y_train.")
    task.check(found)
    return found


def find(task):
    """The `Task` called so; a `Task` as it is. ValueError that names the known ones."""
    if isinstance(task, Task):
        return task
    if task not in TASKS:
        raise ValueError(f"Unknown task {task!r}. Known: {', '.join(TASKS)}.")
    return TASKS[task]


__all__ = ["TASKS", "Task", "TaskData", "find", "fit", "load"]
