"""The charts of a warming phone, as plotly dictionaries."""

from android_bench.report.fields import facts, labels, repetitions, sustained_at
from android_bench.report.figures import BAD, as_text, layout_of
from android_bench.result import Result

KINDS = {"skin": ("#ea580c", "skin"), "battery": ("#2563eb", "battery"), "cpu": ("#6b7280", "processor")}
MINUTES = (1, 5, 30)


def heat(rows: list[Result]) -> dict | None:
    """Temperatures before and after every job of one device, in the order in which they ran; throttled ones marked."""
    jobs = [(run, name) for name, row in zip(labels(rows), rows, strict=True) for run in repetitions(row)]
    jobs = sorted((job for job in jobs if job[0].get("order") is not None), key=lambda job: job[0]["order"])
    traces = []
    for kind, (colour, words) in KINDS.items():
        x, y, text = [], [], []
        for run, name in jobs:
            for when, offset in (("before", 0.1), ("after", 0.9)):
                celsius = (run.get(f"celsius_{when}") or {}).get(kind)
                x.append(run["order"] + offset)
                y.append(celsius)
                text.append(f"{as_text(name)}, {when}")
        if any(value is not None for value in y):
            traces.append({
                "type": "scatter", "mode": "lines+markers", "name": words, "x": x, "y": y, "customdata": text,
                "line": {"color": colour, "width": 2}, "marker": {"size": 4}, "connectgaps": True,
                "hovertemplate": f"%{{customdata}}<br>{words} %{{y:.1f}} °C<extra></extra>",
            })  # fmt: skip
    if not traces:
        return None
    hot = [(run, name) for run, name in jobs if run.get("throttled")]
    if hot:
        top = max(value for trace in traces for value in trace["y"] if value is not None)
        traces.append({
            "type": "scatter", "mode": "markers", "name": "throttled", "x": [run["order"] + 0.5 for run, _ in hot],
            "y": [top + 2] * len(hot), "marker": {"color": BAD, "symbol": "x", "size": 9},
            "customdata": [as_text(f"{name}: {run['throttled']}") for run, name in hot],
            "hovertemplate": "%{customdata}<extra></extra>",
        })  # fmt: skip
    layout = layout_of(400, {"title": {"text": "jobs in the order they ran"}}, {"title": {"text": "°C"}})
    layout["shapes"] = [
        {"type": "rect", "yref": "paper", "x0": run["order"], "x1": run["order"] + 1, "y0": 0, "y1": 1,
         "fillcolor": BAD, "opacity": 0.08, "line": {"width": 0}, "layer": "below"}
        for run, _ in hot
    ]  # fmt: skip
    return {"data": traces, "layout": layout}


def sustained(row: Result, unit: str, scale: float) -> dict | None:
    """The `--sustain` curve of one row: median of each minute, with the temperature on an axis of its own."""
    curve = [point for point in facts(row).get("sustain") or [] if point.get("p50_us")]
    if not curve:
        return None
    minutes = [point["minute"] for point in curve]
    celsius = [_celsius(point.get("celsius")) for point in curve]
    marked = [sustained_at(row, minute) for minute in MINUTES]
    times = [point["p50_us"] / scale for point in curve]
    traces = [{
        "type": "scatter", "mode": "lines+markers", "name": f"median {unit}", "x": minutes, "y": times,
        "line": {"color": "#2563eb", "width": 3},
        "marker": {"size": [10 if point in marked else 4 for point in curve]},
        "hovertemplate": f"minute %{{x}}<br>%{{y:.4~g}} {unit}<extra></extra>",
    }]  # fmt: skip
    layout = layout_of(320, {"title": {"text": "minute"}}, {"title": {"text": f"median {unit}"}, "rangemode": "tozero"})
    if any(value is not None for value in celsius):
        traces.append({
            "type": "scatter", "mode": "lines", "name": "°C", "x": minutes, "yaxis": "y2",
            "y": celsius, "line": {"color": "#ea580c", "width": 2, "dash": "dot"},
            "hovertemplate": "minute %{x}<br>%{y:.1f} °C<extra></extra>",
        })  # fmt: skip
        layout["yaxis2"] = {"title": {"text": "°C"}, "overlaying": "y", "side": "right", "showgrid": False,
                            "tickmode": "auto", "fixedrange": True}  # fmt: skip
        layout["margin"]["r"] = 52
    return {"data": traces, "layout": layout}


def _celsius(found) -> float | None:
    """The skin's temperature, else the battery's, else the processor's; a plain number is taken as it is."""
    if not isinstance(found, dict):
        return found
    return next((found[kind] for kind in KINDS if found.get(kind) is not None), None)
