"""The rows of table_joint.py as a table: scripts/results/table_joint.md, and the README."""

from pathlib import Path

from readme_tables import into_readme
from table_pruning_rows import mean

from android_bench.store import write_file

TABLE = Path(__file__).resolve().parent / "results" / "table_joint.md"
COLUMNS = ("net", "control", "parameters", "seeds", "float32 accuracy %", "points", "zeros %", "float32 .tflite",
           "exact .tflite", "gzip", "packed", "order-0 entropy", "times smaller")  # fmt: skip


def points(row: dict) -> float:
    return 100 * (row["accuracy"] - row["control_accuracy"])


def line(rows: list[dict]) -> str:
    first = rows[0]
    cells = [f"`{first['net']}`", first["size"], f"{first['parameters']:,}", str(len(rows))]
    cells += [mean(rows, 2, lambda row: 100 * row["control_accuracy"], True), mean(rows, 2, points, True, "+")]
    cells += [mean(rows, 1, lambda row: 100 * row["sparsity"])]
    for key in ("float_bytes", "exact_bytes", "gzip_bytes", "packed_bytes", "entropy_bytes"):
        cells.append(mean(rows, 0, lambda row: row[key]))  # noqa: B023
    return "| " + " | ".join([*cells, mean(rows, 1, lambda row: row["ratio"]) + " x"]) + " |"


def table(rows: list[dict]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for key in sorted({(row["net"], row["size"], row["asked"]) for row in rows}):
        lines.append(line([row for row in rows if (row["net"], row["size"], row["asked"]) == key]))
    return "\n".join(lines) + "\n"


def write_tables(rows: list[dict], readme: bool = False) -> None:
    write_file(TABLE, ("# Pruned, 3 bits by ADMM, packed: mean ± sd over seeds\n\n" + table(rows)).encode())
    if readme:
        into_readme("joint", table(rows))
