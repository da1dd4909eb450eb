"""Two sets of rows against each other: before and after a change, for a table or for a gate in CI."""

import dataclasses
from statistics import median

from rich.table import Table
from rich.text import Text

from android_bench.report.fields import delegate_asked, energy, facts, failed_jobs, repetitions
from android_bench.result import Result
from android_bench.stats import bootstrap_ratio

REPETITIONS = 3  # at least, on both sides, for a verdict
POINTS = 0.5  # accuracy that may go before it counts as a drop
WORSE = ("slower", "more energy", "less accurate", "failed", "only in A", "no longer measured")
BETTER = ("faster", "less energy", "more accurate", "works now")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One quantity of one job, B against A.

    `ratio` is B / A with its 95 % interval, None where there is none. `verdict` is "same", "uncertain" (more
    repetitions would tell), "not enough repetitions", "not measured", "only in B", or one of `WORSE` and `BETTER`. For
    accuracy `ratio` is B / A too; the verdict goes by points.
    """

    id: str
    device: str
    threads: int | None
    delegate: str | None
    mask: str | None
    quantity: str  # "latency", "energy" or "accuracy"
    ratio: float | None
    low: float | None
    high: float | None
    verdict: str
    why: str

    @property
    def worse(self) -> bool:
        """True where a gate should stop."""
        return self.verdict in WORSE


def compare(a_rows: list[Result], b_rows: list[Result], *, threshold: float = 0.05, seed: int = 0) -> list[Comparison]:
    """Match the rows by id × device × threads × delegate asked for × core mask (× seed) and judge B against A.

    Faster or slower: the whole interval of the ratio of medians lies beyond the threshold; same: it lies within.
    Every row of either side is in the result. Energy and accuracy appear where both sides measured them.

    >>> row = Result(id="C0", recipe="", device="Pixel 7", latency_p50_us=40.0)
    >>> [(found.ratio, found.verdict) for found in compare([row], [row.replace(latency_p50_us=50.0)])]
    [(1.25, 'not enough repetitions')]

    Raises:
        ValueError: a threshold outside 0..1, two rows for the same job on one side, or no job that both sides have.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"The threshold is a fraction between 0 and 1, 0.05 is 5 %. Received: {threshold}")
    a, b = _by_job(a_rows, "A"), _by_job(b_rows, "B")
    if not a.keys() & b.keys():
        raise ValueError(
            f"Expected some jobs that both sides have (model, phone, threads, delegate, cores). Received {len(a)} rows "
            f"in A and {len(b)} in B, none in common."
        )
    found = []
    for job in a | b:
        if job not in a or job not in b:
            side, other, row = ("A", "B", a[job]) if job in a else ("B", "A", b[job])
            found.append(_comparison(row, "latency", f"only in {side}", f"{other} has no row for this job"))
            continue
        found.append(_latency(a[job], b[job], threshold, seed))
        found += [item for item in (_energy(a[job], b[job], threshold), _accuracy(a[job], b[job])) if item]
    return found


def format_comparison(found: list[Comparison]) -> Table:
    """The comparisons as a `rich` table, worst first; names are shown as they are, never read as markup."""
    worse, better = sum(item.worse for item in found), sum(item.verdict in BETTER for item in found)
    table = Table(title=Text(f"B against A: {worse} worse, {better} better, {len(found) - worse - better} others"))
    for name in ("model", "device", "how", "quantity", "B / A", "95 % interval", "verdict", "why"):
        table.add_column(name, justify="right" if name in ("B / A", "95 % interval") else "left", overflow="fold")
    for item in sorted(found, key=lambda item: (not item.worse, item.verdict == "same")):
        plain = "" if item.verdict == "same" else "yellow"
        style = "red" if item.worse else "green" if item.verdict in BETTER else plain
        how = " ".join(str(word) for word in (item.delegate, item.threads and f"{item.threads}t", item.mask) if word)
        interval = "" if item.low is None or item.high is None else f"{item.low:.3f} to {item.high:.3f}"
        ratio = "" if item.ratio is None else f"{item.ratio:.3f}"
        words = (item.id, item.device, how, item.quantity, ratio, interval)
        table.add_row(*map(Text, words), Text(item.verdict, style=style), Text(item.why))
    return table


def _by_job(rows: list[Result], side: str) -> dict[tuple, Result]:
    jobs: dict[tuple, Result] = {}
    for row in rows:
        phone = facts(row).get("serial") or row.device  # a label changes when a second phone of the kind joins
        job = (row.id, phone, row.threads, delegate_asked(row), facts(row).get("core_mask"), row.seed)
        if job in jobs:
            raise ValueError(
                f"Expected one row a job. Received two on side {side} for {row.id!r} on {row.device!r}, "
                f"{row.threads} threads, {delegate_asked(row)}: remove one, or compare the folders they came from."
            )
        jobs[job] = row
    return jobs


def _latency(a: Result, b: Result, threshold: float, seed: int) -> Comparison:
    if a.error or b.error:
        verdict = "failed" if not a.error else "not measured" if b.error else "works now"
        return _comparison(b, "latency", verdict, b.error or f"A had failed: {a.error}")
    before, after, name = _times(a, b)
    if not before or not after:
        return _comparison(b, "latency", "not measured", f"{'A' if not before else 'B'} has no time above 0 us")
    ratio = median(after) / median(before)
    why = f"{name} {median(before):.4g} to {median(after):.4g} us; {len(before)} and {len(after)} repetitions"
    why += "".join(_remarks(a, b))
    if a == b or (repetitions(a) and repetitions(a) == repetitions(b)):
        return _comparison(b, "latency", "same", "these are the same measurements", 1.0, 1.0, 1.0)
    if (lost := failed_jobs(b, "latency")) and len(after) < REPETITIONS <= len(before):
        return _comparison(b, "latency", "failed", f"{why}: {lost[0]['error']}", ratio)
    if min(len(before), len(after)) < REPETITIONS:
        return _comparison(b, "latency", "not enough repetitions", f"{why}: measure {REPETITIONS} or more", ratio)
    whole = all(float(value).is_integer() for value in before + after)
    _, low, high = bootstrap_ratio(before, after, seed=seed, step=1.0 if whole else 0.0)
    verdict = _verdict(low, high, threshold, "faster", "slower")
    if len(set(_fixed(a, b))) > 1:
        verdict = "uncertain"  # another clock; `_remarks` says so
    return _comparison(b, "latency", verdict, why, ratio, low, high)


def _times(a: Result, b: Result) -> tuple[list[float], list[float], str]:
    """The times of the repetitions of both, medians if both sides have them above 0, else means."""
    for key, name in (("p50_us", "median"), ("mean_us", "mean")):
        sides = [[run.get(key) for run in repetitions(row)] or [getattr(row, f"latency_{key}")] for row in (a, b)]
        sides = [[value for value in side if value is not None] for side in sides]
        if all(side and min(side) > 0 for side in sides):
            return *sides, name
    return *([value for value in side if value > 0] for side in sides), name


def _remarks(a: Result, b: Result):
    fixed = _fixed(a, b)
    if len(set(fixed)) > 1:
        yield f"; fixed-performance mode in {'A' if fixed[0] else 'B'} only"
    tools = [(facts(row).get("binary") or {}).get("sha256") for row in (a, b)]
    builds = [facts(row).get("fingerprint") for row in (a, b)]
    for name, (old, new) in {"benchmark_model": tools, "build of Android": builds}.items():
        if old and new and old != new:
            yield f"; another {name} in B"
    if a.delegate != b.delegate:
        yield f"; ran on {a.delegate} in A, on {b.delegate} in B"
    for side, row in (("A", a), ("B", b)):
        hot = sum(bool(run.get("throttled")) for run in repetitions(row))
        if hot:
            yield f"; {side} was throttled in {hot} of {len(repetitions(row))}"
        lost = failed_jobs(row, "latency")
        if lost:
            yield f"; {len(lost)} of {side}'s repetitions failed"


def _fixed(a: Result, b: Result) -> list[bool]:
    """Which of the two was measured in fixed-performance mode."""
    return [bool(facts(row).get("fixed_performance")) for row in (a, b)]


def _energy(a: Result, b: Result, threshold: float) -> Comparison | None:
    if not a.energy_joules or not b.energy_joules:
        if bool(a.energy_joules) == bool(b.energy_joules):
            return None
        side, row = ("A", a) if not a.energy_joules else ("B", b)
        return _comparison(b, "energy", "not measured", f"{side}: {energy(row).get('refused') or 'not measured'}")
    ratio = b.energy_joules / a.energy_joules
    why = f"{a.energy_joules:.3g} to {b.energy_joules:.3g} J a run ({a.energy_source}, {b.energy_source})"
    if energy(a) and energy(a) == energy(b):
        return _comparison(b, "energy", "same", "this is the same measurement", 1.0, 1.0, 1.0)
    if a.energy_source != b.energy_source:
        return _comparison(b, "energy", "uncertain", f"{why}: different sources", ratio)
    ends = [energy(row).get(name) for row in (a, b) for name in ("low", "high")]
    if any(end is None or end <= 0 for end in ends):
        return _comparison(b, "energy", "uncertain", f"{why}: no interval above 0 on both sides", ratio)
    low, high = ends[2] / ends[1], ends[3] / ends[0]
    return _comparison(b, "energy", _verdict(low, high, threshold, "less energy", "more energy"), why, ratio, low, high)


def _accuracy(a: Result, b: Result) -> Comparison | None:
    if a.accuracy is None or b.accuracy is None:
        if a.accuracy is b.accuracy:
            return None
        if b.accuracy is None:
            return _comparison(b, "accuracy", "no longer measured", facts(b).get("accuracy_note") or "B has none")
        return _comparison(b, "accuracy", "not measured", "A has none")
    points = 100 * (b.accuracy - a.accuracy)
    verdict = "less accurate" if points < -POINTS else "more accurate" if points > POINTS else "same"
    why = f"{100 * a.accuracy:.2f} to {100 * b.accuracy:.2f} %, {points:+.2f} points"
    samples, data = ([facts(row).get(name) for row in (a, b)] for name in ("eval_samples", "eval_sha256"))
    if samples[0] != samples[1]:
        verdict, why = "uncertain", f"{why}: of {samples[0]} samples in A, of {samples[1]} in B"
    elif all(data) and data[0] != data[1]:
        verdict, why = "uncertain", f"{why}: other data in B"
    return _comparison(b, "accuracy", verdict, why, b.accuracy / a.accuracy if a.accuracy else None)


def _verdict(low: float, high: float, threshold: float, less: str, more: str) -> str:
    if low > 1 + threshold:
        return more
    if high < 1 / (1 + threshold):
        return less
    return "same" if low >= 1 / (1 + threshold) and high <= 1 + threshold else "uncertain"


def _comparison(row: Result, quantity, verdict, why, ratio=None, low=None, high=None) -> Comparison:
    mask = facts(row).get("core_mask")
    return Comparison(
        row.id, row.device, row.threads, delegate_asked(row), mask, quantity, ratio, low, high, verdict, why
    )
