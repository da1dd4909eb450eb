"""Advice on numbers that are missing: jobs that failed, energy that was refused, accuracy that nobody could tell."""

import re
from collections import Counter
from collections.abc import Iterator
from statistics import multimode

from android_bench.report.fields import Said, delegate_asked, energy, facts, failed_jobs, grouped, labels, names, some

AGAIN = "run again with --retry-failed"
CAUSES = (  # words in the error -> what to do
    (r"changed since the run began", "Its name stands for the old file in this folder"),
    (r"time limit|no end within|did not end|timed? ?out|timeout", "The model hangs or is too slow for its time: look "
     f"whether the phone sleeps, try --delegate cpu, then {AGAIN}"),
    (r"\b137\b|killed|memory", "Close other apps or use a smaller model or batch: memory ran out, or the phone's "
     "watchdog stepped in"),
    (r"\b126\b|\b132\b|wrong ABI|exec format|not executable|illegal instruction",
     "Give a binary for this phone's ABI with --benchmark-binary"),
    (r"\b127\b|not found|no such file", "Run `android-bench clean`, then run again: a file is gone from the phone"),
    (r"shared library .* is missing", f"Give it with --library, then {AGAIN}"),
    (r"\bspace\b|storage", "Free some storage on the phone (`android-bench clean` removes our own files)"),
    (r"unauthorized", "Accept the question about USB debugging on the phone's screen"),
    (r"offline|\blost\b|disconnect|the link|connection broke", "Check cable or Wi-Fi, then run again: finished jobs "
     "are kept"),
    (r"\b13[459]\b|crash|\bSIG(SEGV|ABRT|BUS|ILL)\b|abort", "The runtime can't run this file this way: try "
     "--delegate cpu or another precision"),
    (r"delegate|gpu|nnapi|hexagon", "Try --delegate cpu: this phone's driver refuses the model"),
)  # fmt: skip
REFUSALS = (  # words in the refusal -> what to do
    (r"updates? stopped|spoof", "Run `adb shell dumpsys battery reset`: another tool froze the battery's numbers"),
    (r"\bchar(ging|ged)\b|plugged|powered", "Unplug the phone: use wireless adb, or a USB hub that can cut its power"),
    (r"suspend|asleep|slept", "Keep the screen on while measuring: the phone slept"),
    (r"not monotonic|jumped|backwards", "Measure it again: the gauge set itself anew in between"),
    (r"steps?\b|resolution|not above idle|constant|too few", "Measure for longer: the meter is too coarse for this "
     "load"),
    (r"no meter|not supported|plausible|nonsense|no battery", "This phone can't tell: take another one, or an external "
     "meter"),
    (r"gives times only", "Give it with --benchmark-binary"),
)  # fmt: skip


def failed(rows) -> Iterator[Said]:
    for cause, mine in grouped(rows, lambda row: row.error):
        yield "problem", mine, f"{some(labels(mine))} failed ({cause.rstrip('.')}). {_mend(cause, mine)}."


def failed_in_part(rows) -> Iterator[Said]:
    """Rows with numbers whose repetitions, or whose sustained load, or first attempts, failed."""
    rows = [row for row in rows if not row.error]
    gone = [row for row in rows if failed_jobs(row, "latency", "sustain")]
    passed = [row for row in rows if facts(row).get("failures") and not failed_jobs(row)]
    if gone:
        lost = [job for row in gone for job in failed_jobs(row, "latency", "sustain")]
        what = " and ".join(f"{count} {kind}" for kind, count in Counter(job["kind"] for job in lost).items())
        cause = multimode(job["error"] for job in lost)[0].rstrip(".")
        yield (
            "warning", gone, f"{what} job{'s' * (len(lost) > 1)} of {names(gone)} failed ({cause}). What is shown is "
            f"of the others: {AGAIN}.",
        )  # fmt: skip
    if passed:
        failures = [words for row in passed for words in facts(row)["failures"]]
        what = "1 attempt failed and was" if len(failures) == 1 else f"{len(failures)} attempts failed and were"
        cause = multimode(failures)[0].rstrip(".")
        yield "note", passed, f"{what} made again for {names(passed)} ({cause}). Nothing is missing."


def no_memory(rows) -> Iterator[Said]:
    for why, mine in grouped(rows, lambda row: row.peak_memory_bytes is None and not row.error
                            and facts(row).get("memory_note")):  # fmt: skip
        yield "note", mine, f"no peak memory for {names(mine)}: {why.rstrip('.')}."


def energy_refused(rows) -> Iterator[Said]:
    for reason, mine in grouped(rows, lambda row: energy(row).get("refused")):
        minutes = max((energy(row).get("minutes_needed") or 0 for row in mine), default=0)
        again = f"R{AGAIN[1:]}" if failed_jobs(mine[0], "energy") else "Measure it again"
        longer = f" with --energy-minutes {-(-minutes // 1):.0f} or more" if minutes else ""
        action = _action(REFUSALS, reason) or again
        yield "warning", mine, f"no energy for {names(mine)}: {reason.rstrip('.')}. {action}{longer}."


def no_accuracy(rows) -> Iterator[Said]:
    rows = [row for row in rows if row.accuracy is None and not row.error]
    plain = [row for row in rows if not facts(row).get("accuracy_note")]
    if plain:
        yield "note", plain, f"no accuracy for {names(plain)}. Give samples with --eval data.npz."
    for reason, mine in grouped(rows, lambda row: facts(row).get("accuracy_note")):
        broken = failed_jobs(mine[0], "accuracy")
        action = f" {_mend(reason, mine)}." if broken else ""
        action = " Add y, the class numbers, to the .npz." if "no labels" in reason else action
        yield "warning" if broken else "note", mine, f"no accuracy for {names(mine)} ({reason.rstrip('.')}).{action}"


def _action(table, words: str) -> str | None:
    return next((action for pattern, action in table if re.search(pattern, words, re.I)), None)


def _mend(cause: str, rows) -> str:
    """What to do about a failed job. Who ran on the processor already is not sent there."""
    plain = any(delegate_asked(row) in ("cpu", "xnnpack", "builtin") for row in rows)
    action = _action(CAUSES[: -1 if plain else None], cause)
    if action and plain:
        return action.replace("try --delegate cpu or", "try").replace("try --delegate cpu, then ", "")
    if action:
        return action
    logs = [job["log"] for row in rows for job in failed_jobs(row) if job["log"]]
    return f"Read what the tool said: {logs[0]}" if logs else f"R{AGAIN[1:]}"
