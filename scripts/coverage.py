"""Does it work on every family of keras.applications? One model each, random weights: structure, no accuracy claims.

    nice -n 5 python scripts/coverage.py [FAMILY ...] [--columns strip,qat]    resumes; prints the table
    python scripts/coverage.py --again [FAMILY ...] [--columns ...]            makes the rows that failed anew

A row is a family and a column (coverage_columns.py), made in a process of its own: a crash, a hang or an error is a
row, not the end. Rows go to scripts/results/coverage.jsonl, the README's table to scripts/results/coverage.md. TFMOT's
side of it: coverage_tfmot.py.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

from coverage_columns import COLUMNS, LEAST_DB, first_line
from readme_tables import into_readme

import tfcompress
from android_bench.store import Store, write_file

RESULTS = Path(__file__).resolve().parent / "results"
FAMILIES = """MobileNet MobileNetV2 MobileNetV3Small MobileNetV3Large EfficientNetB0 EfficientNetV2B0 ResNet50
    ResNet50V2 DenseNet121 NASNetMobile InceptionV3 InceptionResNetV2 Xception VGG16 ConvNeXtTiny""".split()
SECONDS = 1800  # a row may take


# ---- one row a process ----------------------------------------------------------------------------------------------
def child(family, column):
    """Make one row's figures and print them as the last line."""
    warnings.simplefilter("ignore")
    try:
        figures = COLUMNS[column](family)
    except Exception as error:  # noqa: BLE001 - whatever went wrong is the row
        figures = {"reason": f"{type(error).__name__}: {first_line(error)}"}
    print(json.dumps(figures | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


def run(command, key):
    """The row of a child process: what its last line says, or how it ended."""
    environment = {"TF_NUM_INTRAOP_THREADS": "1"} | os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    started, done, figures = time.perf_counter(), None, {}
    try:
        done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True,
                              timeout=SECONDS)  # fmt: skip
        figures = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        figures["reason"] = f"not done after {SECONDS} s"
    except (IndexError, ValueError):
        figures["reason"] = f"ended with code {done.returncode}: {done.stderr.strip()[-300:]}"
    reason = figures.pop("reason", None)
    return key | {"ok": reason is None, "reason": reason, "seconds": round(time.perf_counter() - started, 1)} | figures


def fill(store, keys, command, again=False):
    """Make the rows that are not there yet; with ``again`` also those that failed."""
    if again:
        asked = [tuple(key.values()) for key in keys]
        store.rewrite([row for row in store.read() if row["ok"] or store.key_of(row) not in asked])
    for key in keys:
        if tuple(key.values()) not in store:
            row = run(command(key), key)
            store.append(row)
            print(*key.values(), "ok" if row["ok"] else row["reason"], f"{row['seconds']} s", flush=True)


# ---- the table ------------------------------------------------------------------------------------------------------
def table(rows):
    """The README's table: a line a family, a count at the end, below it what is in the way where something fails."""
    found = {(row["family"], row["column"]): row for row in rows}
    titles = ("compress, strip", "filters removed: MACs gone", "QAT: file and Keras", "six precisions",
              "both runtimes, both kernel sets")  # fmt: skip
    lines = ["| family | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    counts, failures = [0] * len(titles), []
    for family in FAMILIES:
        cells = []
        for at, (column, good, figure) in enumerate(VIEWS):
            row = found.get((family, column))
            ok = row is not None and good(row)
            counts[at] += ok
            cells.append(figure(row) if ok else "not run" if row is None else "**no**")
            if row is not None and not ok:
                failures.append(f"* {family}, {titles[at]}: {row['reason']}")
        lines.append(f"| {family} | " + " | ".join(cells) + " |")
    lines.append("| **of 15** | " + " | ".join(f"**{count}**" for count in counts) + " |")
    return "\n".join([*lines, *([""] + list(dict.fromkeys(failures)) if failures else [])]) + "\n"


def decibels(row):
    return " / ".join(f"{row[precision]['snr_db']:.0f}" for precision in LEAST_DB) + " dB"


def runs(row):
    """Files that ran, settings each ran in."""
    return [row.get(precision, {}).get("settings", 0) for precision in LEAST_DB]


VIEWS = (
    ("strip", lambda row: row["ok"], lambda row: f"{row['tensors']} tensors"),
    ("filters", lambda row: row["ok"], lambda row: f"{row['gone']:.0%}"),
    ("qat", lambda row: row["ok"], lambda row: f"{row['largest_difference']:.0f} LSB, {row['snr_db']:.0f} dB"),
    ("precisions", lambda row: row["ok"], decibels),
    ("precisions", lambda row: min(runs(row)) == 4, lambda row: "6 × 4"),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY")
    parser.add_argument("--columns", default=",".join(COLUMNS))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    families = options.families or FAMILIES
    columns = [c for c in options.columns.split(",") if c != "filters" or "prune_filters" in tfcompress.__all__]
    keys = [{"family": family, "column": column} for family in families for column in columns]
    store = Store(RESULTS / "coverage.jsonl", key=("family", "column"))
    fill(store, keys, lambda key: [__file__, "--child", *key.values()], options.again)
    text = table(store.read())
    write_file(RESULTS / "coverage.md", text.encode())
    into_readme("coverage", text)
    print(text)


if __name__ == "__main__":
    main()
