"""The rows of table_lowrank.py as tables: all in scripts/results/table_lowrank.md, and in the README."""

from pathlib import Path

from readme_tables import into_readme
from table_pruning_rows import mean

from android_bench.store import write_file

TABLE = Path(__file__).resolve().parent / "results" / "table_lowrank.md"
COLUMNS = ("MACs asked", "kind", "file", "seeds", "validation points", "accuracy %", "points", "macro-F1", "MACs",
           "fewer MACs", "bytes", "fewer bytes", "µs, of the control's in the same turns", "faster",
           "accuracy % before training", "minutes")  # fmt: skip


def best_kind(rows: list[dict], net: str, share: float) -> str:
    """The kind that did best on the validation data of seed 0 at this share, as a float32 file."""
    tried = [row for row in rows if (row["net"], row["seed"], row["share"]) == (net, 0, share)
             and "float32" in row]
    if not tried:
        raise ValueError(f"No rows of {net} at {share} of the MACs yet: run with --kinds all --seeds 0.")
    return max(tried, key=lambda row: row["float32"]["validation"])["kind"]


def line(rows: list[dict], file: str = "float32") -> str:
    def points(key):
        return mean(rows, 2, lambda row: 100 * (row[file][key] - row["control"][key]), True, "+")

    def less(key):
        return mean(rows, 2, lambda row: row["control"][key] / row[file][key]) + " x"

    first, whole = rows[0], file.startswith("control")
    cells = ["1" if whole else f"{first['share']:g}", "" if whole else f"`{first['kind']}`",
             file.replace("control int8", "int8 control"), str(len(rows)), points("validation")]  # fmt: skip
    cells += [mean(rows, 2, lambda row: 100 * row[file]["accuracy"], True), points("accuracy")]
    cells.append(mean(rows, 3, lambda row: row[file]["macro_f1"], True))
    cells += [mean(rows, 0, lambda row: row[file]["macs"]), less("macs")]
    cells += [mean(rows, 0, lambda row: row[file]["bytes"]), less("bytes")]
    of = "" if whole else f" of {mean(rows, 1, lambda row: row['control']['us'])}"
    cells += [mean(rows, 1, lambda row: row[file]["us"]) + of, less("us")]
    if whole:
        return "| " + " | ".join([*cells, "", ""]) + " |"
    cells.append(mean(rows, 1, lambda row: 100 * row["untrained"]) if "untrained" in first else "")
    return "| " + " | ".join([*cells, mean(rows, 1, lambda row: row["seconds"] / 60)]) + " |"


def groups(rows: list[dict]) -> list[list[dict]]:
    """Rows of one share and kind together: by share, then those first that do best on the validation set."""
    keys = sorted({(-row["share"], row["kind"]) for row in rows})
    found = [[row for row in rows if (-row["share"], row["kind"]) == key] for key in keys]
    return sorted(found, key=lambda group: (-group[0]["share"], -sum(
        row[files(row)[0]]["validation"] - row["control"]["validation"] for row in group) / len(group)))  # fmt: skip


def files(row: dict) -> list[str]:
    """A row's own files: quantization-aware training makes no float32."""
    return [name for name in ("float32", "int8") if name in row]


def table(rows: list[dict]) -> str:
    """The controls' lines, then those of each kind: the float32 and the int8 file."""
    seeds = {row["seed"]: row for row in rows}
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += [line(list(seeds.values()), name) for name in ("control", "control int8")]
    lines += [line(group, name) for group in groups(rows) for name in files(group[0])]
    return "\n".join(lines) + "\n"


def write_tables(rows: list[dict], readme: bool = False) -> None:
    text = ["# Low rank: accuracy, bytes and time of the files, mean ± sd over seeds", ""]
    for net in sorted({row["net"] for row in rows}):
        mine = table([row for row in rows if row["net"] == net])
        text += [f"## {net}", "", mine, ""]
        if readme:
            into_readme(f"lowrank-{net}", mine)
    write_file(TABLE, "\n".join(text).encode())
