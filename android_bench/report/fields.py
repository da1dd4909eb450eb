"""What the report, the advice and the comparison read from a row: its repetitions, its settings, its typical time."""

from typing import Any

from android_bench.result import Result

Said = tuple[str, list[Result], str]  # advice: severity, the rows it is about, the sentence without the device's name


def facts(row: Result) -> dict[str, Any]:
    """The row's facts; empty where it has none."""
    return row.facts or {}


def kind(row: Result) -> str:
    """ "android", "emulated" or "host"; facts that say emulated count, whatever `device_kind` says."""
    return "emulated" if facts(row).get("emulated") else row.device_kind


def repetitions(row: Result) -> list[dict]:
    """One dict a process that ran the model, in the order of the row; empty where none were kept."""
    return facts(row).get("repetitions") or []


def delegate_asked(row: Result) -> str | None:
    """The delegate that the user asked for; where that is not known, the one that ran."""
    return facts(row).get("delegate_asked") or row.delegate


def energy(row: Result) -> dict:
    """`facts["energy"]`: joules with an interval, or `refused` with the reason; empty where nobody asked for it."""
    return facts(row).get("energy") or {}


def failed_jobs(row: Result, *kinds: str) -> list[dict]:
    """The jobs of these kinds (of all, if none is given) without numbers: "kind", "error", "log" (a path or None)."""
    return [job for job in facts(row).get("failed_jobs") or [] if not kinds or job["kind"] in kinds]


def time_us(row: Result) -> tuple[float | None, str]:
    """The median of the runs, or their mean where the tool printed no median or one below its 1 us steps.

    >>> time_us(Result(id="C0", recipe="", device="Pixel 7", latency_p50_us=41.0, latency_mean_us=43.5))
    (41.0, 'median')
    >>> time_us(Result(id="C0", recipe="", device="Pixel 7", latency_p50_us=0, latency_mean_us=0.15))
    (0.15, 'mean')
    """
    if not row.latency_p50_us and row.latency_mean_us is not None:
        return row.latency_mean_us, "mean"
    return row.latency_p50_us, "median"


def sustained_at(row: Result, minute: float) -> dict | None:
    """The point of the `--sustain` curve nearest to that minute, None where there is none within half a minute.

    >>> curve = [{"minute": 0.9, "p50_us": 41.0}, {"minute": 4.8, "p50_us": 52.0}]
    >>> row = Result(id="C0", recipe="", device="Pixel 7", facts={"sustain": curve})
    >>> sustained_at(row, 5)["p50_us"], sustained_at(row, 30)
    (52.0, None)
    """
    points = [point for point in facts(row).get("sustain") or [] if point.get("p50_us")]
    nearest = min(points, key=lambda point: abs(point["minute"] - minute), default=None)
    return nearest if nearest and abs(nearest["minute"] - minute) <= 0.5 else None


def fastest(rows: list[Result]) -> list[Result]:
    """Of each model the row with the shortest time; models without one are left out."""
    best: dict[str, Result] = {}
    for row in rows:
        time = time_us(row)[0]
        if time and (row.id not in best or time < time_us(best[row.id])[0]):
            best[row.id] = row
    return list(best.values())


def settings(row: Result) -> dict[str, str]:
    """How the model was run, in words: `{"delegate": "gpu", "threads": "4 threads", "mask": "cores f0"}`."""
    words = {}
    if delegate_asked(row):
        words["delegate"] = delegate_asked(row)
    if row.threads is not None:
        words["threads"] = f"{row.threads} thread{'s' * (row.threads != 1)}"
    if facts(row).get("core_mask"):
        words["mask"] = f"cores {facts(row)['core_mask']}"
    if row.seed is not None:
        words["seed"] = f"seed {row.seed}"
    return words


def labels(rows: list[Result]) -> list[str]:
    """A short name for each row: its id, and those settings in which the rows of one id differ.

    >>> make = lambda id, threads: Result(id=id, recipe="", device="Pixel 7", threads=threads)
    >>> labels([make("C0", 1), make("C0", 4), make("Q8", 1)])
    ['C0 · 1 thread', 'C0 · 4 threads', 'Q8']
    """
    found = [settings(row) for row in rows]
    names = []
    for row, mine in zip(rows, found, strict=True):
        same_id = [other for peer, other in zip(rows, found, strict=True) if peer.id == row.id]
        varied = [word for name, word in mine.items() if any(other.get(name) != word for other in same_id)]
        names.append(" · ".join([row.id, *varied]))
    return names


def by_device(rows: list[Result]) -> dict[str, list[Result]]:
    """The rows of each device, devices in the order in which they appear."""
    found: dict[str, list[Result]] = {}
    for row in rows:
        found.setdefault(row.device, []).append(row)
    return found


def shown(device: str, rows: list[Result]) -> str:
    """The device's name as a picture has to give it: `Pixel 7 (emulated)`."""
    return device + (" (emulated)" if "emulated" in map(kind, rows) else "")


def some(words: list[str], most: int = 4) -> str:
    """The first of them, and how many there are beside.

    >>> some(["Q8", "P70", "P80"], 2)
    'Q8, P70 and 1 more'
    """
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def names(rows: list[Result]) -> str:
    """Some of the rows' ids, each once."""
    return some(list(dict.fromkeys(row.id for row in rows)))


def grouped(rows: list[Result], key) -> list[tuple[str, list[Result]]]:
    """(words, the rows with these words), without the rows that have none."""
    return [(words, [row for row in rows if key(row) == words]) for words in dict.fromkeys(map(key, rows)) if words]
