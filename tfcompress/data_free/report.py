"""One self-contained HTML page about a ``OneClick``: bytes, what each kernel lost, and that no real data was seen."""

import json
import math
from pathlib import Path

import jinja2
import plotly.offline

from android_bench.store import write_file
from tfcompress.data_free.click import in_words

FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": "#374151"}
LAYOUT = {"font": FONT, "paper_bgcolor": "white", "plot_bgcolor": "white", "height": 380,
          "margin": {"l": 64, "r": 16, "t": 12, "b": 56}}
_ROOM = Path(__file__).parent


def write_report(found, path, *, title):
    """Write the page (opens without a network); returns ``path``.

    Args:
        found: a ``click.OneClick``.
        path: of the .html file.
        title: the model's name.
    """
    loader = jinja2.FileSystemLoader([_ROOM, _ROOM.parent / "study"])
    page = jinja2.Environment(loader=loader, autoescape=True).get_template("page.html.j2").render(
        title=title, found=found, target=in_words(found.target), kernels=[_line(one) for one in found.kernels],
        after=sum(took for step, took in found.seconds.items() if step != "float"),
        inputs=len(next(iter(found.synthetic.inputs.values()))),
        charts={name: json.dumps(chart).replace("</", "<\\/") for name, chart in _charts(found).items()},
        plotly_js=plotly.offline.get_plotlyjs(),
    )
    write_file(path, page.encode())
    return Path(path)


def decibels(noise):
    """-10 log10(noise / signal); None where it is unknown or nothing.

    >>> decibels(0.001), decibels(0.0)
    (30.0, None)
    """
    return round(-10 * math.log10(noise), 1) if noise > 0 else None


def _line(one):
    name = one.kernel.tensor.name.split(";")[-1]
    return {"name": name[-48:], "op": one.kernel.op, "weights": one.weights, "bits": one.bits,
            "bytes": one.weights * one.bits // 8, "nearest": decibels(one.nearest), "here": decibels(one.error)}


def _charts(found):
    names = ["float32 file", f"{found.file.precision} file", "packed"]
    sizes = [found.float_bytes, found.file.size, len(found.packed)]
    bars = {"type": "bar", "x": [size / 1000 for size in sizes], "y": names, "orientation": "h",
            "text": [f"{size / 1000:,.1f} kB" for size in sizes], "textposition": "auto",
            "marker": {"color": ["#111827", "#059669", "#2563eb"]}, "hoverinfo": "skip"}
    lines = [line for line in map(_line, found.kernels) if line["here"] is not None]
    places = list(range(1, len(lines) + 1))
    words = [f"{line['name']}<br>{line['op']}, {line['weights']:,} weights of {line['bits']} bits" for line in lines]
    dots = [{"type": "scatter", "mode": "markers", "name": title, "x": places, "y": [line[key] for line in lines],
             "text": words, "hovertemplate": "%{text}<br>%{y} dB<extra></extra>",
             "marker": {"size": 8, "color": colour, "symbol": symbol}}
            for key, title, colour, symbol in (("nearest", "nearest codes", "#9ca3af", "circle-open"),
                                               ("here", "this file", "#059669", "circle"))]
    axis = {"gridcolor": "#eef0f3", "zeroline": False}
    legend = {"orientation": "h", "y": 1.08}
    charts = {"Bytes": {"data": [bars], "layout": LAYOUT | {
        "xaxis": axis | {"title": {"text": "kB"}}, "yaxis": {"autorange": "reversed"},
        "margin": LAYOUT["margin"] | {"l": 96}}}}
    if lines:
        charts["What each kernel loses"] = {"data": dots, "layout": LAYOUT | {
            "xaxis": axis | {"title": {"text": "kernel, in running order"}, "dtick": max(1, round(len(lines) / 12))},
            "legend": legend,
            "yaxis": axis | {"title": {"text": "signal / noise of its output, dB"}}}}
    return charts
