"""Heartbeats split by patient, both nets, several seeds: accuracy, macro-F1 and bytes as mean +- sd.

    TFCOMPRESS_DATA=... python scripts/table_ecg.py [--nets ecg_cnn,ecg_resnet] [--seeds 0,1,2] [--ids C0,Q8,...]

Each net and seed is a study in runs/table_ecg/<net>-<seed>; its rows are copied to scripts/results/table_ecg.jsonl when
it is done, and the table is scripts/results/table_ecg.md. Stopped or killed, the same command goes on.
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path

from android_bench.result import Result
from android_bench.store import Store, write_file
from tfcompress.study.grid import cells
from tfcompress.study.presets import PRESETS, StudyConfig
from tfcompress.study.report import CONTROL, headline
from tfcompress.study.run import run_study
from tfcompress.study.verdict import keeps_quality

IDS = "C0,Q8,P90Q8,Q8P90"
RESULTS = Path(__file__).parent / "results"


def config(net: str, seed: int, ids: list[str]) -> StudyConfig:
    base = PRESETS[{"ecg_cnn": "ecg_full"}.get(net, net)]
    return replace(base, name=f"{net}-{seed}", seed=seed, only=tuple(ids))


def collect(store: Store, net: str, seed: int, folder: Path) -> None:
    """Copy the rows of one study, with the net and the size of its Keras file beside them."""
    keras_bytes = json.loads((folder / "control.json").read_text())["keras_bytes"]
    for line in (folder / "rows.jsonl").read_text().splitlines():
        row = {"net": net, "study_seed": seed, "keras_bytes": keras_bytes, **json.loads(line)}
        known = next((old for old in store.read() if store.key_of(old) == store.key_of(row)), None)
        if known is None:
            store.append(row)
        elif known["model_sha256"] != row["model_sha256"]:
            raise SystemExit(f"{store.path} holds another {net}-{seed} {row['id']}: remove it to make the table anew.")


def spread(values, digits: int, scale: float = 1.0) -> str:
    values = [scale * value for value in values]
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):,.{digits}f} ± {deviation:,.{digits}f}"


COLUMNS = (
    "cell", "seeds", "accuracy %", "macro-F1", "macro-F1 - float's", "its standard error", "recalls N/S/V/F %",
    "bytes", "gzip",
    "saved: file vs .keras with slots", "saved: file vs float .tflite", "saved: gzip vs float .tflite", "p50 µs",
)  # fmt: skip


def table(rows: list[dict]) -> str:
    lines = ["# Heartbeats (MIT-BIH), split by patient (DS1/DS2), classes N S V F", ""]
    for net in dict.fromkeys(row["net"] for row in rows):
        mine = [row for row in rows if row["net"] == net]
        seeds = sorted({row["study_seed"] for row in mine})
        control = {row["study_seed"]: row for row in mine if row["id"] == CONTROL}
        lines += [f"## {net}, seeds {', '.join(map(str, seeds))}: mean ± sd", ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
        for id in (cell.id for cell in cells() if any(row["id"] == cell.id for row in mine)):
            cell = [row for row in mine if row["id"] == id]
            lines.append("| " + " | ".join(values(id, cell, [control[row["study_seed"]] for row in cell])) + " |")
        lines += ["", *picks(mine, seeds), ""]
    return "\n".join(lines)


def values(id: str, cell: list[dict], control: list[dict]) -> list[str]:
    """One line of the table: the rows of one cell over the seeds, beside the control's of the same seeds."""
    recalls = [f"{100 * statistics.mean(row['recalls'][name] for row in cell):.0f}" for name in cell[0]["recalls"]]
    pairs = list(zip(cell, control, strict=True))
    gained = [row["macro_f1"] - base["macro_f1"] for row, base in pairs]
    saved = (
        [1 - row["raw_bytes"] / row["keras_bytes"] for row in cell],
        [1 - row["raw_bytes"] / base["raw_bytes"] for row, base in pairs],
        [1 - row["gzip_bytes"] / base["raw_bytes"] for row, base in pairs],
    )
    return [
        id,
        str(len(cell)),
        spread([row["accuracy"] for row in cell], 2, 100),
        spread([row["macro_f1"] for row in cell], 3),
        "" if id == CONTROL else spread(gained, 4),
        f"{statistics.stdev(gained) / len(gained) ** 0.5:.4f}" if id != CONTROL and len(gained) > 1 else "",
        " / ".join(recalls),
        spread([row["raw_bytes"] for row in cell], 0),
        spread([row["gzip_bytes"] for row in cell], 0),
        *(f"{100 * statistics.mean(shares):.1f} %" for shares in saved),
        spread([row["latency_p50_us"] for row in cell], 1),
    ]


def pick_of_all(rows: list[dict]) -> str:
    """The report's rule on the means over the seeds: the smallest download that keeps the validation quality."""
    means, seeds = {}, {row["study_seed"] for row in rows}
    for id in dict.fromkeys(row["id"] for row in rows):
        cell = [row for row in rows if row["id"] == id]
        if len(cell) < len(seeds):
            continue
        scores = [row["facts"]["validation"] | {"test": row["macro_f1"], "gzip": row["gzip_bytes"]} for row in cell]
        means[id] = {name: statistics.mean(score[name] for score in scores) for name in scores[0]}
    control = means.pop(CONTROL)
    base = control["accuracy"], control["macro_f1"]
    kept = [id for id, mean in means.items() if keeps_quality(mean["accuracy"], mean["macro_f1"], *base)]
    if not kept:
        return "* over all seeds: no cell keeps the control's quality on the validation patients"
    best = min(kept, key=lambda id: means[id]["gzip"])
    gained, times = means[best]["test"] - control["test"], control["gzip"] / means[best]["gzip"]
    return (
        f"* over all seeds: validation patients pick {best}: test macro-F1 {gained:+.4f}, "
        f"gzip {times:.1f}x smaller than the control's"
    )


def picks(rows: list[dict], seeds) -> list[str]:
    """The cell that validation patients pick, over all seeds and for each, and what it does to the test patients."""
    lines = [pick_of_all(rows)]
    for seed in seeds:
        own = [{k: v for k, v in row.items() if k not in ("net", "study_seed", "keras_bytes")}
               for row in rows if row["study_seed"] == seed]  # fmt: skip
        best = headline([Result.from_json(json.dumps(row)) for row in own])
        if best is None:
            lines.append(f"* seed {seed}: no cell keeps the control's quality on the validation patients")
            continue
        lines.append(
            f"* seed {seed}: validation patients pick {best['id']}: test accuracy {best['points']:+.2f} points, "
            f"macro-F1 {best['f1']:+.3f}, gzip {best['download']:.1f}x smaller than the control's"
        )
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="ecg_cnn,ecg_resnet")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--ids", default=IDS, help="cells, C0 among them; 'all': the 18")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    ids = [] if options.ids == "all" else options.ids.split(",")
    store = Store(RESULTS / "table_ecg.jsonl", key=("net", "study_seed", "id"))
    for seed in map(int, options.seeds.split(",")):
        for net in options.nets.split(","):
            study = config(net, seed, ids)
            folder = Path("runs/table_ecg") / study.name
            run_study(study, folder, workers=options.workers)
            collect(store, net, seed, folder)
            rows = sorted(store.read(), key=lambda row: (row["net"], row["study_seed"]))
            write_file(RESULTS / "table_ecg.md", table(rows).encode())
            print(table(rows), flush=True)
