"""The rows of table_pruning.py as tables: all in scripts/results/table_pruning.md, the main ones in the README."""

import statistics
from pathlib import Path

from readme_tables import into_readme

from android_bench.store import write_file

TABLE = Path(__file__).resolve().parent / "results" / "table_pruning.md"
COLUMNS = (
    "criterion", "seeds", "validation points", "accuracy %", "points", "macro-F1", "MACs", "bytes", "gzip", "µs",
    "fewer MACs", "fewer bytes", "fewer bytes, gzip", "faster", "minutes",
)  # fmt: skip


def write_tables(rows: list[dict], readme: bool = False) -> None:
    write_file(TABLE, table(rows).encode())
    if readme:
        into_readme("pruning", short(rows))


def mean(rows: list[dict], digits: int, value, spread: bool = False, sign: str = "") -> str:
    """The mean of ``value(row)``, with its standard deviation where asked for and there are several."""
    values = [value(row) for row in rows]
    deviation = f" ± {statistics.stdev(values):,.{digits}f}" if spread and len(values) > 1 else ""
    return f"{statistics.mean(values):{sign},.{digits}f}{deviation}"


def points(row: dict, of: str = "accuracy") -> float:
    return 100 * (row[of] - row["control"][of])


def validation_points(row: dict) -> float:
    return points(row, "validation")


def times_less(key: str):
    return lambda row: row["control"][key] / row[key]


def line(name: str, rows: list[dict]) -> str:
    cells = [name, str(len(rows)), mean(rows, 2, validation_points, True, "+")]
    cells += [mean(rows, 2, lambda row: 100 * row["accuracy"], True), mean(rows, 2, points, True, "+")]
    cells += [mean(rows, 3, lambda row: row["macro_f1"], True)]
    amounts = {"macs": 0, "bytes": 0, "gzip": 0, "us": 1}
    cells += [mean(rows, digits, lambda row: row[key]) for key, digits in amounts.items()]  # noqa: B023
    cells += [mean(rows, 1, times_less(key)) + " x" for key in amounts]
    return "| " + " | ".join([*cells, mean(rows, 1, lambda row: row["seconds"] / 60)]) + " |"


def groups(rows: list[dict]) -> list[list[dict]]:
    """Rows of one criterion together, those first that do best on the validation set."""
    found = [[row for row in rows if row["criterion"] == name] for name in {row["criterion"] for row in rows}]
    return sorted(found, key=lambda group: -statistics.mean(map(validation_points, group)))


def short(rows: list[dict]) -> str:
    """The README's table: trained on all samples, the control first."""
    lines = ["| data, net | file | seeds | accuracy % | points | macro-F1 | bytes | fewer bytes | µs | faster |"]
    lines.append("|---" * 10 + "|")
    for data, net in sorted({(row["data"], row["net"]) for row in rows if not row["subset"]}, reverse=True):
        mine = [row for row in rows if (row["data"], row["net"], row["subset"]) == (data, net, 0)]
        controls = list({row["seed"]: row["control"] | {"control": row["control"]} for row in mine}.values())
        for name, group in [("float32 control", controls), *((g[0]["criterion"], g) for g in groups(mine))]:
            name = {"none": "int8 alone", "float32 control": name}.get(name, f"`{name}`, int8")
            cells = [f"{data}, `{net}`", name, str(len(group)), mean(group, 2, lambda row: 100 * row["accuracy"])]
            cells += [mean(group, 2, points, True, "+"), mean(group, 3, lambda row: row["macro_f1"])]
            for key, digits in (("bytes", 0), ("us", 1)):
                cells += [mean(group, digits, lambda row: row[key]), mean(group, 1, times_less(key)) + " x"]  # noqa: B023
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def table(rows: list[dict]) -> str:
    lines = ["# Filter pruning, then int8 (host, 1 thread, XNNPACK), mean ± sd over seeds", ""]
    for part in sorted({(row["data"], row["net"], row["subset"]) for row in rows}):
        mine = [row for row in rows if (row["data"], row["net"], row["subset"]) == part]
        lines += [f"## {part[0]}, {part[1]}, after the control: {part[2] or 'all'} training samples", ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
        controls = {row["seed"]: row["control"] | {"control": row["control"], "seconds": 0} for row in mine}
        lines.append(line("control, float32", list(controls.values())))
        lines += [*(line(group[0]["criterion"], group) for group in groups(mine)), ""]
    return "\n".join(lines)
