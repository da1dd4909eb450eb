"""Fashion-MNIST: 70,000 clothes, from Debian's package `dataset-fashion-mnist`, else downloaded by Keras.

Xiao H, Rasul K, Vollgraf R, "Fashion-MNIST", arXiv:1708.07747, 2017. Licence: MIT (Zalando SE).
"""

import gzip
from pathlib import Path

import numpy as np

from .splits import Splits

LICENCE = "Fashion-MNIST, Zalando SE (MIT): Xiao, Rasul, Vollgraf 2017."
FOLDER = Path("/usr/share/datasets/fashion-mnist")
NAMES = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")


def load(path=None, seed=0):
    """54,000 train, 6,000 validation (drawn from the official train set by `seed`), 10,000 test.

    x float32 (N, 28, 28, 1) in 0..1. path: folder of the four `*-ubyte.gz` files; default: Debian's
    /usr/share/datasets/fashion-mnist when it is there, else Keras downloads 30 MB into ~/.keras.
    """
    folder = Path(path) if path is not None else FOLDER
    if folder.is_dir():
        x, y = _read(folder, "train")
        x_test, y_test = _read(folder, "t10k")
    elif path is not None:
        raise FileNotFoundError(f"No folder {path}. Without `path`, Debian's package or Keras' download is used.")
    else:
        (x, y), (x_test, y_test) = _downloaded()
    order = np.random.default_rng(seed).permutation(len(x))
    val, train = order[: len(x) // 10], order[len(x) // 10 :]
    x, x_test = (images[..., None] / np.float32(255) for images in (x, x_test))
    return Splits("fashion_mnist", NAMES, x[train], y[train], x[val], y[val], x_test, y_test, licence=LICENCE)


def read_idx(path):
    """Array uint8 of a gzipped idx file (MNIST's format): magic 0 0 8 rank, sizes as big-endian uint32, values."""
    try:
        content = gzip.decompress(Path(path).read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"No {path}: install Debian's dataset-fashion-mnist.") from None
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} is not a gzipped idx file: {error}") from error
    rank = content[3] if content[:3] == b"\0\0\x08" else 0
    shape = tuple(np.frombuffer(content, ">u4", rank, 4)) if len(content) >= 4 + 4 * rank else ()
    if not rank or len(content) != 4 + 4 * rank + int(np.prod(shape)):
        raise ValueError(f"{path} is not an idx file of bytes: it starts with {content[:4]!r}, {len(content)} bytes.")
    return np.frombuffer(content, "uint8", offset=4 + 4 * rank).reshape(shape)


def _read(folder, part):
    return read_idx(folder / f"{part}-images-idx3-ubyte.gz"), read_idx(folder / f"{part}-labels-idx1-ubyte.gz")


def _downloaded():
    import keras

    try:
        return keras.datasets.fashion_mnist.load_data()
    except Exception as error:  # noqa: BLE001 - Keras raises bare Exception when the download fails
        raise FileNotFoundError(
            f"Fashion-MNIST: apt install dataset-fashion-mnist, or let Keras download it; that failed: {error}"
        ) from error
