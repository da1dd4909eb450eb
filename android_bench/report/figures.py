"""The report's charts as plain plotly dictionaries (data and layout). All names are shown as text, never as markup."""

import html
import math

from android_bench.report.fields import by_device, energy, fastest, labels, repetitions, shown, time_us
from android_bench.result import Result
from android_bench.stats import pareto

COLOURS = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#0891b2", "#b45309", "#be185d", "#4b5563")
FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": "#374151"}
GRID = "#eef0f3"
BAD = "#dc2626"
FEW = 12  # points of which each may have its name beside it
LONG = 26  # letters of a name on an axis


def ticks(values: list[float]) -> list[float]:
    """Round values for a log axis: 1, 2, 5, 10 ..., denser where the values lie close together.

    >>> ticks([30, 3000]), ticks([60, 200]), ticks([90, 110])
    ([20, 50, 100, 200, 500, 1000, 2000, 5000], [50, 100, 200], [90, 100, 120])
    """
    if not (values := [value for value in values if value > 0]):
        return []
    low, high = min(values), max(values)
    choices = {3: (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9), 20: (1, 2, 3, 5), 200: (1, 2, 5)}
    steps = next((steps for most, steps in choices.items() if high <= most * low), (1,))
    marks = [float(f"{step * 10**power:.2g}") for power in range(-9, 13) for step in steps]
    below, above = max((m for m in marks if m <= low), default=low), min((m for m in marks if m >= high), default=high)
    return [int(m) if m == int(m) else m for m in marks if below <= m <= above]


def overview(rows: list[Result], unit: str, scale: float) -> dict | None:
    """2 to 8 devices in one: median of each model (the fastest of its settings) with p5 to p95 as a line."""
    traces, values = [], []
    for number, (device, found) in enumerate(by_device(rows).items()):
        mine = fastest(found)
        times = [time_us(row)[0] / scale for row in mine]
        values += times + [row.latency_p95_us / scale for row in mine if row.latency_p95_us]
        traces.append({
            "type": "scatter", "mode": "markers", "offsetgroup": str(number),
            "name": as_text(shown(_cut(device), found)),
            "x": times, "y": [as_text(row.id) for row in mine], "orientation": "h",
            "error_x": _reach(times, [(row.latency_p5_us, row.latency_p95_us) for row in mine], scale),
            "marker": {"color": COLOURS[number % len(COLOURS)], "size": 9,
                       "symbol": "diamond" if mine and mine[0].device_kind == "host" else "circle"},
            "hovertemplate": f"<b>%{{y}}</b> on {as_text(device).replace('%', '&#37;')}<br>"
                             f"%{{x:.4~g}} {unit}<extra></extra>",
        })  # fmt: skip
    if not 2 <= len(traces) <= 8 or not values:
        return None
    models = list(dict.fromkeys(row.id for row in rows))
    layout = layout_of(90 + (14 + 11 * len(traces)) * len(models), _time_axis(values, unit), _names_axis(models))
    layout |= {"scattermode": "group", "scattergap": 0.35, "hovermode": "closest"}
    return {"data": [trace for trace in traces if trace["x"]], "layout": layout}


def distributions(rows: list[Result], unit: str, scale: float) -> dict | None:
    """One device: a box a row (p5 to p95, the line is the median, whiskers to min and max), a dot a repetition.

    A slowest run far beyond the boxes leads its whisker out of the picture, or it would hide what is in it.
    """
    names = [as_text(name) for name in labels(rows)]
    boxed = [(name, row) for name, row in zip(names, rows, strict=True) if _five(row)]
    box = {
        "type": "box", "orientation": "h", "name": "all runs", "hoverinfo": "skip",
        "y": [name for name, _ in boxed], "width": 0.55, "line": {"color": "#94a3b8", "width": 1.5},
        "fillcolor": "#e2e8f0",
    }  # fmt: skip
    for position, key in enumerate(("lowerfence", "q1", "median", "q3", "upperfence")):
        box[key] = [_five(row)[position] / scale for _, row in boxed]
    dots: dict[str, list] = {"a repetition": [], "throttled": [], "outlier": []}
    for name, row in zip(names, rows, strict=True):
        runs = repetitions(row) or [{"p50_us": row.latency_p50_us, "mean_us": row.latency_mean_us}]
        for number, run in enumerate(runs, 1):
            time = run.get("p50_us") or run.get("mean_us")
            if time:
                kind = "throttled" if run.get("throttled") else "outlier" if run.get("outlier") else "a repetition"
                words = f"repetition {number} of {len(runs)}: {run.get('throttled') or kind}"
                dots[kind].append((time / scale, name, as_text(words)))
    traces = [box] if boxed else []
    for (kind, found), (colour, symbol) in zip(
        dots.items(), (("#2563eb", "circle"), (BAD, "x"), ("#f59e0b", "diamond-open")), strict=True
    ):
        if found:
            traces.append({
                "type": "scatter", "mode": "markers", "name": kind, "x": [x for x, _, _ in found],
                "y": [y for _, y, _ in found], "customdata": [words for _, _, words in found],
                "marker": {"color": colour, "symbol": symbol, "size": 7, "opacity": 0.75},
                "hovertemplate": f"<b>%{{y}}</b><br>%{{x:.4~g}} {unit}<br>%{{customdata}}<extra></extra>",
            })  # fmt: skip
    if not traces:
        return None
    values = [x for found in dots.values() for x, _, _ in found] + box["lowerfence"] + box["q3"]
    values = [value for value in values if value > 0]
    end = min(max(values + box["upperfence"]), 3 * max(values)) if values else 1.0
    axis = _time_axis([*values, end], unit)
    axis |= {"range": [math.log10(min(values) / 1.2), math.log10(1.1 * end)]} if values else {}
    layout = layout_of(max(400, 100 + 30 * len(rows)), axis, _names_axis(labels(rows)))
    return {"data": traces, "layout": layout}


def trade_off(rows: list[Result], cost: str, unit: str, scale: float) -> dict | None:
    """Accuracy against "time" or "energy" of one device, the Pareto front dotted; colour is energy where measured."""
    if cost == "time":
        costs = [time_us(row)[0] for row in rows]
    else:
        costs = [row.energy_joules for row in rows]
    found = [(value / scale, name, row) for value, name, row in zip(costs, labels(rows), rows, strict=True)
             if value and row.accuracy is not None]  # fmt: skip
    if not found:
        return None
    points = [(value, 100 * row.accuracy) for value, _, row in found]
    front = pareto(points)
    line = {
        "type": "scatter", "mode": "lines", "name": "Pareto front", "hoverinfo": "skip",
        "x": [points[i][0] for i in front], "y": [points[i][1] for i in front],
        "line": {"shape": "hv", "dash": "dot", "color": "#9ca3af", "width": 2},
    }  # fmt: skip
    traces = [line, *_clouds(found, points, _apart(points, front), cost, unit, scale)]
    height = max(400, min(640, 100 + 30 * len(rows)))  # as the chart beside it
    axis, least, most = _time_axis([x for x, _ in points], unit), min(points)[0], max(points)[0]
    room = 0.08 * math.log10(most / least) + 0.05  # for the names beside the outermost points
    axis["range"] = [math.log10(least) - 2 * room, math.log10(most) + 2 * room]
    layout = layout_of(height, axis, {"title": {"text": "accuracy %"}})
    layout["xaxis"]["title"]["text"] = f"median {unit} a run" if cost == "time" else f"{unit} a run"
    return {"data": traces, "layout": layout}


def _apart(points, front) -> list[int]:
    """Points whose names do not cover each other, those of the front first; of many points only the front's.

    The mouse over a point names it anyway.
    """
    named: list[int] = []
    wide = math.log(max(x for x, _ in points) / min(x for x, _ in points)) or 1.0
    high = max(y for _, y in points) - min(y for _, y in points) or 1.0
    rest = [i for i in range(len(points)) if i not in front] if len(points) <= FEW else []
    for i in [*front, *rest]:
        (x, y), peers = points[i], [points[k] for k in named]
        if all(abs(math.log(x / px)) > 0.15 * wide or abs(y - py) > 0.06 * high for px, py in peers):
            named.append(i)
    return named


def _clouds(found, points, named, cost, unit, scale):
    """The markers: one trace with energy as colour and size, one for rows without energy."""
    known = [i for i, (_, _, row) in enumerate(found) if row.energy_joules]
    for name, mine in (("energy measured", known), ("energy not measured", [*set(range(len(found))) - set(known)])):
        if not mine:
            continue
        joules = [found[i][2].energy_joules or 0 for i in mine]
        marker = {"color": "#fff", "size": 11, "line": {"color": "#6b7280", "width": 2}}
        if name == "energy measured":
            marker = {"color": [1e3 * j for j in joules], "colorscale": [[0, "#10b981"], [0.5, "#facc15"], [1, BAD]],
                      "size": [10 + 12 * (j / max(joules)) ** 0.5 for j in joules],
                      "line": {"color": "#fff", "width": 1}}  # fmt: skip
            if cost == "time":
                marker |= {"showscale": True, "colorbar": {"title": {"text": "mJ a run", "side": "right"},
                           "thickness": 10, "len": 0.9, "outlinewidth": 0, "tickformat": "~g"}}  # fmt: skip
        trace = {
            "type": "scatter", "mode": "markers+text", "name": name, "marker": marker, "cliponaxis": False,
            "x": [points[i][0] for i in mine], "y": [points[i][1] for i in mine],
            "text": [as_text(_cut(found[i][1])) if i in named else "" for i in mine],
            "textposition": ["bottom center" if i == named[0] and len(named) > 1 else "top left" for i in mine],
            "customdata": [[as_text(found[i][1]), _energy_words(found[i][2])] for i in mine],
            "hovertemplate": f"<b>%{{customdata[0]}}</b><br>accuracy %{{y:.2f}} %<br>%{{x:.4~g}} {unit} a run"
                             "<br>energy: %{customdata[1]}<extra></extra>",
        }  # fmt: skip
        if cost == "energy":
            ends = [(energy(found[i][2]).get("low"), energy(found[i][2]).get("high")) for i in mine]
            trace["error_x"] = _reach(trace["x"], ends, scale) | {"color": "#9ca3af"}
        yield trace


def layout_of(height: int, xaxis: dict, yaxis: dict) -> dict:
    axis = {"gridcolor": GRID, "zeroline": False, "fixedrange": True}
    return {
        "xaxis": axis | xaxis, "yaxis": axis | yaxis, "height": height, "margin": {"l": 58, "r": 18, "t": 40, "b": 48},
        "showlegend": True, "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"}, "hovermode": "closest",
        "font": FONT, "paper_bgcolor": "#fff", "plot_bgcolor": "#fff",
    }  # fmt: skip


def _time_axis(values: list[float], unit: str) -> dict:
    return {"type": "log", "title": {"text": f"{unit} a run"}, "tickvals": ticks(values), "tickformat": "~g",
            "tickangle": 0}  # fmt: skip


def _names_axis(names: list[str]) -> dict:
    """Names from the top down; long ones are cut on the axis, and whole under the mouse."""
    return {
        "type": "category", "autorange": "reversed", "automargin": True, "ticklabelstandoff": 6,
        "categoryorder": "array", "categoryarray": [as_text(name) for name in names],
        "tickvals": [as_text(name) for name in names], "ticktext": [as_text(_cut(name)) for name in names],
    }  # fmt: skip


def _cut(name: str) -> str:
    return name if len(name) <= LONG else name[: LONG - 1] + "…"


def _reach(values, ends, scale) -> dict:
    """Error bars from (low, high) in unscaled units; none where an end is unknown. A log axis holds no 0."""
    pairs = list(zip(values, ends, strict=True))
    minus = [0 if low is None else max(0, min(x - low / scale, 0.99 * x)) for x, (low, _) in pairs]
    plus = [0 if high is None else max(0, high / scale - x) for x, (_, high) in pairs]
    return {"type": "data", "symmetric": False, "array": plus, "arrayminus": minus, "thickness": 1.5, "width": 3}


def _five(row: Result) -> tuple[float, ...] | None:
    """min, p5, median, p95, max where all five were measured."""
    found = (row.latency_min_us, row.latency_p5_us, row.latency_p50_us, row.latency_p95_us, row.latency_max_us)
    return found if all(found) else None


def _energy_words(row: Result) -> str:
    if row.energy_joules:
        return f"{1e3 * row.energy_joules:.3g} mJ ({as_text(row.energy_source or 'source unknown')})"
    return as_text(f"not measured ({energy(row).get('refused') or 'nobody asked'})")


def as_text(words: str) -> str:
    """Plotly reads HTML tags in every text that it shows."""
    return html.escape(str(words), quote=False)
