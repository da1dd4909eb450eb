"""How the heartbeat study prunes, chosen on the patients of DS1 alone: four folds, the test patients unseen.

    TFCOMPRESS_DATA=... python scripts/choose_ecg.py        # resumes; rows in scripts/results/choose_ecg.jsonl

Each fold trains the control (`ecg_cnn`, one seed) on the other patients, prunes it to 90 % in each way, and counts the
pruned Keras model's hits on its own patients; the table adds the counts of the folds up. Almost all F beats of DS1 are
one patient's (208).
"""

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from tfcompress import training
from tfcompress.datasets import ecg, load
from tfcompress.study import cell as study_cell
from tfcompress.study.grid import cells
from tfcompress.study.presets import PRESETS
from tfcompress.study.store import Store

RESULTS = Path(__file__).parent / "results" / "choose_ecg.jsonl"
OTHERS = [record for record in ecg.DS1 if record not in ecg.VALIDATION]
FOLDS = (ecg.VALIDATION, *(tuple(OTHERS[start::3]) for start in range(3)))
KEY = ("fold", "cell", "granularity", "rate", "taught", "epochs")
WAYS = [
    dict(zip(KEY[1:], way, strict=True))
    for way in (
        *itertools.product(("P90Q8",), ("unstructured", "global"), (1e-3, 3e-3), (False, True), (8,)),
        *itertools.product(("P90Q8",), ("global",), (1e-3,), (True,), (4, 16)),  # the best of these, longer and shorter
        ("P90Q8", "global", 3e-4, True, 8),
    )
]


def counts(model, splits) -> list:
    """The confusion matrix on the fold's own patients."""
    found = np.zeros((splits.classes, splits.classes), int)
    np.add.at(found, (splits.y_val, model.predict(splits.x_val, batch_size=512, verbose=0).argmax(1)), 1)
    return found.tolist()


def run_fold(fold: int, store: Store) -> None:
    config = PRESETS["ecg_full"]
    missing = [way for way in WAYS if (fold, *way.values()) not in store]
    if not missing:
        return
    splits = load("ecg", validation=FOLDS[fold])
    control, _ = study_cell.train_control(config, splits)
    if (fold, "C0", None, None, None, None) not in store:
        store.append({"fold": fold, "cell": "C0", **dict.fromkeys(KEY[2:]), "counts": counts(control, splits)})
    for way in missing:
        cell = replace(next(cell for cell in cells() if cell.id == way["cell"]), distilled=way["taught"])
        recipe = replace(config.fine_tune, learning_rate=way["rate"], epochs=way["epochs"])
        model = study_cell.tuned(cell, control, splits, recipe, 0, way["granularity"])
        store.append({"fold": fold, **way, "counts": counts(model, splits)})
        print(json.dumps(way), flush=True)


def table(rows: list[dict]) -> str:
    lines = ["cell    granularity   rate   taught  epochs  folds  accuracy %  macro-F1   F1 of N, S, V, F"]
    for way in dict.fromkeys(tuple(row[name] for name in KEY[1:]) for row in rows):
        mine = [np.array(row["counts"]) for row in rows if tuple(row[name] for name in KEY[1:]) == way]
        total = sum(mine)
        f1 = 2 * np.diag(total) / (total.sum(0) + total.sum(1))
        each = "  ".join(f"{value:.3f}" for value in f1)
        name, granularity, rate, taught, epochs = (str("" if value is None else value) for value in way)
        lines.append(
            f"{name:7} {granularity:13} {rate:6} {taught:7} {epochs:>6} {len(mine):6}  "
            f"{100 * np.trace(total) / total.sum():9.2f}  {f1.mean():9.4f}   {each}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", default="0,1,2,3", help="several processes may do one each")
    options = parser.parse_args()
    training.pin_threads(1)
    store = Store(RESULTS, key=KEY)
    for fold in map(int, options.folds.split(",")):
        run_fold(fold, store)
    print(table(store.read()))
