"""One self-contained HTML page about a job: what each stage cost and saved, and what ships."""

import json
from pathlib import Path

import jinja2
import plotly.offline
import yaml

from android_bench.store import Store, write_file
from tfcompress import tasks
from tfcompress.job import plan
from tfcompress.job.folder import in_words

FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": "#374151"}
LAYOUT = {"font": FONT, "paper_bgcolor": "white", "plot_bgcolor": "white", "height": 360, "showlegend": False,
          "margin": {"l": 64, "r": 24, "t": 12, "b": 56}}
AXIS = {"gridcolor": "#eef0f3", "zeroline": False}
COLOURS = {True: "#059669", False: "#d1d5db"}
COLUMNS = ("score", "loss", "allowed", "bytes", "packed_bytes", "macs", "seconds")
_ROOM = Path(__file__).parent


def write_report(folder, resolved, data, rows, bench):
    """Write ``report.html`` (opens without a network); returns its path.

    Args:
        rows: of the control, the stages and the file that ships; bench: the row of its last measurement.
    """
    task, path = tasks.find(resolved["job"]["task"]), Path(folder) / "report.html"
    rows = [row | {"stage": in_words(row["stage"])} for row in rows]
    trials = Store(Path(folder) / "trials.jsonl", key=("number",)).read()
    charts = {"Packed bytes, stage by stage": _bytes(rows), f"{task.metric} on validation data": _scores(rows)}
    if trials:
        charts["Trials"] = _trials(trials, resolved["drop"])
    loader = jinja2.FileSystemLoader([_ROOM, _ROOM.parent / "study"])
    page = jinja2.Environment(loader=loader, autoescape=True).get_template("job.html.j2").render(
        title=f"{task.name.replace('_', ' ').capitalize()} of {data.name}: one job", data=data, task=task,
        rows=[dict.fromkeys(COLUMNS) | row for row in rows],
        doubt=plan.doubt(resolved["job"]["model"], data), allowed=plan.ALLOWED, bench=bench, resolved=resolved,
        yaml=yaml.safe_dump(resolved, sort_keys=False, width=100), trials=len(trials),
        settings=[_settings(stage) for stage in resolved["stages"]],
        charts={name: json.dumps(chart).replace("</", "<\\/") for name, chart in charts.items()},
        plotly_js=plotly.offline.get_plotlyjs(),
    )
    write_file(path, page.encode())
    return path


def _settings(stage):
    told = [f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in stage.items() if name not in ("stage", "kept", "how")]
    return stage["stage"], ", ".join(told).replace("_", " ")


def _bytes(rows):
    shown = [row for row in rows if "packed_bytes" in row]
    return {"data": [{"type": "bar", "x": [row["stage"] for row in shown],
                      "y": [row["packed_bytes"] / 1000 for row in shown],
                      "marker": {"color": ["#111827", *(COLOURS[row["kept"]] for row in shown[1:])]},
                      "text": [f"{row['packed_bytes'] / 1000:,.1f}" for row in shown], "textposition": "outside",
                      "cliponaxis": False, "hovertext": [row["why"] for row in shown], "hoverinfo": "text+x"}],
            "layout": LAYOUT | {"xaxis": {}, "yaxis": AXIS | {"title": "kB", "rangemode": "tozero"}}}


def _scores(rows):
    shown = [row for row in rows if "score" in row]
    first = shown[0]["score"]
    dots = {"type": "scatter", "mode": "markers+lines", "x": [row["stage"] for row in shown],
            "y": [row["score"] for row in shown], "line": {"color": "#9ca3af", "dash": "dot"},
            "marker": {"size": 12, "color": ["#111827", *(COLOURS[row["kept"]] for row in shown[1:])],
                       "line": {"color": "#6b7280", "width": 1}},
            "hovertext": [row["why"] for row in shown], "hoverinfo": "text+y"}
    level = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": first, "y1": first,
             "line": {"color": "#111827", "width": 1, "dash": "dash"}}
    return {"data": [dots], "layout": LAYOUT | {"xaxis": {}, "yaxis": AXIS, "shapes": [level]}}


def _trials(trials, drop):
    done = [row for row in trials if "error" not in row]
    dots = {"type": "scatter", "mode": "markers+text", "x": [row["cost"] for row in done],
            "y": [row["loss"] for row in done], "text": [str(row["number"]) for row in done],
            "textposition": "top center", "hoverinfo": "text",
            "hovertext": [", ".join(f"{k} {v}" for k, v in row["settings"].items()) for row in done],
            "marker": {"size": 11, "color": [COLOURS[row["loss"] <= drop] for row in done],
                       "line": {"color": "#6b7280", "width": 1}}}
    level = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": drop, "y1": drop,
             "line": {"color": "#dc2626", "width": 1, "dash": "dash"}}
    return {"data": [dots], "layout": LAYOUT | {"xaxis": AXIS | {"title": "cost", "rangemode": "tozero"},
                                                "yaxis": AXIS | {"title": "lost"}, "shapes": [level]}}
