"""The rows of table_distill.py as tables: in scripts/results/table_distill.md, and in the README."""

from pathlib import Path
from statistics import fmean

from readme_tables import into_readme
from table_pruning_rows import mean

from android_bench.store import write_file
from tfcompress.study.students.summary import interval

TABLE = Path(__file__).resolve().parent / "results" / "table_distill.md"
COLUMNS = ("taught by", "seeds", "accuracy %", "points over no teacher, 95 % interval", "parameters", "MACs", "bytes",
           "minutes")  # fmt: skip
TITLES = {"clothes": "Fashion-MNIST, 6,000 images", "patients": "same patient or not, unseen patients"}


def gains(rows: list[dict], every: list[dict]) -> list[float]:
    """Points over the same seed's student of the same input without a teacher."""
    plain = {row["seed"]: row["accuracy"] for row in every
             if row["task"] == rows[0]["task"] and row["method"] == _plain(rows[0]["method"])}  # fmt: skip
    return [100 * (row["accuracy"] - plain[row["seed"]]) for row in rows if row["seed"] in plain]


def _plain(method: str) -> str:
    return "half none" if method.startswith("half") else "none"


def _place(rows: list[dict]):
    method = rows[0]["method"]
    return method.startswith("half"), method != _plain(method), -fmean(row["accuracy"] for row in rows)


def line(rows: list[dict], every: list[dict]) -> str:
    first, found = rows[0], gains(rows, every)
    own = first["method"] == _plain(first["method"])
    gain = "" if own or not found else interval(found).shown(2, sign=True)
    cells = [first["method"], str(len(rows)), mean(rows, 2, lambda row: 100 * row["accuracy"], True), gain]
    cells += [mean(rows, 0, lambda row: row[key]) for key in ("parameters", "macs", "bytes")]  # noqa: B023
    return "| " + " | ".join([*cells, mean(rows, 1, lambda row: row["seconds"] / 60)]) + " |"


def table(rows: list[dict]) -> str:
    """The teacher's line; no teacher, then the methods, the best first; the same with images of half the size."""
    teachers = list({row["seed"]: row for row in rows}.values())
    accuracy = mean(teachers, 2, lambda row: 100 * row["teacher"], True)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines.append(f"| the teacher itself | {len(teachers)} | {accuracy} |  | {teachers[0]['teacher_parameters']:,} | "
                 f"{teachers[0]['teacher_macs']:,} |  |  |")  # fmt: skip
    methods = {row["method"] for row in rows}
    found = [[row for row in rows if row["method"] == method] for method in methods]
    lines += [line(group, rows) for group in sorted(found, key=_place)]
    return "\n".join(lines) + "\n"


def write_tables(rows: list[dict], readme: bool = False) -> None:
    text = ["# Distillation: accuracy of the students' files, mean ± sd over seeds", ""]
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = table([row for row in rows if row["task"] == task])
        text += [f"## {task}: {TITLES[task]}", "", mine, ""]
        if readme:
            into_readme(f"distill-{task}", mine)
    write_file(TABLE, "\n".join(text).encode())
