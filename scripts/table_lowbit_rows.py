"""The rows of table_lowbit.py as tables: all in scripts/results/table_lowbit.md, full training in the README."""

from pathlib import Path

from readme_tables import into_readme
from table_pruning_rows import mean, points, times_less, validation_points

from android_bench.store import write_file

TABLE = Path(__file__).resolve().parent / "results" / "table_lowbit.md"
COLUMNS = ("bits", "method", "seeds", "validation points", "accuracy %", "points", "macro-F1", "levels a channel",
           "bytes", "packed", "fewer bytes, packed", "minutes")  # fmt: skip
ORDER = ("1", "ternary", "2", "3", "4")


def best_methods(rows: list[dict], net: str, width: str) -> list[str]:
    """The method that did best on validation data after training on a subset, and ADMM where it has this width."""
    tried = [row for row in rows if row["net"] == net and row["width"] == width and row["subset"]]
    if not tried:
        raise ValueError(f"No rows of {net}, width {width}, on a subset yet: run with --methods all --subset 6000.")
    names = [max(tried, key=lambda row: row["validation"])["method"]]
    return names + [name for name in {row["method"] for row in tried} if name == "admm" and name not in names]


def line(rows: list[dict]) -> str:
    first = rows[0]
    cells = [first["width"], f"`{first['method']}`", str(len(rows)), mean(rows, 2, validation_points, True, "+")]
    cells += [mean(rows, 2, lambda row: 100 * row["accuracy"], True), mean(rows, 2, points, True, "+")]
    cells += [mean(rows, 3, lambda row: row["macro_f1"], True), str(max(row["levels"] for row in rows))]
    weighed = [row for row in rows if "packed" in row and "packed" in row["control"]]
    if weighed:
        cells += [mean(weighed, 0, lambda row: row[key]) for key in ("bytes", "packed")]  # noqa: B023
        cells.append(mean(weighed, 1, times_less("packed")) + " x")
    else:
        cells += ["not measured"] * 3
    return "| " + " | ".join([*cells, mean(rows, 1, lambda row: row["seconds"] / 60)]) + " |"


def groups(rows: list[dict]) -> list[list[dict]]:
    """Rows of one width and method together: by width, then those first that do best on the validation set."""
    keys = {(row["width"], row["method"]) for row in rows}
    found = [[row for row in rows if (row["width"], row["method"]) == key] for key in keys]
    return sorted(found, key=lambda group: (ORDER.index(group[0]["width"]),
                                            -sum(map(validation_points, group)) / len(group)))  # fmt: skip


def table(rows: list[dict]) -> str:
    """Columns, the control's line and a line a method, for rows of one net and one amount of training data."""
    controls = {row["seed"]: row["control"] | {"control": row["control"]} for row in rows}
    float_rows = [row | dict(width="32", method="float32 control", levels=0, seconds=0) for row in controls.values()]
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|", line(float_rows)]
    return "\n".join([*lines, *map(line, groups(rows))]) + "\n"


def write_tables(rows: list[dict], readme: bool = False) -> None:
    text = ["# Low-bit weights, mean ± sd over seeds: all layers but the first and the last", ""]
    for net, subset in sorted({(row["net"], row["subset"]) for row in rows}):
        mine = [row for row in rows if (row["net"], row["subset"]) == (net, subset)]
        text += [f"## {net}, after the control: {subset or 'all'} training samples", "", table(mine), ""]
        if readme and not subset:
            into_readme(f"lowbit-{net}", table(mine))
    write_file(TABLE, "\n".join(text).encode())
