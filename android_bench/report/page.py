"""One self-contained HTML page (CSV and JSONL beside it) from the rows of a run over phones."""

import json
from pathlib import Path
from statistics import median

import jinja2
import plotly.offline

from android_bench.report import figures, heat
from android_bench.report.advice import advise
from android_bench.report.fields import (
    by_device,
    delegate_asked,
    energy,
    facts,
    fastest,
    kind,
    labels,
    repetitions,
    shown,
    sustained_at,
    time_us,
)
from android_bench.result import Result, to_csv
from android_bench.store import write_file

KEPT = 0.01  # accuracy below the best on the device that still counts as kept: one point
BADGES = {"emulated": "EMULATED", "host": "THIS COMPUTER", "android": "PHONE"}
SOURCES = {
    "odpm": "power rails, ODPM", "charge_counter": "battery counter × voltage", "rapl": "processor's counter, RAPL",
    "current": "estimate: battery current × voltage", "level": "rough estimate: battery percent",
}  # fmt: skip


def write_report(rows: list[Result], path, *, title: str | None = None, about: dict | None = None,
                 unfinished: str | None = None) -> Path:  # fmt: skip
    """Write `path` (.html, opens without a network) and the same rows as `.csv` and `.jsonl`; returns `path`.

    `about` is shown under "How it was measured": words -> words; `unfinished` at the top. Raises ValueError where
    there is no row.
    """
    if not rows:
        raise ValueError("A report needs one or more rows. Received none: run `android-bench run MODELS` first.")
    rows = [row for row in rows if row.device_kind != "host"] + [row for row in rows if row.device_kind == "host"]
    here = all(row.device_kind == "host" for row in rows)
    title = title or ("Models on this computer" if here else "Models on phones")
    unit, scale = time_unit(rows)
    devices = [_device(mine, unit, scale) for mine in by_device(rows).values()]
    charts = [chart for device in devices for chart in device["charts"]]
    everything = figures.overview(rows, unit, scale)
    environment = jinja2.Environment(loader=jinja2.PackageLoader("android_bench.report", "."), autoescape=True)
    environment.globals |= {word.__name__: word for word in (short, time_words, joule_words, joule_range)}
    page = environment.get_template("report.html.j2").render(
        title=title, unfinished=unfinished, about=about or {}, devices=devices, matrix=_matrix(rows),
        models=_models(rows), unit=unit, scale=scale, advice=advise(rows), everything=everything and _json(everything),
        charts=[_json(chart["figure"]) for chart in charts], counts=_counts(rows),
        plotly_js=plotly.offline.get_plotlyjs(),
    )  # fmt: skip
    path = Path(path)
    write_file(path, page.encode())
    write_file(path.with_suffix(".csv"), to_csv(rows, spread_facts=True).encode())
    write_file(path.with_suffix(".jsonl"), "".join(row.to_json() + "\n" for row in rows).encode())
    return path


def headline(rows: list[Result]) -> dict:
    """What one device says in a sentence: the fastest row within a point of the best accuracy on that device.

    Keys: best (Result or None), label, time_us, kind ("median" or "mean"), faster (times as fast as the most accurate
    row), top (its label), points (accuracy against it), missing (sentences: what was not measured, and why).
    """
    good = [(row, name) for row, name in zip(rows, labels(rows), strict=True) if time_us(row)[0] and not row.error]
    if not good:
        errors = [row.error for row in rows if row.error]
        return {"best": None, "missing": errors[:1] or ["No run times in these rows"]}
    scored = [(row, name) for row, name in good if row.accuracy is not None]
    top, top_name = max(scored or good, key=lambda pair: (pair[0].accuracy or 0, -time_us(pair[0])[0]))
    kept = [pair for pair in scored if pair[0].accuracy >= top.accuracy - KEPT] or good
    best, name = min(kept, key=lambda pair: (time_us(pair[0])[0], -(pair[0].accuracy or 0)))
    time, how = time_us(best)
    missing = []
    if best.accuracy is None:
        missing.append(f"No accuracy: {facts(best).get('accuracy_note') or 'no --eval data'}")
    if best.energy_joules is None:
        missing.append(f"No energy: {energy(best).get('refused') or 'not asked for'}")
    return {
        "best": best, "label": name, "time_us": time, "kind": how, "top": top_name, "missing": missing,
        "faster": time_us(top)[0] / time if scored and top is not best else None,
        "points": 100 * (best.accuracy - top.accuracy) if scored and top is not best else None,
        "kept": bool(scored), "source": SOURCES.get(best.energy_source or "", best.energy_source),
    }  # fmt: skip


def short(value: float) -> str:
    """Three digits that a person reads, never `1e+03`; a whole number stays whole, as the tool's microseconds are.

    >>> [short(value) for value in (0, 0.01234, 1.234, 12.34, 12.0, 182.4, 12345)]
    ['0', '0.0123', '1.23', '12.3', '12', '182', '12,345']
    """
    if float(value).is_integer():
        return f"{value:,.0f}"
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2 if abs(value) >= 0.9995 else None
    return f"{value:.3g}" if digits is None else f"{value:,.{digits}f}"


def time_words(us: float) -> str:
    """`time_words(1240)` is "1.24 ms"."""
    return _with_unit(us, (("s", 1e6), ("ms", 1e3), ("µs", 1.0)))


def joule_words(joules: float) -> str:
    """`joule_words(0.00043)` is "430 µJ"."""
    return _with_unit(joules, (("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9)))


def joule_range(low: float, high: float) -> str:
    """`joule_range(0.00041, 0.00046)` is "410–460 µJ"."""
    size = next((size for size in (1.0, 1e-3, 1e-6) if abs(high) >= size), 1e-9)
    return f"{short(low / size)}–{joule_words(high)}" if high > 0 else f"{joule_words(low)} to {joule_words(high)}"


def _with_unit(value: float, units) -> str:
    name, size = next((unit for unit in units if abs(value) >= unit[1]), units[-1])
    return f"{short(value / size)} {name}"


def time_unit(rows: list[Result]) -> tuple[str, float]:
    """The unit of the page and its microseconds: ms where half of the rows take one or more."""
    times = [time_us(row)[0] for row in rows if time_us(row)[0]]
    return ("ms", 1000.0) if times and median(times) >= 1000 else ("µs", 1.0)


def _device(rows: list[Result], unit: str, scale: float) -> dict:
    """All that the page shows of one device."""
    first = next((row for row in rows if row.facts), rows[0])
    badge = BADGES[kind(first)]
    runs = sum(len(repetitions(row)) for row in rows)
    hot = sum(bool(run.get("throttled")) for row in rows for run in repetitions(row))
    return {
        "name": rows[0].device, "kind": kind(first), "badge": badge, "headline": headline(rows), "runs": runs,
        "throttled": hot, "card": [(name, words) for name, words in _card(facts(first)) if words],
        "lines": [_line(row, name) for row, name in zip(rows, labels(rows), strict=True)],
        "provenance": [(name, words) for name, words in _provenance(rows, first) if words],
        "repetitions": _repetitions(rows), "charts": list(_charts(rows, unit, scale)),
        "failed": sum(row.error is not None for row in rows),
    }  # fmt: skip


def _card(known: dict):
    """What the device is: (name, words or None)."""
    battery = known.get("battery") or {}
    clusters = [c for c in known.get("clusters") or [] if c.get("max_khz")]
    clusters = [f"{len(c['cpus'])} × {c['max_khz'] / 1e6:.2f}" for c in clusters]
    level = [] if battery.get("percent") is None else [f"{battery['percent']:g} %"]
    plugged = battery.get("plugged")
    level += [] if plugged is None else [f"plugged in: {', '.join(plugged)}" if plugged else "unplugged"]
    level += [] if battery.get("celsius") is None else [f"{battery['celsius']:.1f} °C"]
    fixed = known.get("fixed_performance")
    yield "maker", known.get("maker")
    yield "chip", known.get("soc") or known.get("cpu")
    yield "Android", known.get("android") and " · ".join(filter(None, [known["android"], known.get("form")]))
    yield "memory", known.get("ram_bytes") and f"{known['ram_bytes'] / 1e9:.1f} GB"
    yield "cores", " + ".join(clusters) + " GHz" if clusters else known.get("cores") and str(known["cores"])
    yield "screen", known.get("screen")
    yield "battery", ", ".join(level)
    yield "clocks", None if fixed is None else "fixed-performance mode" if fixed else "not fixed"
    yield "system", known.get("system")
    yield "governor", known.get("governor")
    yield "load before", None if known.get("load_average") is None else f"{known['load_average']:.1f}"


def _provenance(rows, first):
    """Where the numbers come from: (name, words or None)."""
    known = facts(first)
    all_facts = [facts(row) for row in rows]
    binaries = {found["binary"].get("sha256"): found["binary"] for found in all_facts if found.get("binary")}
    runs = [run for row in rows for run in repetitions(row)]
    skins = [(run.get(f"celsius_{when}") or {}).get("skin") for run in runs for when in ("before", "after")]
    skins = [celsius for celsius in skins if celsius is not None]
    clocks = [run["clocks_khz"] for run in runs if run.get("clocks_khz") and None not in run["clocks_khz"]]
    seeds = list(dict.fromkeys(found["job_seed"] for found in all_facts if found.get("job_seed") is not None))
    yield "benchmark_model", "; ".join(f"sha256 {sha} ({found.get('tool')})" for sha, found in binaries.items() if sha)
    yield "ABI", known.get("abi")
    yield "build", known.get("fingerprint")
    yield "serial", known.get("serial")
    yield "order of jobs", seeds and f"shuffled with seed {', '.join(map(str, seeds))}"
    yield "mean clocks", clocks and " / ".join(f"{median(c) / 1e6:.2f}" for c in zip(*clocks, strict=False)) + " GHz"
    yield "skin temperature", skins and f"{min(skins):.1f} to {max(skins):.1f} °C"
    yield "accuracy", next((found["eval_how"] for found in all_facts if found.get("eval_how")), None)
    yield "peak memory", next((found["memory_note"] for row, found in zip(rows, all_facts, strict=True)
                               if found.get("memory_note") and row.peak_memory_bytes), None)  # fmt: skip
    yield "energy", next((energy(row)["rule"] for row in rows if energy(row).get("rule")), None)


def _line(row: Result, label: str) -> dict:
    """What the table shows of a row."""
    asked = delegate_asked(row)
    runs = repetitions(row)
    seen = ("throttled", "celsius_after", "status_after")
    watched = any(run.get(name) not in (None, {}) for run in runs for name in seen)
    return {
        "row": row, "label": label, "facts": facts(row), "energy": energy(row), "runs": len(runs) or None,
        "throttled": sum(bool(run.get("throttled")) for run in runs) if watched else None,
        "asked": asked if row.delegate and asked not in (row.delegate, "cpu") else None, "time": time_us(row),
        "source": SOURCES.get(row.energy_source or "", row.energy_source),
    }  # fmt: skip


def _repetitions(rows) -> list[dict]:
    """Every repetition of a device, in the order in which they ran."""
    found = [{"label": n, **run} for row, n in zip(rows, labels(rows), strict=True) for run in repetitions(row)]
    return sorted(found, key=lambda run: (run.get("order") is None, run.get("order") or 0))


def _matrix(rows) -> list[tuple[str, list]]:
    """Models × devices: for each model, on each device, the row of its fastest setting, or one that failed, or None."""
    devices = by_device(rows)
    best = {device: {row.id: row for row in fastest(mine)} for device, mine in devices.items()}
    other = {device: {row.id: row for row in mine} for device, mine in devices.items()}
    slowest = {device: max((time_us(row)[0] for row in found.values()), default=1) for device, found in best.items()}
    return [
        (id, [(row, 100 * (time_us(row)[0] or 0) / slowest[device] if row else 0)
              for device in devices for row in [best[device].get(id) or other[device].get(id)]])
        for id in dict.fromkeys(row.id for row in rows)
    ]  # fmt: skip


def _models(rows) -> list[Result]:
    """One row for each model file, in the order of the rows."""
    return list({(row.id, row.model_sha256): row for row in reversed(rows)}.values())[::-1]


def _counts(rows) -> dict:
    kinds = [kind(mine[0]) for mine in by_device(rows).values()]
    return {"models": len({row.id for row in rows}), "rows": len(rows), **{name: kinds.count(name) for name in BADGES}}


def _charts(rows, unit, scale):
    joules = [row.energy_joules for row in rows if row.energy_joules]
    name, size = ("mJ", 1e-3) if joules and median(joules) >= 1e-3 else ("µJ", 1e-6)
    found = [
        ("Run times", "Box: p5 to p95 with the median; whiskers: fastest and slowest run; dots: medians of the "
         "repetitions.", figures.distributions(rows, unit, scale)),
        ("Accuracy against time", "Up and to the left is better. Dotted: Pareto front. Colour and size: energy.",
         figures.trade_off(rows, "time", unit, scale)),
        ("Accuracy against energy", "Up and to the left is better. Bars: 95 % interval.",
         figures.trade_off(rows, "energy", name, size)),
        ("Temperature over the run", "Before and after each job. Red: the phone was throttled.", heat.heat(rows)),
    ]  # fmt: skip
    for row, label in zip(rows, labels(rows), strict=True):
        if facts(row).get("sustain"):
            found.append((f"Sustained load: {label}", _sustain_words(row), heat.sustained(row, unit, scale)))
    where = shown(rows[0].device, rows)
    for title, note, figure in found:
        if figure:
            axis = figure["layout"]["xaxis"]["title"]
            axis["text"] += f" · {figures.as_text(where)}"  # stays with the picture when it is cut out for a slide
            yield {"title": title, "note": note, "figure": figure}


def _sustain_words(row: Result) -> str:
    """Minutes 1, 5 and 30 against the first of them."""
    points = [(minute, sustained_at(row, minute)) for minute in heat.MINUTES]
    base = next((point["p50_us"] for _, point in points if point), None)
    return " · ".join(
        f"minute {m}: {time_words(point['p50_us'])} ({point['p50_us'] / base:.2f}×)" if point
        else f"minute {m}: not reached" for m, point in points
    )  # fmt: skip


def _json(chart: dict) -> str:
    """JSON that can stand in a script element, whatever the names are."""
    return json.dumps(chart).replace("<", "\\u003c")
