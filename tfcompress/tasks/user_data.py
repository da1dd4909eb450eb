"""The user's own data: an `.npz` file becomes `TaskData`."""

import zipfile
from pathlib import Path

import numpy as np

from tfcompress.tasks.task import PARTS, TaskData


def read(path):
    """`TaskData` of an `.npz` with x_train, y_train and, if you have them, x_val, y_val, x_test, y_test, class_names.

    Parts that lack are split off the training examples, drawn with a fixed seed: a tenth for validation, a fifth for
    test. They are drawn example by example: where several examples are of one person or recording, split them yourself.
    Class names that lack are the numbers 0 up to the highest in y; nothing where y are not whole numbers.

    Raises:
        FileNotFoundError: no such file. ValueError: not such a file, half a pair, too few examples to split.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No data at {str(path)!r}. Expected an .npz file with x_train and y_train.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not an .npz file of plain arrays: {error}") from error
    for part in PARTS:
        pair = [name for name in (f"x_{part}", f"y_{part}") if name in arrays]
        if len(pair) == 1 or (part == "train" and not pair):
            raise ValueError(f"{path} needs {'' if part == 'train' else 'both or neither of '}x_{part} and y_{part}. "
                             f"It holds: {', '.join(sorted(arrays)) or 'nothing'}. x_train and y_train always; also "
                             "x_val, y_val, x_test, y_test, or they are drawn from x_train.")
    names = arrays.get("class_names", ())
    parts = _split(path, arrays)
    if not len(names):
        names = _numbers([y for _, y in parts.values()])
    drawn = tuple(f"x_{part}" for part in PARTS if f"x_{part}" not in arrays)
    about = "The user's own data" + (f"; {' and '.join(drawn)} split here by chance off x_train." if drawn else ".")
    return TaskData(path.stem, *(array for part in PARTS for array in parts[part]), about=about, class_names=names,
                    drawn=drawn)


def _split(path, arrays):
    parts = {part: (arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in PARTS if f"x_{part}" in arrays}
    x, y = parts["train"]
    if len(x) != len(y):
        raise ValueError(f"{path}: {len(x)} examples in x_train and {len(y)} targets in y_train. Expected as many.")
    order, start = np.random.default_rng(0).permutation(len(x)), 0
    for part, share in (("val", 10), ("test", 5)):
        if part not in parts:
            chosen, start = order[start : start + len(x) // share], start + len(x) // share
            if not len(chosen):
                raise ValueError(f"{path}: {len(x)} examples are too few to split off {part}. Give x_{part}, y_{part}.")
            parts[part] = x[chosen], y[chosen]
    rest = np.sort(order[start:]) if start else slice(None)
    parts["train"] = x[rest], y[rest]
    return parts


def _numbers(ys):
    if any(y.dtype.kind not in "iu" for y in ys):
        return ()
    return tuple(str(number) for number in range(max(int(y.max(initial=-1)) for y in ys) + 1))
