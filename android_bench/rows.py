"""From the lines of single jobs to one `Result` row for each configuration on each phone."""

import statistics

from android_bench.job import Configuration
from android_bench.result import Result
from android_bench.stats import outliers

MEDIANS = {  # field of a row -> field of a repetition; the row has the median over the repetitions
    "latency_p5_us": "p5_us", "latency_p50_us": "p50_us", "latency_p95_us": "p95_us", "latency_mean_us": "mean_us",
    "latency_std_us": "std_us", "init_us": "init_us", "first_run_us": "first_us", "cpu_percent": "cpu_percent",
}  # fmt: skip


def make_row(configuration: Configuration, device: dict, lines: list[dict]) -> Result:
    """The row of one configuration.

    Args:
        device: "label", "kind" ("android", "emulated", "host") and "facts" of the phone.
        lines: the lines of jobs.jsonl that belong to it, in the order they were run.
    """
    latency = [line for line in lines if line["kind"] == "latency"]
    runs = [line["found"] for line in latency if not line["error"]]
    facts = device["facts"] | _job_facts(configuration, lines) | _repetition_facts(latency)
    fields = {}
    for kind in ("accuracy", "sustain", "energy"):
        line = next((line for line in lines if line["kind"] == kind), None)
        if line and line["error"]:
            facts |= _refused(kind, line["error"])
        elif line:
            found = dict(line["found"])
            facts |= found.pop("facts", {}) | {name: found.pop(name) for name in ("sustain", "energy") if name in found}
            fields |= found
    energy = facts.get("energy", {})
    row = Result(
        id=configuration.model.id, recipe="as given", device=device["label"], device_kind=device["kind"],
        model_sha256=configuration.model.sha256, raw_bytes=configuration.model.bytes, threads=configuration.threads,
        delegate=runs[0]["ran_on"] if runs else None, runs=sum(run["count"] or 0 for run in runs) or None,
        peak_memory_bytes=next((run["peak_memory_bytes"] for run in runs if run.get("peak_memory_bytes")), None),
        energy_joules=max(0.0, energy["joules"]) if "joules" in energy else None, energy_source=energy.get("source"),
        versions=device.get("versions"), facts=facts, **fields,
    )  # fmt: skip
    if not runs:
        return row.replace(error=latency[0]["error"] if latency else "not timed")
    middle = {name: _median(run.get(key) for run in runs) for name, key in MEDIANS.items()}
    ends = {"latency_min_us": _edge(min, runs, "min_us"), "latency_max_us": _edge(max, runs, "max_us")}
    return row.replace(**middle, **ends)


def _job_facts(configuration: Configuration, lines: list[dict]) -> dict:
    failures = [words for line in lines for words in line["failures"]]
    failed = [line for line in lines if line["error"]]
    facts = {
        "delegate_asked": configuration.delegate, "core_mask": configuration.mask or None,
        "attempts": sum(line["attempts"] for line in lines), "failures": failures or None,
        "failed_jobs": [{name: line.get(name) for name in ("kind", "error", "log")} for line in failed] or None,
        "job_seed": lines[0]["seed"] if lines else None,
    }  # fmt: skip
    return {name: value for name, value in facts.items() if value is not None}


def _repetition_facts(latency: list[dict]) -> dict:
    """The single repetitions, which of them are outliers or were throttled, and what the tool said."""
    runs = [line["found"] | {"order": line["order"]} for line in latency if not line["error"]]
    if not runs:
        return {}
    medians = [run["p50_us"] or run["mean_us"] for run in runs]
    wild = outliers(medians) if len(medians) > 2 else [False] * len(medians)
    said = ("ran_on", "note", "unconsumed", "tool", "peak_memory_bytes", "memory_note", "fixed_performance",
            "cores_note")  # fmt: skip
    repetitions = [
        {key: value for key, value in run.items() if key not in said} | {"outlier": bool(is_wild)}
        for run, is_wild in zip(runs, wild, strict=True)
    ]
    watched = any("throttled" in run for run in runs)
    notes = list(dict.fromkeys(run["note"] for run in runs if run["note"]))
    ran_on = list(dict.fromkeys(run["ran_on"] for run in runs))
    notes += [f"not the same in each repetition: {', '.join(map(str, ran_on))}"] if len(ran_on) > 1 else []
    facts = {
        "repetitions": repetitions,
        "outlier_repetitions": sum(bool(is_wild) for is_wild in wild),
        "throttled_repetitions": sum(bool(run.get("throttled")) for run in runs) if watched else None,
        "system_cpu_percent": _median(run["system_percent"] for run in runs),
        "fixed_performance": all(run.get("fixed_performance") for run in runs) or None,
        "delegate_note": "; ".join(notes) or None,
        "cores_note": next((run["cores_note"] for run in runs if run.get("cores_note")), None),
        "memory_note": next((run["memory_note"] for run in runs if run.get("memory_note")), None),
        "unconsumed_flags": list(dict.fromkeys(flag for run in runs for flag in run["unconsumed"])) or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _refused(kind: str, error: str) -> dict:
    if kind == "energy":
        return {"energy": {"refused": error, "minutes_needed": None}}
    return {f"{kind}_note": error}


def _median(values) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _edge(which, runs: list[dict], key: str) -> float | None:
    known = [run[key] for run in runs if run[key] is not None]
    return which(known) if known else None
