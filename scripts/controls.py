"""The float nets that tables compare with: each is trained once and kept."""

from pathlib import Path

import keras

import tfcompress
from tfcompress import training, zoo
from tfcompress.recipes import Recipe


def control_of(net: str, options: dict, recipe: Recipe, seed: int, splits, folder: Path) -> keras.Model:
    """The zoo's `net`, trained by `recipe`, from `folder`: `control.keras`, and `control.tflite` beside it."""
    path = folder / "control.keras"
    if not path.exists():
        model = zoo.build(net, splits.input_shape, splits.classes, seed=seed, **options)
        training.fit(model, splits, recipe, seed=seed)
        folder.mkdir(parents=True, exist_ok=True)
        tfcompress.convert(model).save(folder / "control.tflite")
        model.save(folder / "part.keras")
        (folder / "part.keras").rename(path)
    return keras.models.load_model(path, compile=False)
