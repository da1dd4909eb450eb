"""Every task with its default net, data and recipe: the metric of the float and the int8 `.tflite` file.

    python scripts/table_tasks.py [--tasks ocr,detection] [--seeds 0]

A row goes to scripts/results/tasks.jsonl when it is known, the table to scripts/results/tasks.md; the same command
goes on where it was stopped.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from android_bench.store import Store, write_file
from tfcompress import convert, measure, tasks
from tfcompress.training import pin_threads

RESULTS = Path(__file__).parent / "results"
OTHER = [("regression", "auto_mpg", {"epochs": 100})]       # a second set of data, with what its recipe has instead


def measured(name: str, data_name: str, changed: dict, seed: int) -> dict:
    """One training and its two files."""
    task = tasks.TASKS[name]
    data = tasks.load(name, data_name)
    model = task.model(data, seed)
    recipe = replace(task.recipe, **changed)
    start = time.time()
    tasks.fit(model, task, data, recipe, seed=seed)
    seconds = time.time() - start
    shipped = task.export(model)
    row = {"task": name, "data": data_name, "seed": seed, "metric": task.metric, "net": model.name,
           "parameters": shipped.count_params(), "epochs": recipe.epochs, "seconds": round(seconds, 1),
           "test": len(data.x_test), "higher_is_better": task.higher_is_better}
    for precision in ("float32", "int8"):
        file = convert(shipped, precision, calibration=data.x_train[:200] if precision == "int8" else None)
        row[precision] = task.score(measure.run(file, data.x_test), data.y_test)
        row[f"{precision}_bytes"] = file.size
        row[f"{precision}_notes"] = list(file.gate.notes)
    return row


def table(rows: list[dict]) -> str:
    columns = ("task", "data", "net", "parameters", "metric", "seeds", "float", "int8", "bytes float", "bytes int8",
               "seconds to train")
    lines = ["# Tasks: default net, data and recipe; metric of the .tflite files on the test data", "",
             "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for key in dict.fromkeys((row["task"], row["data"]) for row in rows):
        own = [row for row in rows if (row["task"], row["data"]) == key]
        one = own[0]
        values = [*key, one["net"], f"{one['parameters']:,}", one["metric"], str(len(own)),
                  *(spread([row[precision] for row in own]) for precision in ("float32", "int8")),
                  f"{one['float32_bytes']:,}", f"{one['int8_bytes']:,}",
                  f"{np.mean([row['seconds'] for row in own]):.0f}"]
        lines.append("| " + " | ".join(values) + " |")
    notes = dict.fromkeys(f"* {row['task']}: {note}" for row in rows for note in row["int8_notes"])
    return "\n".join([*lines, "", *notes, ""])


def spread(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{deviation}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(tasks.TASKS))
    parser.add_argument("--seeds", default="0")
    options = parser.parse_args()
    pin_threads(1)
    store = Store(RESULTS / "tasks.jsonl", key=("task", "data", "seed"))
    chosen = options.tasks.split(",")
    first = [(name, next(iter(tasks.TASKS[name].datasets)), {}) for name in chosen]
    for seed in map(int, options.seeds.split(",")):
        for name, data_name, changed in first + [other for other in OTHER if other[0] in chosen]:
            if (name, data_name, seed) not in store:
                store.append(measured(name, data_name, changed, seed))
            write_file(RESULTS / "tasks.md", table(store.read()).encode())
    print(table(store.read()))
