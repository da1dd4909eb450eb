"""What a study is, as data, and the studies that come with the toolkit."""

import dataclasses
import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from tfcompress.recipes import RECIPES, Recipe

from .grid import Cell, Distill, cells


@dataclass(frozen=True)
class StudyConfig:
    """One data set, one net, 18 cells. `dataclasses.replace(PRESETS["digits"], seed=1)` makes another one.

    name, title: the folder's and the report's.
    dataset, dataset_options: for `datasets.load`; or your own `.npz`, see `cell.read_data`. examples: use this many of
        each split at most (None: all).
    model, model_options: for `zoo.build`; or your own trained `.keras` file, which is then the control as it is.
    control: how a net of the zoo is trained. fine_tune: how each cell is trained from it; a cell that quantizes in
        training has half of these epochs for that, before it prunes.
    granularity: "unstructured" prunes the same share of each kernel, "global" ranks the weights of all together.
    taught: every cell that trains learns from the control in this way; None: from the labels alone.
    learning_rates: each trained cell is trained with each of them; kept is the `.tflite` file with the smallest
        cross-entropy on the validation split.
    calibration: samples from the training split, drawn evenly over the classes, that set the int8 ranges; each number
        is tried, the best is kept in the same way.
    second_six: "reversed_order", "qat" or "kd", see `grid.cells`. only: ids of the cells to make, C0 among them;
        empty: all 18.
    """

    name: str
    title: str
    dataset: str
    model: str
    control: Recipe
    fine_tune: Recipe
    granularity: str = "unstructured"
    taught: Distill | None = None
    learning_rates: tuple[float, ...] = (1e-3, 3e-4)
    calibration: tuple[int, ...] = (500,)
    second_six: str = "reversed_order"
    only: tuple[str, ...] = ()
    seed: int = 0
    examples: int | None = None
    dataset_options: dict = field(default_factory=dict)
    model_options: dict = field(default_factory=dict)

    def __post_init__(self):
        if not self.learning_rates or not self.calibration:
            raise ValueError("Expected at least one of learning_rates and one of calibration. Received none.")
        if not isinstance(self.taught, Distill | None):
            raise ValueError(f"`taught` is a Distill(temperature, alpha) or None. Received: {self.taught!r}.")
        if self.taught and self.second_six == "kd":
            raise ValueError("`taught` teaches every cell, so second_six='kd' would make six of them twice.")
        known = [cell.id for cell in cells(self.second_six)]
        if self.only and ("C0" not in self.only or set(self.only) - set(known)):
            raise ValueError(f"`only` names cells, C0 among them. Received: {self.only}. Known: {', '.join(known)}.")

    def cells(self) -> tuple[Cell, ...]:
        chosen = [cell for cell in cells(self.second_six) if not self.only or cell.id in self.only]
        return tuple(replace(cell, taught=self.taught) if self.taught and cell.trains else cell for cell in chosen)

    def files(self) -> dict:
        """`{path: sha256}` of the user's own files: a study of a model or data that changed is another study."""
        own = [path for path in (self.model, self.dataset) if path.endswith((".keras", ".npz"))]
        return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in own}

    def to_dict(self) -> dict:
        """What JSON holds of it; `StudyConfig.from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "StudyConfig":
        values = dict(values, control=Recipe(**values["control"]), fine_tune=Recipe(**values["fine_tune"]))
        if isinstance(values.get("taught"), dict):
            values["taught"] = Distill(**values["taught"])
        known = {field.name for field in dataclasses.fields(cls)}  # a folder's config.json holds `files` too
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known})


_DIGITS = StudyConfig(
    name="digits",
    title="Handwritten digits: a small ResNet",
    dataset="digits",
    model="image_resnet",
    control=RECIPES["digits"],
    fine_tune=Recipe(epochs=3, batch_size=32, shift=2),
    learning_rates=(3e-3, 1e-3),
)
_ECG = StudyConfig(
    name="ecg_full",
    title="Heartbeats (MIT-BIH), split by patient: 1-D CNN",
    dataset="ecg",
    dataset_options={"download": True},
    model="ecg_cnn",
    control=RECIPES["ecg_cnn"],
    # These four: chosen with this net on the patients of DS1, scripts/choose_ecg.py. A pruned net stays closest to its
    # teacher where it is shown mixed beats for long (Beyer et al. 2022, arXiv:2106.05237).
    granularity="global",
    taught=Distill(temperature=1.0, alpha=1.0),
    learning_rates=(3e-3,),
    fine_tune=replace(RECIPES["ecg_cnn"], epochs=32, mixup=1.0),
)
PRESETS = {
    "digits": _DIGITS,
    "ecg": replace(
        _ECG,
        name="ecg",
        fine_tune=replace(RECIPES["ecg_cnn"], epochs=3),
        learning_rates=(1e-3,),
    ),
    "ecg_full": _ECG,
    "ecg_resnet": replace(
        _ECG,
        name="ecg_resnet",
        title="Heartbeats (MIT-BIH), split by patient: residual net",
        model="ecg_resnet",
        control=RECIPES["ecg_resnet"],
        fine_tune=replace(RECIPES["ecg_resnet"], epochs=16, mixup=1.0, warmup=0.05),
        learning_rates=(1e-3,),
    ),
    "tiny": replace(
        _DIGITS,
        name="tiny",
        title="Tiny study, for tests",
        model="image_mobilenet",
        model_options={"blocks": 1, "width": 16},
        examples=300,
        control=Recipe(epochs=12, batch_size=20, learning_rate=5e-3),
        fine_tune=Recipe(epochs=2, batch_size=20),
        learning_rates=(1e-3,),
        calibration=(50,),
    ),
}


def preset(name_or_config) -> StudyConfig:
    """The preset called so, or the configuration itself.

    >>> preset("digits").model
    'image_resnet'
    >>> preset("cats")
    Traceback (most recent call last):
    ...
    ValueError: Unknown preset 'cats'. Known: digits, ecg, ecg_full, ecg_resnet, tiny; or your own MODEL.keras.
    """
    if isinstance(name_or_config, StudyConfig):
        return name_or_config
    if name_or_config not in PRESETS:
        raise ValueError(f"Unknown preset {name_or_config!r}. Known: {', '.join(PRESETS)}; or your own MODEL.keras.")
    return PRESETS[name_or_config]


def own(model: str, data: str, epochs: int = 3) -> StudyConfig:
    """A study of your own trained classifier: a `.keras` file, and the `.npz` that `cell.read_data` describes.

    ValueError where there is no such model file.
    """
    if not Path(model).is_file():
        raise ValueError(f"Expected a trained model, a .keras file. Received: {model}, which is no file.")
    name = Path(model).stem
    return StudyConfig(
        name=name,
        title=f"{name}, on {Path(data).name}",
        dataset=str(data),
        model=str(model),
        control=Recipe(epochs=1),  # not used: it is trained
        fine_tune=Recipe(epochs=epochs),
    )
