"""Beside coverage.py: which of tf_keras's 17 families does TFMOT's own pruning take, and which its own QAT?

    nice -n 5 python scripts/coverage_tfmot.py [FAMILY ...] [--columns prune,qat,ours] [--again]

"Taken" means that ``prune_low_magnitude(model)`` and ``quantize_model(model)`` return; else the row holds the error's
first line. The column "ours" brings the model over with ``from_tf_keras`` (which compares the answers of both), and
then compresses, strips and ``quantize_aware``s it. Rows: scripts/results/coverage_tfmot.jsonl, a process each.
"""

import argparse
import json
import os
import re
import sys
import warnings

from coverage import FAMILIES, RESULTS, fill
from coverage_columns import CLASSES, SIZE

from android_bench.store import Store, write_file

MORE = {"RegNetX002": "regnet", "ResNetRS50": "resnet_rs"}  # tf_keras has them, Keras 3 has not


def build(family):
    import tf_keras

    home = getattr(tf_keras.applications, MORE[family]) if family in MORE else tf_keras.applications
    return getattr(home, family)(weights=None, input_shape=(SIZE, SIZE, 3), classes=CLASSES)


def prune(family):
    import tensorflow_model_optimization as tfmot

    return {"layers": len(tfmot.sparsity.keras.prune_low_magnitude(build(family)).layers)}


def qat(family):
    import tensorflow_model_optimization as tfmot

    return {"layers": len(tfmot.quantization.keras.quantize_model(build(family)).layers)}


def ours(family):
    from tfcompress import OneShot, Prune, compress, from_tf_keras, quantize_aware, strip

    model = from_tf_keras(build(family))
    strip(compress(model, Prune(OneShot(0.5))))
    return {"layers": len(model.layers), "aware_layers": len(quantize_aware(model).layers)}


COLUMNS = {"prune": prune, "qat": qat, "ours": ours}


def child(family, column):
    """Make one row and print it as the last line."""
    warnings.simplefilter("ignore")
    if column != "ours":
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
    try:
        figures = COLUMNS[column](family)
    except Exception as error:  # noqa: BLE001 - whatever went wrong is the row
        figures = {"reason": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
    print(json.dumps(figures))


def short(reason):
    """The layer in the way, where the error names one; else how it begins."""
    found = re.search(r"<class '[\w.]*?(\w+)'>|calling layer \"([^\"]+)\"", reason)
    return next(name for name in found.groups() if name) if found else reason[:90]


def table(rows):
    """A line a family, with the first line of the error where one is in the way."""
    found = {(row["family"], row["column"]): row for row in rows}
    titles = ("tf_keras family", "TFMOT pruning", "TFMOT QAT", "`from_tf_keras`, compress, strip, QAT")
    lines, counts = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"], dict.fromkeys(COLUMNS, 0)
    for family in [*FAMILIES, *MORE]:
        words = []
        for column in COLUMNS:
            row = found.get((family, column))
            words.append("not run" if row is None else "yes" if row["ok"] else f"no: `{short(row['reason'])}`")
            counts[column] += words[-1] == "yes"
        lines.append(f"| {family} | " + " | ".join(words) + " |")
    return "\n".join([*lines, "| **of 17** | " + " | ".join(f"**{n}**" for n in counts.values()) + " |"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY")
    parser.add_argument("--columns", default=",".join(COLUMNS))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    families = options.families or [*FAMILIES, *MORE]
    keys = [{"family": family, "column": column} for family in families for column in options.columns.split(",")]
    store = Store(RESULTS / "coverage_tfmot.jsonl", key=("family", "column"))
    fill(store, keys, lambda key: [__file__, "--child", *key.values()], options.again)
    write_file(RESULTS / "coverage_tfmot.md", table(store.read()).encode())
    print(table(store.read()))


if __name__ == "__main__":
    sys.exit(main())
