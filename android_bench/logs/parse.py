"""What benchmark_model and its sisters print or save -> numbers. Every log format since TensorFlow 1.14 is read.

Run the tool with `2>&1`: half of what tells where the graph ran goes to stderr.
"""

import re
from dataclasses import dataclass, field

from android_bench.logs.delegates import Delegation, delegate_notes, read_delegates, what_ran
from android_bench.logs.failures import failure
from android_bench.logs.log_lines import LONGEST_LINE, Line, LogError, find_number, number, printable, read_lines

_TOKEN = re.compile(r"(count|first|curr|min|max|avg|std|p5|median|p95)=(\S+)")
_ECHO = re.compile(r"([^\[\]\n]{1,100}?) ?: \[(.*)\]", re.DOTALL)
_MOST_ECHOED = 500
_TIMINGS = r"^(?:Average i|I)nference timings in us: (?:[^\n]{0,200}, )?"
_MEMORY = r"^(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): "
_SETUP = re.compile(r"^(?:Loaded model |Loading model from: |Initialized session in )", re.M)
_TFLITE = re.compile(
    r"^(?:STARTING!$|Graph: \[|count=\d|Loaded model |Benchmarking failed\.|(?:Average i|I)nference timings in us"
    r"|Memory footprint delta|Overall peak memory|Unconsumed cmdline flags|Please specify the name of your TF Lite"
    r"|Failed to parse flag|usage: [^\n]{0,200}benchmark_model|Replacing \d|Created TensorFlow Lite "
    r"|(?:Explicitly a|A)pplied \w{1,60} delegate)",
    re.M,
)


@dataclass(frozen=True)
class Runs:
    """One block of runs, times in µs. `None` = not printed. `std_us` is the population's."""

    count: int | None = None
    first_us: float | None = None
    min_us: float | None = None
    max_us: float | None = None
    mean_us: float | None = None
    std_us: float | None = None
    p5_us: float | None = None
    median_us: float | None = None
    p95_us: float | None = None


@dataclass(frozen=True)
class BenchmarkLog:
    """What one run of the tool said. `None` = not measured, or not printed by that version; MB are 2**20 bytes.

    Attributes:
        tool: "tflite", "litert2", or None if no line of the text is either's.
        init_us: loading, applying delegates, allocating.
        first_us: the first warm-up run.
        warmup, timed: None if there were no such runs, or if `failure` says that their times mean nothing.
        memory_init_mb, memory_overall_mb: growth of the resident set; None where both are 0 (a launcher hid it).
        unconsumed: flags that the tool did not know and left out.
        echoed: the tool's `Name: [value]` lines: what it understood of its flags.
        ran_on: "xnnpack", "builtin", "gpu", "nnapi", ...: what really ran; None if nothing did or a cut log can't tell.
        note: what a reader of the numbers must know, or None.
        failure: what went wrong and what to do; None if the run ended well.
    """

    tool: str | None = None
    init_us: float | None = None
    first_us: float | None = None
    warmup: Runs | None = None
    timed: Runs | None = None
    memory_init_mb: float | None = None
    memory_overall_mb: float | None = None
    peak_memory_mb: float | None = None
    model_mb: float | None = None
    unconsumed: tuple[str, ...] = ()
    echoed: dict[str, str] = field(default_factory=dict)
    delegates: tuple[Delegation, ...] = ()
    ran_on: str | None = None
    note: str | None = None
    failure: str | None = None


def parse_log(text: str, exit_code: int | None = None) -> BenchmarkLog:
    """Read the output (stdout and stderr together) of benchmark_model, TFLite's or LiteRT 2's.

    The text may have logcat's columns, colours, CRLF ends and a driver's stray lines in it; of several runs the last
    one is read, of more than 2,000,000 characters the first and the last million.

    Args:
        text: the log, cut or empty if it must be.
        exit_code: of the tool. Anything but 0 is a failure whatever was printed; None = not known.

    >>> log = parse_log("INFO: count=1 curr=9\\nINFO: count=3 first=9 curr=7 min=7 max=9 avg=8.1 std=1")
    >>> log.timed.mean_us, log.timed.median_us, log.warmup.count
    (8.1, None, 1)
    >>> parse_log("Killed", 137).failure
    'killed, most likely out of memory: free memory, or use a smaller model or batch (exit code 137)'

    Raises:
        LogError: `text` is no str or `exit_code` no int.
    """
    if exit_code is not None and not isinstance(exit_code, int):
        raise LogError(f"An exit code is an int or None. Received: {exit_code!r}")
    lines, note = read_lines(text)
    lines = _last_run(lines)
    body = "\n".join(line.message for line in lines)
    tool = _tool(text, body)
    warmup, timed = _blocks(body)
    failed = failure(lines, exit_code) or _contradiction(warmup) or _contradiction(timed)
    unconsumed = _unconsumed(body)
    echoed = _echoed(lines)
    delegates = read_delegates(body)
    can_tell = bool(timed or warmup) and _SETUP.search(body) is not None
    ran_on = None if failed else what_ran(delegates, can_tell=can_tell)
    notes = [note] if note else []
    if not failed:
        notes += delegate_notes(delegates, ran_on, echoed, unconsumed, body) or _went_on(lines)
        notes += _about_the_runs(tool, timed, echoed)
    memory_init, memory_overall = _memory(body)
    return BenchmarkLog(
        tool=tool,
        init_us=_init(body),
        first_us=None if failed else _first(body, warmup),
        warmup=None if failed else warmup,
        timed=None if failed else timed,
        memory_init_mb=memory_init,
        memory_overall_mb=memory_overall,
        peak_memory_mb=_peak(body),
        model_mb=find_number(r"^The input model file size \(MB\): (\S+)", body),
        unconsumed=unconsumed,
        echoed=echoed,
        delegates=delegates,
        ran_on=ran_on,
        note="; ".join(printable(note) for note in notes) or None,
        failure=failed,
    )


def _last_run(lines: list[Line]) -> list[Line]:
    """A log that was appended to, or logcat's memory, holds earlier runs too."""
    starts = [index for index, line in enumerate(lines) if line.message == "STARTING!"]
    return lines[starts[-1] :] if len(starts) > 1 else lines


def _tool(text: str, body: str) -> str | None:
    if re.search(r"^=+ BENCHMARK RESULTS =", body, re.M) or "[litert/tools/benchmark_litert_model" in text:
        return "litert2"
    return "tflite" if _TFLITE.search(body) else None


def _blocks(body: str) -> tuple[Runs | None, Runs | None]:
    """Warm-up and timed runs: the first and the second `count=` line.

    A log that lost its head, or its tail, has one of them: the summary line tells which.
    """
    printed = [_runs(found[0]) for found in re.finditer(r"^count=\d[^\n]*", body, re.M)]
    warmup_mean = find_number(_TIMINGS + r"Warmup(?: \(avg\))?: (\S+)", body)
    mean = find_number(_TIMINGS + r"(?:Inference \(avg\)|no stats|with stats): (\S+)", body)
    if len(printed) >= 2:
        return printed[0], printed[1]
    summary = Runs(mean_us=mean) if mean else None
    if not printed:
        return (Runs(mean_us=warmup_mean) if warmup_mean else None), summary
    if printed[0] and printed[0].mean_us == mean != warmup_mean:
        return None, printed[0]
    return printed[0], summary


def _runs(line: str) -> Runs | None:
    """None for a `count=0` line: its zeros stand for nothing."""
    values = {name: number(value.removesuffix("(all")) for name, value in _TOKEN.findall(line)}
    count = values.get("count")
    if not count or count != int(count) or count > 2**53:
        return None
    if "first" not in values and (count == 1 or "(all same)" in line):
        same = values.get("curr")
        return Runs(int(count), same, same, same, same, None if same is None else 0.0, same, same, same)
    names = ("first", "min", "max", "avg", "std", "p5", "median", "p95")
    return Runs(int(count), *(values.get(name) for name in names))


def _contradiction(runs: Runs | None) -> str | None:
    """Numbers that can't all be true come from a damaged log."""
    if runs is None:
        return None
    samples = (runs.min_us, runs.p5_us, runs.median_us, runs.p95_us, runs.max_us)
    samples = [value for value in samples if value is not None]
    mean_is_inside = True
    if None not in (runs.min_us, runs.mean_us, runs.max_us):
        slack = 1 + 1e-5 * runs.max_us  # the mean is printed with 6 digits, the others as whole numbers
        mean_is_inside = runs.min_us - slack <= runs.mean_us <= runs.max_us + slack
    if samples == sorted(samples) and mean_is_inside:
        return None
    return f"the log is damaged, its times contradict each other ({runs}): run it again"


def _init(body: str) -> float | None:
    in_us = find_number(_TIMINGS + r"Init: (\S+)", body)
    if in_us is not None:
        return in_us
    in_ms = find_number(r"^Initialized session in (\S+?) ?ms", body)
    if in_ms is None:
        in_ms = find_number(r"^Model initialization: (\S+) ms", body)
    return None if in_ms is None else round(in_ms * 1000, 3)


def _first(body: str, warmup: Runs | None) -> float | None:
    if warmup is None:
        return find_number(_TIMINGS + r"First inference: (\S+)", body) or None  # 0 without warm-up: there was none
    return warmup.first_us


def _memory(body: str) -> tuple[float | None, float | None]:
    init, overall = find_number(_MEMORY + r"init=(\S+)", body), find_number(_MEMORY + r"init=\S+ overall=(\S+)", body)
    if init is None and overall is None:
        return find_number(r"^Init footprint: +(\S+) MB", body), find_number(r"^Overall footprint: +(\S+) MB", body)
    return (init, overall) if init or overall else (None, None)


def _peak(body: str) -> float | None:
    peak = find_number(r"^Overall peak memory footprint \(MB\) via periodic monitoring: (\S+)", body)
    return peak or find_number(r"^Peak memory[^:\n]{0,40}: +(\S+) MB", body) or None


def _unconsumed(body: str) -> tuple[str, ...]:
    found = re.search(r"^Unconsumed cmdline flags: ([^\n]+)", body, re.M)
    return tuple(printable(flag) for flag in re.split(r" (?=-)", found[1])) if found else ()


def _echoed(lines: list[Line]) -> dict[str, str]:
    echoed = {}
    for line in lines:
        if line.message.startswith("Initialized session") or len(echoed) == _MOST_ECHOED:
            break
        if line.message.endswith("]") and (found := _ECHO.fullmatch(line.message)):
            echoed.setdefault(printable(found[1]), printable(found[2], LONGEST_LINE))
    return echoed


def _went_on(lines: list[Line]) -> list[str]:
    """The errors that the tool lived with, and its doubts about the inputs' names (and so their order)."""
    doubts = [f"check the inputs' order: {line.message}" for line in lines if line.message.startswith("Tensor # ")]
    errors = [f"error, but it went on: {line.message}" for line in lines if line.level == "ERROR"]
    return doubts[:3] + errors[:3]


def _about_the_runs(tool: str | None, timed: Runs | None, echoed: dict[str, str]) -> list[str]:
    if timed is None:
        if echoed.get("Run w/o invoking kernels") == "1":
            return ["dry run: nothing was run"]
        return ["no timed runs in the log" if tool else "no line of benchmark_model in the log"]
    if timed.median_us == 0 or (timed.mean_us is not None and timed.mean_us < 1):
        return ["below the clock's resolution of 1 µs: only a mean over many runs says something"]
    return []
