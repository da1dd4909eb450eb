"""Real data sets, one file each: `load(name)` gives a `Splits` of plain arrays."""

from . import digits, ecg, fashion_mnist, japanese_vowels, spoken_digits
from .splits import Splits

DATASETS = {
    "digits": digits.load,
    "ecg": ecg.load,
    "fashion_mnist": fashion_mnist.load,
    "spoken_digits": spoken_digits.load,
    "japanese_vowels": japanese_vowels.load,
}


def load(name, **options):
    """The data set called `name` as `Splits`; `options` go to the `load` of its file.

    >>> load("digits").x_train.shape
    (3500, 28, 28, 1)
    >>> load("cats")
    Traceback (most recent call last):
    ...
    ValueError: Unknown data set 'cats'. Known: digits, ecg, fashion_mnist, spoken_digits, japanese_vowels.
    """
    if name not in DATASETS:
        raise ValueError(f"Unknown data set {name!r}. Known: {', '.join(DATASETS)}.")
    return DATASETS[name](**options)


__all__ = ["DATASETS", "Splits", "load"]
