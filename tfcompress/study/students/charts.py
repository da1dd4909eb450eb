"""The charts of a study of students, as plain plotly dictionaries."""

from ..figures import FONT
from .summary import name

COLOURS = {"width": "#2563eb", "depth": "#ea580c", "balanced": "#059669"}
SYMBOLS = {"basic": "circle", "bottleneck": "square", "inverted": "diamond"}
GRID, DARK, SOFT = "#eef0f3", "#059669", "#6b7280"


def accuracies(groups, teacher: float) -> dict:
    """Accuracy with and without the teacher by scaling, with intervals; a line for the teacher's own."""
    traces = [_points(groups, "taught", "with the teacher", DARK),
              _points(groups, "alone", "without it", "#fff", edge=SOFT)]  # fmt: skip
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": teacher, "y1": teacher,
            "line": {"color": "#111827", "dash": "dot", "width": 1}}  # fmt: skip
    note = {"xref": "paper", "x": 1, "y": teacher, "text": f"teacher {teacher:.2f} %", "showarrow": False,
            "xanchor": "right", "yanchor": "bottom", "font": {"size": 11}}  # fmt: skip
    layout = _layout("", "Accuracy %", shapes=[line], annotations=[note], scattermode="group", scattergap=0.7)
    values = [value for group in groups for value in (group.taught, group.alone)]
    layout["yaxis"]["range"] = _around(values, teacher)
    layout["legend"] |= {"y": 1.02, "yanchor": "bottom"}
    layout["margin"] |= {"t": 34, "b": 80}
    layout["xaxis"]["range"] = [-0.5, len(groups) - 0.5]
    return {"data": traces, "layout": layout}


def gains(groups) -> dict:
    """Gain by scaling, with intervals, and where no gain lies."""
    colours = [COLOURS[group.scaling] for group in groups]
    trace = _points(groups, "gain", "gain", colours, colours)
    layout = _layout("", "Gain, points of accuracy", showlegend=False)
    layout["yaxis"] |= {"zeroline": True, "zerolinecolor": "#111827", "zerolinewidth": 1,
                        "range": _around([group.gain for group in groups], 0.0)}  # fmt: skip
    layout["xaxis"]["range"] = [-0.5, len(groups) - 0.5]
    return {"data": [trace], "layout": layout}


def times(groups) -> dict:
    """Accuracy against time: filled with the teacher, hollow without it."""
    traces = []
    for group in groups:
        for way, hollow in (("taught", False), ("alone", True)):
            value = getattr(group, way)
            colour = COLOURS[group.scaling]
            traces.append({
                "type": "scatter", "mode": "markers", "name": f"{group.block}, {name(group.scaling)}",
                "x": [group.latency_us], "y": [value.mean], "showlegend": not hollow,
                "error_y": _bars([value], colour),
                "marker": {"size": 11, "color": "#fff" if hollow else colour, "line": {"width": 2, "color": colour},
                           "symbol": SYMBOLS[group.block]},
                "hovertemplate": f"<b>{group.block}, {name(group.scaling)}</b>, {'without' if hollow else 'with'} the "
                                 f"teacher<br>{value} %<br>%{{x:,.0f}} µs<extra></extra>",
            })  # fmt: skip
    layout = _layout("µs a run", "Accuracy %")
    layout["xaxis"]["gridcolor"] = GRID
    return {"data": traces, "layout": layout}


def _points(groups, column, title, fill, edge=None) -> dict:
    values = [getattr(group, column) for group in groups]
    names = [name(group.scaling) for group in groups]
    blocks = [group.block for group in groups]
    return {
        "type": "scatter", "mode": "markers", "name": title, "x": [blocks, names] if len(set(blocks)) > 1 else names,
        "y": [value.mean for value in values],
        "error_y": _bars(values, "#9ca3af"),
        "text": [f"{block}, {word}: {value}" for block, word, value in zip(blocks, names, values, strict=True)],
        "hovertemplate": f"%{{text}}, {title}<extra></extra>",
        "marker": {"color": fill, "symbol": "circle", "size": 11, "line": {"width": 2, "color": edge or fill}},
    }  # fmt: skip


def _bars(values, colour) -> dict:
    """Error bars; none where a value has no interval."""
    return {"type": "data", "array": [value.half for value in values], "color": colour, "thickness": 1.5, "width": 5,
            "visible": any(value.half is not None for value in values)}  # fmt: skip


def _around(values, other) -> list[float]:
    """A range that holds all intervals and one value more."""
    low = min(other, *(value.mean - (value.half or 0) for value in values))
    high = max(other, *(value.mean + (value.half or 0) for value in values))
    return [low - 0.08 * (high - low or 1), high + 0.08 * (high - low or 1)]


def _layout(x, y, **more) -> dict:
    return {
        "xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}, "gridcolor": GRID, "zeroline": False},
        "legend": {"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0}, "hovermode": "closest", "height": 420,
        "margin": {"l": 62, "r": 18, "t": 16, "b": 100}, "font": FONT, "paper_bgcolor": "#fff", "plot_bgcolor": "#fff",
    } | more  # fmt: skip
