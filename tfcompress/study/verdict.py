"""Does it pay? Each cell against the control on the same device: bytes, gzip, time and accuracy."""

from dataclasses import dataclass, replace

from android_bench.result import Result

MIN_GAIN = 0.05  # less than 5 % smaller or faster is called the same
MAX_POINTS_LOST = 1.0  # of accuracy, in percentage points
MAX_F1_LOST = 0.02


@dataclass(frozen=True)
class Verdict:
    """`bytes`, `gzip`, `time`: real | theoretical | no; `accuracy`: kept | lost; `overall` says it in one word."""

    bytes: str
    gzip: str
    time: str
    accuracy: str
    overall: str  # control | real | theoretical | no | not measured
    why: str


def judge(row: Result, control: Result) -> Verdict:
    """The verdict on `row`. A gain is *theoretical* where zeros are there, but file or time stay as they were.

    >>> control = Result(id="C0", recipe="", device="pc", accuracy=.9, raw_bytes=100, gzip_bytes=90, latency_p50_us=10.)
    >>> pruned = control.replace(id="P90", sparsity=.9, gzip_bytes=20)
    >>> judge(pruned, control).overall, judge(pruned, control).why
    ('theoretical', 'unstructured zeros: same bytes, same time; only the download shrinks (4.5x by gzip)')
    >>> judge(control.replace(id="Q8", raw_bytes=27, gzip_bytes=25, latency_p50_us=4.), control).why
    '3.7x smaller file, 2.5x faster'
    """
    if row.id == control.id:
        return Verdict("no", "no", "no", "kept", "control", "what the others are measured against")
    verdict = saves(row, control)
    kept = keeps_quality(row.accuracy, row.macro_f1, control.accuracy, control.macro_f1)
    if kept is None:
        return replace(verdict, overall="not measured", why="no accuracy was measured")
    if not kept:
        return replace(verdict, accuracy="lost", overall="no", why=f"loses {_loss(row, control)}")
    return replace(verdict, accuracy="kept")


def saves(row: Result, control: Result) -> Verdict:
    """The verdict on bytes and time alone, whatever it does to the accuracy."""
    zeros = (row.sparsity or 0) >= 0.3
    size = gain(control.raw_bytes, row.raw_bytes)
    zipped = gain(control.gzip_bytes, row.gzip_bytes)
    speed = faster(row, control)
    words = [_grade(size, zeros), _grade(zipped, zeros), _grade(speed, zeros)]
    return Verdict(*words, "not measured", *_overall(words, size, zipped, speed, zeros))


def faster(row: Result, control: Result) -> float | None:
    """How many times faster its median is; 1.0 where it is faster, but not in 95 % of the runs: that may be noise.

    None where it was not measured: an emulated phone's times are this computer's.
    """
    if row.device_kind == "emulated":
        return None
    times = gain(control.latency_p50_us, row.latency_p50_us)
    sure = times is None or row.latency_p95_us is None or row.latency_p95_us <= control.latency_p50_us
    return times if sure or times < 1 else 1.0


def keeps_quality(accuracy, macro_f1, control_accuracy, control_macro_f1) -> bool | None:
    """Whether at most 1 point of accuracy and .02 of macro-F1 (where there) are lost; None: not measured."""
    if accuracy is None or control_accuracy is None:
        return None
    lost_points = 100 * (control_accuracy - accuracy)
    lost_f1 = control_macro_f1 - macro_f1 if macro_f1 is not None and control_macro_f1 is not None else 0.0
    return lost_points <= MAX_POINTS_LOST + 1e-9 and lost_f1 <= MAX_F1_LOST + 1e-9


def gain(before, after) -> float | None:
    """How many times smaller or faster; None where one of them is missing or zero."""
    return before / after if before and after else None


def _grade(times: float | None, zeros: bool) -> str:
    if times is None:
        return "not measured"
    if times >= 1 / (1 - MIN_GAIN):
        return "real"
    return "theoretical" if zeros else "no"


def _overall(words, size, zipped, speed, zeros) -> tuple[str, str]:
    gains = [f"{size:.1f}x smaller file"] if words[0] == "real" else []
    gains += [f"{speed:.1f}x faster"] if words[2] == "real" else []
    if speed and speed < 1 - MIN_GAIN:
        gains.append(f"{1 / speed:.1f}x slower")
    if "real" in (words[0], words[2]):
        return "real", ", ".join(gains)
    slower = gains[0] if gains else "same time" if speed else "time not measured"
    if zeros:
        shrinks = f"; only the download shrinks ({zipped:.1f}x by gzip)" if words[1] == "real" else ""
        return "theoretical", f"unstructured zeros: same bytes, {slower}{shrinks}"
    return "no", f"same bytes, {slower}"


def _loss(row: Result, control: Result) -> str:
    lost = [f"{100 * (control.accuracy - row.accuracy):.2f} points of accuracy"]
    if row.macro_f1 is not None and control.macro_f1 is not None:
        lost.append(f"{control.macro_f1 - row.macro_f1:.3f} of macro-F1")
    return " and ".join(word for word in lost if not word.startswith(("-", "0.00 ", "0.000 "))) or lost[-1]
