"""Japanese vowels: 640 utterances of /ae/ by 9 men, 12 channels, 7-29 frames, from the files of the package `aeon`.

Kudo M, Toyama J, Shimbo M, "Multidimensional curve classification using passing-through regions", Pattern Recognition
Letters 20, 1999; UCI Machine Learning Repository (CC BY 4.0). aeon: BSD-3. Only its data files are read.
"""

import importlib.util
from pathlib import Path

import numpy as np

from .splits import Splits

LICENCE = "Japanese Vowels, Kudo, Toyama, Shimbo 1999, UCI (CC BY 4.0); files from aeon (BSD-3)."
FRAMES = 29


def load(path=None, seed=0):
    """216 train, 54 validation (6 of each speaker's 30), 370 test (official); the class is the speaker.

    x float32 (N, 29, 12): zeros in front of short utterances. path: folder of JapaneseVowels_TRAIN.ts and _TEST.ts;
    default: the installed package aeon (pip install --no-deps aeon is enough).
    """
    folder = Path(path) if path is not None else _packaged()
    (x, y), (x_test, y_test) = (read_ts(folder / f"JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST"))
    rng = np.random.default_rng(seed)
    val = np.concatenate([rng.permutation(np.flatnonzero(y == speaker))[:6] for speaker in range(9)])
    train = np.setdiff1d(np.arange(len(y)), val)
    names = tuple(f"speaker {i}" for i in range(1, 10))
    return Splits("japanese_vowels", names, x[train], y[train], x[val], y[val], x_test, y_test, licence=LICENCE)


def read_ts(path):
    """(x float32 (N, 29, channels), y int 0..8) of a .ts file: channels parted by ':', the last field is the label."""
    try:
        lines = [line for line in Path(path).read_text().splitlines() if line and line[0] not in "#@"]
    except FileNotFoundError:
        raise FileNotFoundError(f"No {path}; expected the data files of aeon: pip install --no-deps aeon") from None
    x, y = [], []
    for number, line in enumerate(lines, 1):
        *channels, label = line.split(":")
        try:
            series = np.array([np.array(channel.split(","), "float32") for channel in channels]).T
            y.append(int(label) - 1)
        except ValueError as error:
            raise ValueError(f"{path}: case {number} can't be read: {error}") from error
        x.append(np.pad(series, ((FRAMES - len(series), 0), (0, 0))))
    return np.stack(x), np.array(y)


def _packaged():
    spec = importlib.util.find_spec("aeon")  # found, not imported
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("Japanese vowels come with the package aeon: pip install --no-deps aeon")
    return Path(spec.origin).parent / "datasets" / "data" / "JapaneseVowels"
