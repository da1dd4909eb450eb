"""How the heartbeat study prunes, chosen on the patients of DS1 alone: four folds, the test patients unseen.

    TFCOMPRESS_DATA=... python scripts/choose_ecg.py        # resumes; rows in scripts/results/choose_ecg.jsonl

Each fold trains the control (`ecg_cnn`, one seed) on the other patients, prunes it to 90 % in each way (a first round
around 8 epochs of plain beats, then the chosen way and changes of it), and runs the pruned Keras model on its own
patients. KL(control || pruned) in nats decides: how far the pruned net's probabilities are from the control's, the mean
of each class's beats, then of the classes. The folds' hits, added up, stand beside it: F1 hangs on few patients (almost
all F beats of DS1 are one man's), and not on the pruning alone.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from android_bench.store import Store
from tfcompress import training
from tfcompress.datasets import ecg, load
from tfcompress.study import cell as study_cell
from tfcompress.study.grid import Distill, cells
from tfcompress.study.presets import PRESETS

RESULTS = Path(__file__).parent / "results" / "choose_ecg.jsonl"
OTHERS = [record for record in ecg.DS1 if record not in ecg.VALIDATION]
FOLDS = (ecg.VALIDATION, *(tuple(OTHERS[start::3]) for start in range(3)))
CONFIG = PRESETS["ecg_full"]
CHOSEN = {
    "granularity": CONFIG.granularity, "rate": CONFIG.learning_rates[0], "alpha": CONFIG.taught.alpha,
    "temperature": CONFIG.taught.temperature, "epochs": CONFIG.fine_tune.epochs, "mixup": CONFIG.fine_tune.mixup,
}  # fmt: skip
FIRST = {"granularity": "global", "rate": 1e-3, "alpha": 1.0, "temperature": 1.0, "epochs": 8, "mixup": 0.0}
CHANGES = (
    {}, {"granularity": "unstructured"}, {"rate": 3e-4}, {"rate": 3e-3}, {"epochs": 16},
    {"alpha": 0.0}, {"alpha": 0.9}, {"temperature": 4.0}, {"alpha": 0.9, "temperature": 4.0},
)  # fmt: skip
LONGER = ({}, {"epochs": 16}, {"epochs": 8}, {"epochs": 16, "mixup": 0.0}, {"epochs": 16, "rate": 1e-3})
WAYS = [
    {"cell": cell} | way
    for cell in ("P90Q8", "Q8P90")
    for way in (*(FIRST | change for change in CHANGES), *(CHOSEN | change for change in LONGER))
]
assert len({(*way.values(),) for way in WAYS}) == len(WAYS), "a way stands there twice"
KEY = ("fold", *WAYS[0])


def compare(model, expected, splits) -> dict:
    """The confusion matrix on the fold's own patients, and the distance from the control's probabilities there."""
    found = model.predict(splits.x_val, batch_size=512, verbose=0)
    counts = np.zeros((splits.classes, splits.classes), int)
    np.add.at(counts, (splits.y_val, found.argmax(1)), 1)
    apart = (expected * (np.log(expected + 1e-6) - np.log(np.clip(found, 1e-6, 1)))).sum(1)
    return {"counts": counts.tolist(), "kl": [float(apart[splits.y_val == c].mean()) for c in range(splits.classes)]}


def run_fold(fold: int, store: Store) -> None:
    missing = [way for way in WAYS if (fold, *way.values()) not in store]
    if not missing:
        return
    splits = load("ecg", validation=FOLDS[fold])
    control, _ = study_cell.train_control(CONFIG, splits)
    expected = control.predict(splits.x_val, batch_size=512, verbose=0)
    base = {"fold": fold, "cell": "C0", **dict.fromkeys(CHOSEN)}
    if store.key_of(base) not in store:
        store.append(base | compare(control, expected, splits))
    for way in missing:
        cell = next(cell for cell in cells() if cell.id == way["cell"])
        cell = replace(cell, taught=Distill(way["temperature"], way["alpha"]) if way["alpha"] else None)
        recipe = replace(CONFIG.fine_tune, learning_rate=way["rate"], epochs=way["epochs"], mixup=way["mixup"])
        model = study_cell.tuned(cell, control, splits, recipe, 0, way["granularity"])
        store.append({"fold": fold, **way} | compare(model, expected, splits))
        print(json.dumps(way), flush=True)


def distance(rows: list[dict]) -> float:
    """KL of all the folds' beats together: the mean of each class, then of the classes."""
    beats = np.array([np.sum(row["counts"], axis=1) for row in rows])
    return float(((beats * [row["kl"] for row in rows]).sum(0) / beats.sum(0)).mean())


def table(rows: list[dict]) -> str:
    lines = [
        "cell   granularity   rate   teacher  T    epochs  mixup  folds  KL      accuracy %  macro-F1  F1 of N, S, V, F"
    ]
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in KEY[1:]), []).append(row)
    for way, mine in sorted(groups.items(), key=lambda group: (group[0][0], distance(group[1]))):
        total = sum(np.array(row["counts"]) for row in mine)
        f1 = 2 * np.diag(total) / (total.sum(0) + total.sum(1))
        cell, granularity, rate, alpha, temperature, epochs, mixup = ("" if value is None else value for value in way)
        lines.append(
            f"{cell:6} {granularity:13} {rate:<6} {alpha:<8} {temperature:<4} {epochs:<7} {mixup:<6} {len(mine):<6} "
            f"{distance(mine):.4f}  {100 * np.trace(total) / total.sum():<11.2f} {f1.mean():.4f}"
            + " ".join(["   ", *(f"{value:.3f}" for value in f1)])
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
