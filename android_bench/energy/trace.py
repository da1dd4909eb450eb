"""The file that on_device/energy.sh writes: what a phone's battery said, again and again, around a load."""

import dataclasses
import re
import statistics

from android_bench.energy.battery import (
    CHARGING,
    FULL,
    INT_MIN,
    Battery,
    BatteryError,
    Odpm,
    parse_battery,
    parse_health,
    parse_odpm,
)  # fmt: skip

HOLE = 5  # periods without a sample: the phone slept
NONSENSE = 0.1  # share of unusable battery readings that is put up with
STATUS_CHARGES = {CHARGING: "charging", FULL: "full"}


@dataclasses.dataclass(frozen=True)
class Sample:
    """What was read at one time, the battery or, at a mark, the power meters.

    `uptime_seconds` goes on while the phone sleeps; `current_raw` is as printed.
    """

    uptime_seconds: float
    battery: Battery | None = None
    current_raw: int | None = None
    odpm: Odpm | None = None
    mark: str | None = None  # "begin", "load_begin", "load_end" or "end"


@dataclasses.dataclass(frozen=True)
class Trace:
    """The samples in order of time, no two at the same, and the time between two of them that was asked for."""

    samples: tuple[Sample, ...]
    period_seconds: float | None = None

    def marked(self, name: str) -> Sample | None:
        """The sample with that mark."""
        return next((sample for sample in self.samples if sample.mark == name), None)


@dataclasses.dataclass(frozen=True)
class Phases:
    """Begin and end of each phase as uptimes in seconds."""

    before: tuple[float, float]
    load: tuple[float, float]
    after: tuple[float, float]

    @property
    def load_seconds(self) -> float:
        return self.load[1] - self.load[0]


def read_trace(text: str) -> Trace:
    """The blocks of energy.sh's file. What can't be read is left out; no block at all gives a trace without samples.

    >>> trace = read_trace("@ 12.50 80.00\\n@@battery\\n  voltage: 3850\\n@@current\\n-412000\\n")
    >>> trace.samples[0].uptime_seconds, trace.samples[0].current_raw
    (12.5, -412000)

    Raises:
        BatteryError: not a text.
    """
    if not isinstance(text, str):
        raise BatteryError(f"Expected the text of a trace. Received: {type(text).__name__}; decode bytes first.")
    period = re.search(r"^@@period ([0-9]{1,6}(?:\.[0-9]{1,6})?)$", text, re.M)
    blocks = re.split(r"^@ ([0-9]{1,12}\.[0-9]{1,6}) [0-9.]+\r?$", text, flags=re.M)[1:]
    samples = [_sample(float(time), body) for time, body in zip(blocks[::2], blocks[1::2], strict=True)]
    samples.sort(key=lambda sample: (sample.uptime_seconds, sample.mark is None))
    samples = [now for last, now in zip([None, *samples], samples, strict=False) if not _together(last, now)]
    return Trace(tuple(samples), float(period[1]) if period and float(period[1]) > 0 else None)


def _together(last: Sample | None, now: Sample) -> bool:
    return last is not None and last.uptime_seconds == now.uptime_seconds


def _sample(uptime: float, body: str) -> Sample:
    parts = re.split(r"^@@([a-z_]+)(?: ([a-z_]+))?\r?$", body, flags=re.M)[1:]
    sections = {name: (word, text) for name, word, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)}
    battery = odpm = None
    if "battery" in sections:
        battery = parse_battery(sections["battery"][1])
    if "mWs" in sections.get("odpm", (None, ""))[1]:
        try:
            odpm = parse_odpm(sections["odpm"][1])
        except BatteryError:
            odpm = None
    return Sample(uptime, battery, _current(sections, battery), odpm, sections.get("mark", (None, ""))[0])


def _current(sections: dict[str, tuple], battery: Battery | None) -> int | None:
    """From the kernel's file, else from the health service, else from a maker's own line in `dumpsys battery`."""
    number = re.match(r"\s*([+-]?[0-9]{1,18})\s*$", sections.get("current", (None, ""))[1], re.M)
    if number:
        return int(number[1])
    try:
        found = parse_health(sections.get("health", (None, ""))[1]).current_raw
    except BatteryError:
        found = None
    return battery.current_raw if found is None and battery else found


def phases(trace: Trace) -> Phases | str:
    """When the idle phases and the load were; or why the trace can't be used at all, whatever meter there is."""
    marks = [trace.marked(name) for name in ("load_begin", "load_end")]
    if None in marks:
        return "no load marks in the trace: energy.sh was stopped before the load's end, or never ran"
    begin, end = (mark.uptime_seconds for mark in marks)
    first, last = trace.samples[0].uptime_seconds, trace.samples[-1].uptime_seconds
    if not first < begin < end < last:
        return "no idle baseline: expected samples before the load, during it and after it"
    if any(sample.battery and sample.battery.updates_stopped for sample in trace.samples):
        return (
            "spoofed: the phone's battery service was frozen by `dumpsys battery set` or `unplug` (UPDATES STOPPED); "
            "run `dumpsys battery reset` on it"
        )
    return _slept(trace) or Phases((first, begin), (begin, end), (end, last))


def _slept(trace: Trace) -> str | None:
    times = [sample.uptime_seconds for sample in trace.samples]
    gaps = [later - time for time, later in zip(times, times[1:], strict=False)]
    period = trace.period_seconds or statistics.median(gaps)
    if max(gaps) <= HOLE * period:
        return None
    return (
        f"suspended: no sample for {max(gaps):.0f} s where one was due every {period:g} s; "
        "keep the phone awake (stay-awake setting, screen on)"
    )


def charging(trace: Trace) -> str | None:
    """Why the battery's own numbers tell the charger's work rather than the load's; None while it discharged."""
    read = [sample for sample in trace.samples if sample.battery]
    for sample in (*read[:1], *read[-1:], *read):
        battery = sample.battery
        words = [f"{name} powered" for name in battery.plugged]
        if battery.status in STATUS_CHARGES:
            words.append(f"status {battery.status} ({STATUS_CHARGES[battery.status]})")
        if words:
            when = "at the start" if sample is read[0] else "at the end" if sample is read[-1] else "in between"
            return f"charging {when}: {', '.join(words)}; use Wi-Fi adb, or a hub that switches the power off"
    return None


def sane(trace: Trace) -> list[Sample] | str:
    """The samples with a believable battery reading; or what is wrong where too many have none."""
    asked = [sample for sample in trace.samples if sample.battery or sample.mark is None]
    good = [sample for sample in asked if sample.battery and not sample.battery.problems]
    if len(good) >= (1 - NONSENSE) * len(asked):
        return good
    problems = [sample.battery.problems[0] for sample in asked if sample.battery and sample.battery.problems]
    what = max(sorted(set(problems)), key=problems.count) if problems else "no battery reading"
    return f"nonsense from the battery in {len(asked) - len(good)} of {len(asked)} samples: {what}"


def currents(samples: list[Sample]) -> list[tuple[float, float, float]]:
    """(uptime in s, raw current, volts) of the samples that have a current; 0 and INT_MIN mean "not supported"."""
    return [
        (sample.uptime_seconds, sample.current_raw, sample.battery.voltage_mv / 1e3)
        for sample in samples
        if sample.current_raw not in (None, 0, INT_MIN)
    ]
