"""One self-contained HTML page (and a CSV beside it) from the rows of a study."""

import json
from pathlib import Path

import jinja2
import plotly.offline

from android_bench.result import Result, to_csv
from android_bench.store import write_file

from . import figures
from .verdict import gain, judge, keeps_quality

CONTROL = "C0"


def write_report(rows: list[Result], path, *, title: str = "Compression study", about: dict | None = None) -> Path:
    """Write `path` (.html, opens without a network) and the same rows as `.csv` beside it; returns `path`.

    `about` is shown under "What was run, and on what": words -> words. ValueError without rows or without a control.
    """
    controls = {row.device: row for row in rows if row.id == CONTROL}
    missing = sorted({row.device for row in rows} - set(controls))
    if missing or not rows:
        raise ValueError(
            f"A report compares with the control: expected a row {CONTROL} for each device. "
            f"Received {len(rows)} rows, none of them {CONTROL} on {missing or 'any device'}."
        )
    environment = jinja2.Environment(loader=jinja2.PackageLoader("tfcompress.study", "."), autoescape=True)
    page = environment.get_template("report.html.j2").render(
        title=title,
        about=about or {},
        headline=headline(rows),
        lines=[_line(row, controls[row.device]) for row in rows],
        devices=list(controls),
        matrix=_matrix(rows, controls),
        emulated=[device for device, row in controls.items() if row.device_kind == "emulated"],
        samples=next((row.facts["eval_samples"] for row in rows if (row.facts or {}).get("eval_samples")), None),
        unit=_time_unit(controls)[0],
        charts={name: _json(chart) for name, chart in _charts(rows, controls).items()},
        plotly_js=plotly.offline.get_plotlyjs(),
    )
    path = Path(path)
    write_file(path, page.encode())
    write_file(path.with_suffix(".csv"), to_csv(rows).encode())
    return path


def headline(rows: list[Result]) -> dict | None:
    """The best pick: the smallest download among the cells that keep the control's quality; on the first device.

    Cells are picked on *validation* data where the rows have it (`facts["validation"]`), and `by` says which.
    """
    rows = [row for row in rows if row.device == rows[0].device]
    control = next(row for row in rows if row.id == CONTROL)
    by = "validation" if all((row.facts or {}).get("validation") for row in rows) else "test"
    kept = [row for row in rows if row.id != CONTROL and row.gzip_bytes and _keeps(row, control, by)]
    if not kept or not control.gzip_bytes:
        return None
    best = min(kept, key=lambda row: (row.gzip_bytes, row.latency_p50_us or 0))
    return {
        "id": best.id,
        "recipe": best.recipe,
        "by": by,
        "holds": _keeps(best, control, "test"),
        "device": best.device,
        "smaller": gain(control.raw_bytes, best.raw_bytes),
        "download": gain(control.gzip_bytes, best.gzip_bytes),
        "faster": gain(control.latency_p50_us, best.latency_p50_us),
        "points": None if best.accuracy is None else 100 * (best.accuracy - control.accuracy),
        "f1": None if best.macro_f1 is None or control.macro_f1 is None else best.macro_f1 - control.macro_f1,
        "bytes": (control.raw_bytes, best.raw_bytes),
    }


def _keeps(row, control, by):
    if by == "test":
        return keeps_quality(row.accuracy, row.macro_f1, control.accuracy, control.macro_f1)
    mine, base = row.facts["validation"], control.facts["validation"]
    return keeps_quality(mine.get("accuracy"), mine.get("macro_f1"), base.get("accuracy"), base.get("macro_f1"))


def _line(row: Result, control: Result) -> dict:
    """What the table shows of a row: the row itself, its verdict and its gains."""
    return {
        "row": row,
        "facts": row.facts or {},
        "verdict": judge(row, control),
        "download": gain(control.gzip_bytes, row.gzip_bytes),
        "packed": gain(control.raw_bytes, row.packed_bytes),
        "faster": gain(control.latency_p50_us, row.latency_p50_us),
        "points": None if row.delta_accuracy is None else 100 * row.delta_accuracy,
    }


def _matrix(rows: list[Result], controls: dict[str, Result]) -> list[tuple[str, list]]:
    """For each cell its row on each device (None where it was not measured there); empty for one device."""
    if len(controls) < 2:
        return []
    found = {(row.id, row.device): row for row in rows}
    return [(id, [found.get((id, device)) for device in controls]) for id in dict.fromkeys(row.id for row in rows)]


def _time_unit(controls) -> tuple[str, float]:
    slowest = max((row.latency_p50_us or 0 for row in controls.values()), default=0)
    return ("ms", 1000.0) if slowest >= 1000 else ("µs", 1.0)


def _charts(rows, controls) -> dict:
    unit, scale = _time_unit(controls)
    first = [row for row in rows if row.device == rows[0].device]
    quality = "macro_f1" if all(row.macro_f1 is not None for row in first) else "accuracy"
    name = {"macro_f1": "Macro-F1 ×100", "accuracy": "Accuracy %"}
    charts = {
        "Accuracy against download size": figures.scatter(
            first, "gzip_bytes", "accuracy", "gzip kB", name["accuracy"], 1000
        ),
        "Accuracy against file size": figures.scatter(first, "raw_bytes", "accuracy", "kB", name["accuracy"], 1000),
    }
    for device in controls:
        mine = [row for row in rows if row.device == device]
        charts[f"Accuracy against time on {device}"] = figures.scatter(
            mine, "latency_p50_us", "accuracy", f"median {unit} a run", name["accuracy"], scale
        )
    if quality == "macro_f1":
        charts["Macro-F1 against download size"] = figures.scatter(
            first, "gzip_bytes", "macro_f1", "gzip kB", name["macro_f1"], 1000
        )
    charts["Recall of each class, %"] = figures.heat_map(first)
    return {title: chart for title, chart in charts.items() if chart and chart["data"]}


def _json(chart: dict) -> str:
    return json.dumps(chart).replace("</", "<\\/")
