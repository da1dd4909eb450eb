"""What to do next: plain rules over the rows, each a sentence with numbers and an action."""

import dataclasses
import re
from collections.abc import Iterator
from statistics import median

from android_bench.report import missing
from android_bench.report.fields import Said, by_device, delegate_asked, facts, grouped, kind, names, repetitions, some
from android_bench.result import Result

SEVERITIES = ("problem", "warning", "note")
SPREAD = 0.10  # (slowest - fastest) / median of the repetitions that calls for more of them
AGREEMENT = 0.99  # share of inputs with this computer's top-1, below which a delegate is worth a look
POINTS = 0.5  # accuracy on the phone against this computer's
LOW_BATTERY = 20  # percent: many phones lower their clocks below
TINY = 20  # microseconds below which the tool's whole ones are coarse
BUSY = 25  # percent of all cores that others used


@dataclasses.dataclass(frozen=True)
class Advice:
    """One sentence: "problem" = a number is missing or wrong, "warning" = it may mislead, "note" = good to know."""

    severity: str
    text: str
    rows: tuple[str, ...]  # "Q8 on Pixel 7"


def advise(rows: list[Result]) -> list[Advice]:
    """All that the rules find, problems first. Rules look at one device at a time.

    >>> row = Result(id="Q8", recipe="", device="Pixel 7", device_kind="android", error="exit code 137: killed")
    >>> print(advise([row])[0].text)
    Pixel 7: Q8 failed (exit code 137: killed). Close other apps or use a smaller model or batch: memory ran out...
    """
    hosts = {row.id: row for row in rows if row.device_kind == "host"}
    found: dict[tuple[str, str], list[Result]] = {}
    for mine in by_device(rows).values():
        rules = (missing.failed,) if mine[0].device_kind == "host" else RULES
        advice = [item for rule in rules for item in rule(mine)]
        for severity, which, text in [*advice, *_other_accuracy(mine, hosts)]:
            found.setdefault((severity, text), []).extend(which)  # the same of several devices is said once
    told = [_advice(severity, text, which) for (severity, text), which in found.items()]
    return sorted(told, key=lambda advice: SEVERITIES.index(advice.severity))


def _advice(severity: str, text: str, rows: list[Result]) -> Advice:
    devices = some(list(by_device(rows)))
    return Advice(severity, f"{devices}: {text}", tuple(f"{row.id} on {row.device}" for row in rows))


def _emulated(rows) -> Iterator[Said]:
    mine = [row for row in rows if kind(row) == "emulated"]
    if mine:
        yield (
            "warning", mine, "emulated. These rows test the harness; their times, energy and temperatures say nothing "
            "about a phone. Attach one by USB or wireless adb for that.",
        )  # fmt: skip


def _throttled(rows) -> Iterator[Said]:
    mine = [row for row in rows if _hot(row)]
    if not mine:
        return
    runs, hot = sum(len(repetitions(row)) for row in rows), sum(map(_hot, rows))
    causes = list(dict.fromkeys(run["throttled"] for row in mine for run in repetitions(row) if run.get("throttled")))
    cooled = [run.get("cooled") or "" for row in mine for run in repetitions(row)]
    ends = [words for words in cooled if "did not cool" in words]
    cooler = f"Raise --cool-down-wait (it ran out {len(ends)} times)" if ends else "Start cooler: a lower --cool-down"
    cooler = "Let it cool (--cool-down 37 --cool-down-wait 300)" if ends and "in 0 s" in ends[0] else cooler
    if any("did not wait" in words for words in cooled):
        cooler = "It was hot from the start: let it cool, then measure into a new folder,"
    threads = max((row.threads or 1 for row in mine), default=1)
    fewer = f" or lower --threads (was {threads})" if threads > 1 else ""
    cause = f" ({causes[0]})" if causes else ""
    yield (
        "warning", mine, f"throttled in {hot} of {runs or hot} runs{cause}; {names(mine)} look slower than they are. "
        f"{cooler}{fewer}.",
    )  # fmt: skip


def _hot(row: Result) -> int:
    counted = facts(row).get("throttled_repetitions")
    return counted if counted is not None else sum(bool(run.get("throttled")) for run in repetitions(row))


NOT_ASKED = r"took nothing|never applied|has no .* delegate|not the same in each"  # in the notes of logs/delegates.py


def _delegates(rows) -> Iterator[Said]:
    for note, mine in grouped(rows, lambda row: facts(row).get("delegate_note")):
        asked, what = delegate_asked(mine[0]), ""
        accelerated = asked not in ("cpu", "xnnpack")
        if re.search(r"\d of \d|\bpart", note):
            what = " The rest ran on the plain kernels."
            if accelerated:
                what = " The rest ran on the CPU, so these times are not the accelerator's alone. Compare with " \
                       "--delegate cpu, or replace the ops that it leaves out."  # fmt: skip
        elif re.search(NOT_ASKED, note):
            what = " These are not the times of what was asked for: compare with --delegate cpu."
        elif "OpenGL" in note:
            what = " The GPU ran, but slower than through OpenCL: see whether its driver is on the phone."
        elif "clock's resolution" in note:
            continue  # `_tiny` tells
        else:
            accelerated = False
        yield "warning" if accelerated else "note", mine, f"{asked} for {names(mine)}: {note.rstrip('.')}.{what}"
    silent = [
        row for row in rows
        if row.delegate and not facts(row).get("delegate_note")
        and (facts(row).get("delegate_asked") or "cpu").partition(":")[0] in ("gpu", "gpu32", "nnapi", "hexagon")
        and row.delegate in ("xnnpack", "builtin")
    ]  # fmt: skip
    if silent:
        yield (
            "warning", silent, f"{delegate_asked(silent[0])} was asked for, {silent[0].delegate} ran, for "
            f"{names(silent)}. These are not the accelerator's times; the tool's words are in the folder logs.",
        )  # fmt: skip


def _other_processor(rows) -> Iterator[Said]:
    """What ran the accuracy samples isn't what was timed."""
    mine = [row for row in rows if row.delegate and facts(row).get("eval_ran_on") not in (None, row.delegate)]
    if mine:
        ran = facts(mine[0])["eval_ran_on"]
        yield (
            "warning", mine, f"accuracy of {names(mine)} comes from {ran}, the times from {mine[0].delegate}: it says "
            f"nothing about how {mine[0].delegate} rounds.",
        )  # fmt: skip


def _old_binary(rows) -> Iterator[Said]:
    mine = [row for row in rows if facts(row).get("unconsumed_flags")]
    if mine:
        flags = list(dict.fromkeys(flag for row in mine for flag in facts(row)["unconsumed_flags"]))
        yield (
            "warning", mine, f"this benchmark_model did not know {', '.join(flags[:4])} and ran without. "
            "It is an older build: give a newer one with --benchmark-binary.",
        )  # fmt: skip


def _spread(rows) -> Iterator[Said]:
    wide = []
    for row in rows:
        times = [run["p50_us"] for run in repetitions(row) if run.get("p50_us") and not run.get("outlier")]
        step = all(float(time).is_integer() for time in times)  # microsecond: two neighbouring whole ones may be equal
        if len(times) > 1 and max(times) - min(times) > max(step, SPREAD * median(times)):
            wide.append(((max(times) - min(times)) / median(times), len(times), row))
    if wide:
        spread, count, worst = max(wide, key=lambda item: item[0])
        mine = [row for _, _, row in wide]
        steady = "" if facts(worst).get("fixed_performance") else " or --fixed-performance"
        yield (
            "warning", mine, f"repetitions of {names(mine)} differ by up to {100 * spread:.0f} % ({worst.id}, {count} "
            f"of them). Differences between models below that mean little: use --repetitions {2 * count}{steady}.",
        )  # fmt: skip


def _single(rows) -> Iterator[Said]:
    mine = [row for row in rows if len(repetitions(row)) == 1 and not row.error]
    if mine:
        yield (
            "note", mine, f"one repetition for {names(mine)}: how much a time changes from process to process is not "
            "known, and `android-bench compare` gives no verdict. Use --repetitions 5.",
        )  # fmt: skip


def _outliers(rows) -> Iterator[Said]:
    mine = [row for row in rows if facts(row).get("outlier_repetitions")]
    if mine:
        wild, runs = sum(facts(row)["outlier_repetitions"] for row in mine), sum(len(repetitions(r)) for r in mine)
        yield (
            "note", mine, f"{wild} of {runs} repetitions of {names(mine)} lie far from the others. The medians are "
            "robust to it; if it goes on, close other apps and wait some minutes after the start of the phone.",
        )  # fmt: skip


def _screen(rows) -> Iterator[Said]:
    mine = [row for row in rows if facts(row).get("screen") == "off"]
    if mine:
        yield (
            "warning", mine, "the screen was off. Many phones then keep shell programs on the slow cores: turn it on "
            "and leave it on while measuring latency.",
        )  # fmt: skip


def _settings(rows) -> Iterator[Said]:
    for names_, mine in grouped(rows, lambda row: ", ".join(facts(row).get("settings_refused") or [])):
        yield (
            "warning", mine, f"the phone kept {names_} as it was, so its screen may go off in the middle. Change it by "
            "hand; Xiaomi wants 'USB debugging (Security settings)' in the developer options.",
        )  # fmt: skip


def _battery(rows) -> Iterator[Said]:
    levels = [((facts(row).get("battery") or {}).get("percent"), row) for row in rows]
    low = [(percent, row) for percent, row in levels if percent is not None and percent < LOW_BATTERY]
    if low:
        yield (
            "warning", [row for _, row in low], f"the battery was at {min(percent for percent, _ in low)} %. Below "
            f"{LOW_BATTERY} % phones lower their clocks: charge it to 40 to 80 % first.",
        )  # fmt: skip


def _cores(rows) -> Iterator[Said]:
    for note, mine in grouped(rows, lambda row: facts(row).get("cores_note")):
        yield "warning", mine, f"{note} for {names(mine)}: these are not the times of the cores that were asked for."
    clusters = facts(rows[0]).get("clusters") or []
    clocks = {cluster.get("max_khz") for cluster in clusters if cluster.get("max_khz")}
    cores = sum(len(cluster["cpus"]) for cluster in clusters)
    mine = [row for row in rows if not row.error and not facts(row).get("core_mask") and (row.threads or 1) < cores]
    if len(clocks) < 2 or not mine:
        return
    fast, threads = [], max(row.threads or 1 for row in mine)
    for cluster in sorted(clusters, key=lambda c: -(c.get("max_khz") or 0)):
        fast += cluster["cpus"] if len(fast) < threads else []
    yield (
        "note", mine, f"cores of {min(clocks) / 1e6:.2f} to {max(clocks) / 1e6:.2f} GHz and no core mask: the system "
        f"chose where the threads ran. For the fast cores alone: --cores {sum(1 << core for core in fast):x}.",
    )  # fmt: skip


def _tiny(rows) -> Iterator[Said]:
    mine = [row for row in rows if row.latency_p50_us is not None and row.latency_p50_us < TINY and kind(row) != "host"]
    if mine:
        least, most = (end(row.latency_p50_us for row in mine) for end in (min, max))
        span = f"{least:g}" if least == most else f"{least:g} to {most:g}"
        yield (
            "note", mine, f"{names(mine)} take{'s' * (len(mine) == 1)} {span} µs a run, and the tool counts in whole "
            f"ones: 1 µs is {'all' if least <= 1 else f'up to {100 / least:.0f} %'} of that. Read the mean, and don't "
            "trust differences of 1 µs.",
        )  # fmt: skip


def _busy(rows) -> Iterator[Said]:
    mine = []
    for row in rows:
        cores = sum(len(cluster["cpus"]) for cluster in facts(row).get("clusters") or [])
        used = facts(row).get("system_cpu_percent")
        if cores and kind(row) != "emulated" and used is not None and used - (row.cpu_percent or 0) / cores > BUSY:
            mine.append((used - (row.cpu_percent or 0) / cores, row))
    if mine:
        yield (
            "warning", [row for _, row in mine], f"other programs used up to {max(used for used, _ in mine):.0f} % of "
            "all cores. Close apps, stop syncing and updates, then measure again.",
        )  # fmt: skip


def _disagree(rows) -> Iterator[Said]:
    known = [row for row in rows if facts(row).get("host_agreement") is not None]
    mine = [row for row in known if facts(row)["host_agreement"] < AGREEMENT]
    if mine:
        worst = min(mine, key=lambda row: facts(row)["host_agreement"])
        yield (
            "warning", mine, f"{worst.id} on {worst.delegate} gives this computer's answer for only "
            f"{100 * facts(worst)['host_agreement']:.1f} % of the inputs. A GPU computes in float16 and other kernels "
            "round otherwise: judge by the accuracy on the phone, or run with --delegate cpu.",
        )  # fmt: skip


def _other_accuracy(rows, hosts) -> Iterator[Said]:
    gaps = []
    for row in rows:
        host = hosts.get(row.id)
        if host and row.accuracy is not None and host.accuracy is not None and host.model_sha256 == row.model_sha256:
            gaps.append((100 * (row.accuracy - host.accuracy), row))
    mine = [(points, row) for points, row in gaps if abs(points) > POINTS]
    if mine:
        points, worst = max(mine, key=lambda item: abs(item[0]))
        yield (
            "problem", [row for _, row in mine], f"accuracy of {names([row for _, row in mine])} is not this "
            f"computer's: {worst.id} has {100 * worst.accuracy:.2f} %, {points:+.2f} points ({worst.delegate}). "
            "Quote the phone's number, and try --delegate cpu to see whether the accelerator is the cause.",
        )  # fmt: skip


RULES = (
    _emulated, missing.failed, missing.failed_in_part, _throttled, missing.energy_refused, _delegates,
    _other_processor, _old_binary, _spread, _single, _outliers, _screen, _settings, _battery, _cores, _tiny, _busy,
    _disagree, missing.no_accuracy, missing.no_memory,
)  # fmt: skip
