"""The report's charts as plain plotly dictionaries (data and layout), so that one script tag draws them all."""

from android_bench.result import Result
from android_bench.stats import pareto
from tfcompress.study.grid import SECOND_SIX, cells

FAMILIES = {  # the legend, in the order of the grid: colour and marker
    "control": ("#111827", "diamond"),
    "pruned": ("#2563eb", "circle"),
    "quantized": ("#ea580c", "square"),
    "pruned, then quantized": ("#059669", "triangle-up"),
    "quantized, then pruned": ("#9333ea", "triangle-down"),
    "your own": ("#db2777", "star"),
}
CELLS = {cell.id for second_six in SECOND_SIX for cell in cells(second_six)}
FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": "#374151"}


def family(id: str) -> str:
    """The legend entry of a cell, from its id; of a file that joined, another one.

    >>> family("C0"), family("P70"), family("Q8"), family("P70Q8"), family("Q8P70"), family("student")
    ('control', 'pruned', 'quantized', 'pruned, then quantized', 'quantized, then pruned', 'your own')
    """
    if id not in CELLS:
        return "your own"
    pruned, quantized = id.find("P"), id.find("Q")
    if pruned < 0:
        return "control" if quantized < 0 else "quantized"
    if quantized < 0:
        return "pruned"
    return "pruned, then quantized" if pruned < quantized else "quantized, then pruned"


def ticks(values: list[float]) -> list[float]:
    """Round values for a log axis: 1, 2, 5, 10 ..., denser where the values lie close together.

    >>> ticks([30, 300]), ticks([90, 110])
    ([20, 50, 100, 200, 500], [90, 100, 120])
    """
    if not values:
        return []
    low, high = min(values), max(values)
    steps = (1, 2, 5) if high > 3 * low else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    marks = [float(f"{step * 10**power:.2g}") for power in range(-9, 13) for step in steps]
    below = max((m for m in marks if m <= low), default=low)
    above = min((m for m in marks if m >= high), default=high)
    return [int(m) if m == int(m) else m for m in marks if below <= m <= above]


def scatter(rows: list[Result], cost: str, quality: str, cost_title: str, quality_title: str, scale: float) -> dict:
    """Quality (percent) against a cost on a log axis, with the Pareto front as a line; `cost` in units of `scale`."""
    rows = [row for row in rows if getattr(row, cost) and getattr(row, quality) is not None]
    points = [(getattr(row, cost) / scale, 100 * getattr(row, quality)) for row in rows]
    front = pareto(points)
    line = {
        "type": "scatter", "mode": "lines", "name": "Pareto front", "hoverinfo": "skip",
        "x": [points[i][0] for i in front], "y": [points[i][1] for i in front],
        "line": {"shape": "hv", "dash": "dot", "color": "#9ca3af", "width": 2},
    }  # fmt: skip
    traces = [line] if front else []
    for name, (colour, symbol) in FAMILIES.items():
        mine = [i for i, row in enumerate(rows) if family(row.id) == name]
        if mine:
            traces.append({
                "type": "scatter", "mode": "markers+text", "name": name,
                "x": [points[i][0] for i in mine], "y": [points[i][1] for i in mine],
                "text": [rows[i].id if i in front else "" for i in mine], "textposition": "top center",
                "customdata": [[rows[i].id, rows[i].recipe] for i in mine],
                "hovertemplate": f"<b>%{{customdata[0]}}</b> %{{customdata[1]}}<br>{quality_title}: %{{y:.2f}}"
                                 f"<br>{cost_title}: %{{x:.4~g}}<extra></extra>",
                "marker": {"color": colour, "symbol": symbol, "size": 11, "line": {"color": "#fff", "width": 1}},
                "textfont": {"size": 11, "color": colour}, "cliponaxis": False,
            })  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": cost_title}, "type": "log", "gridcolor": "#eef0f3",
                  "tickvals": ticks([x for x, _ in points]), "tickformat": "~g"},
        "yaxis": {"title": {"text": quality_title}, "gridcolor": "#eef0f3", "zeroline": False},
        "legend": {"orientation": "h", "y": -0.24, "yanchor": "top", "x": 0},
        "hovermode": "closest", "height": 420, "margin": {"l": 58, "r": 18, "t": 16, "b": 110},
        "font": FONT, "paper_bgcolor": "#fff", "plot_bgcolor": "#fff",
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def heat_map(rows: list[Result]) -> dict | None:
    """Recall per class (percent), one line a cell in the order of the grid; None where no row has recalls."""
    rows = [row for row in rows if row.recalls]
    if not rows:
        return None
    classes = list(rows[0].recalls)
    values = [[_percent(row.recalls.get(name)) for name in classes] for row in rows]
    trace = {
        "type": "heatmap", "x": classes, "y": [row.id for row in rows], "z": values,
        "zmin": 0, "zmax": 100, "xgap": 2, "ygap": 2,
        "colorscale": [[0, "#b91c1c"], [0.5, "#fde68a"], [0.8, "#bbf7d0"], [1, "#15803d"]],
        "text": [["" if v is None else f"{v:.0f}" for v in line] for line in values],
        "texttemplate": "%{text}", "textfont": {"size": 11}, "showscale": False,
        "hovertemplate": "<b>%{y}</b>, class %{x}<br>recall %{z:.1f} %<extra></extra>",
    }  # fmt: skip
    layout = {
        "xaxis": {"type": "category", "side": "top", "fixedrange": True, "tickangle": 0},
        "yaxis": {"type": "category", "autorange": "reversed", "fixedrange": True},
        "height": 70 + 25 * len(rows), "margin": {"l": 66, "r": 10, "t": 40, "b": 10},
        "font": FONT, "paper_bgcolor": "#fff", "plot_bgcolor": "#fff",
    }  # fmt: skip
    return {"data": [trace], "layout": layout}


def _percent(recall):
    return None if recall is None else 100 * recall
