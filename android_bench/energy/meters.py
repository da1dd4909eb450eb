"""Power from meters that tell it more or less directly: on-device rail meters (ODPM), and current times voltage."""

import dataclasses
import math

import numpy as np

from android_bench.energy.trace import Phases, Trace, charging, currents

LAG_SECONDS = 15.0  # how long a gauge may still tell of the phase before
LAG_SHARE = 0.1  # but no more than this share of a phase is left out for it
READ_SECONDS = 0.25  # how long after its time stamp a meter may have been read
PLAUSIBLE_WATTS = (0.1, 25.0)  # of a phone that is awake and works
BATCHES = 10
T975 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)  # Student's t for 1 to 9 degrees of freedom


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why there are no joules; `minutes_needed` of load would do, None where more time doesn't help or isn't known."""

    reason: str
    minutes_needed: float | None = None


@dataclasses.dataclass(frozen=True)
class Power:
    """Mean power of a phase; the true one lies within `watts` +- `half` (95 %)."""

    watts: float
    half: float


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one source says. Its error falls with time to the power of `falls`; None: more time doesn't help."""

    source: str
    before: Power
    load: Power
    after: Power
    resolution_joules: float
    rule: str
    falls: float | None


def settled(phase: tuple[float, float]) -> tuple[float, float]:
    """The phase without its begin, where a slow gauge may still tell of the phase before."""
    begin, end = phase
    return begin + min(LAG_SECONDS, LAG_SHARE * (end - begin)), end


def odpm(trace: Trace, when: Phases) -> Reading | Refusal | None:
    """The phone's own power meters, read at the four marks. They tell the consumption on USB as well."""
    if not any(sample.odpm for sample in trace.samples):
        return None
    marks = [trace.marked(name) for name in ("begin", "load_begin", "load_end", "end")]
    if any(mark is None or mark.odpm is None for mark in marks):
        return Refusal("odpm: the meters were not read at all four marks")
    times, every = [mark.uptime_seconds for mark in marks], [mark.odpm.rails for mark in marks]
    if times != sorted(set(times)):
        return Refusal("odpm: the marks are not in order")
    plugged = charging(trace) is not None
    battery = sorted(name for name in every[0] if "battery" in name.lower() or "vbatt" in name.lower())
    names = sorted(set(every[0]) - set(battery)) if plugged or not battery else battery
    if not names or any(name not in rails for name in names for rails in every):
        return Refusal(f"odpm: expected the same rails at all four marks. Received: {sorted(map(len, every))} rails")
    falls = [name for name in names for a, b in zip(every, every[1:], strict=False) if b[name] < a[name]]
    if falls:
        return Refusal(f"odpm: the meter of {falls[0]} went backwards: it was reset in between")
    joules = [sum(rails[name] for name in names) / 1e3 for rails in every]
    rounding = sum(max(0.01, float(np.spacing(np.float32(every[-1][name])))) for name in names) / 1e3
    read = [
        (sample.uptime_seconds, sum(sample.odpm.rails[name] for name in names) / 1e3)
        for sample in trace.samples
        if sample.odpm and all(name in sample.odpm.rails for name in names)
    ]
    powers = []
    for k, phase in enumerate((when.before, when.load, when.after)):
        seconds = times[k + 1] - times[k]
        watts = (joules[k + 1] - joules[k]) / seconds
        half = (rounding + watts * math.sqrt(2) * READ_SECONDS) / seconds
        powers.append(Power(watts, half if phase == when.load else math.hypot(half, _unrest(read, phase))))
    rule = f"power meters: battery rail {' + '.join(names)}" if names == battery else (
        f"power meters: sum of {len(names)} rails, which need not be all that the phone has"
    )  # fmt: skip
    return Reading("odpm", *powers, rounding, rule + (", while plugged in" if plugged else ""), None)


def _unrest(read: list[tuple[float, float]], phase: tuple[float, float]) -> float:
    """By how much the mean power of an idle phase may be off by chance, in watts, from meters (s, J) read during it."""
    apart = []
    for time, joules in read:
        if phase[0] <= time <= phase[1] and (not apart or time - apart[-1][0] >= 20 * READ_SECONDS):
            apart.append((time, joules))
    if len(apart) < 4:
        return 0.0
    within = np.array(apart)[np.linspace(0, len(apart) - 1, min(len(apart), BATCHES + 1)).astype(int)]
    watts = np.diff(within[:, 1]) / np.diff(within[:, 0])
    return T975[len(watts) - 2] * float(watts.std(ddof=1)) / math.sqrt(len(watts))


def current(samples, when: Phases, _capacity) -> Reading | Refusal | None:
    """Current times voltage, averaged over time, its unit and sign found out."""
    if all(sample.current_raw is None for sample in samples):
        return None
    read = currents(samples)
    if len(read) < 0.9 * len(samples):
        return Refusal("current: not supported: the gauge answers 0 or INT_MIN")
    raw = np.array([[time, amount, amount * volt] for time, amount, volt in read])
    begin, end = when.load
    load = raw[(raw[:, 0] > begin) & (raw[:, 0] < end)]
    if len(load) < 3:
        return Refusal("current: too few samples during the load")
    found = _unit_and_sign(load)
    if isinstance(found, Refusal):
        return found
    scale, rule = found  # to ampere
    powers = [_mean_power(raw, phase, scale) for phase in (when.before, when.load, when.after)]
    if None in powers:
        return Refusal("current: too few different values in one of the phases to tell its noise")
    steps = np.diff(np.unique(raw[:, 1]))
    fine = abs(scale) * float(steps.min()) * float(np.mean(raw[:, 2] / raw[:, 1]))  # watts of the smallest difference
    powers = [Power(power.watts, math.hypot(power.half, fine / 2)) for power in powers]
    return Reading("current", *powers, fine * (end - begin), rule, 0.5)


def _unit_and_sign(load: np.ndarray) -> tuple[float, str] | Refusal:
    median, product = float(np.median(load[:, 1])), abs(float(np.median(load[:, 2])))
    if np.mean(load[:, 1] * median < 0) > 0.1:
        return Refusal("current: its sign changes during the load: the phone was charged in between")
    units = [("mA", 1e-3), ("uA", 1e-6)]
    fitting = [unit for unit in units if PLAUSIBLE_WATTS[0] <= product * unit[1] <= PLAUSIBLE_WATTS[1]]
    if not fitting:
        return Refusal(f"current: a median of {median:g} under load is plausible neither in mA nor in uA")
    unit, scale = fitting[0]
    sign = "negative while discharging, as Android says" if median < 0 else "positive while discharging: inverted sign"
    watts = product * scale
    rule = f"current x voltage; median {median:g} under load must be {unit} ({watts:.3g} W); {sign}"
    return math.copysign(scale, median), rule


def _mean_power(raw: np.ndarray, phase, scale: float) -> Power | None:
    """Time-weighted mean of a phase; its error from the spread of the means of up to ten consecutive parts."""
    begin, end = settled(phase)
    part = raw[(raw[:, 0] >= begin) & (raw[:, 0] < end)]  # the sample at the mark is taken when the phase is over
    batches = min(BATCHES, len(part) // 2, int(np.count_nonzero(np.diff(part[:, 1]))))
    if batches < 3:
        return None
    weights = np.gradient(part[:, 0])
    sums = np.array([
        [(piece[:, 2] * weight).sum(), weight.sum()]
        for piece, weight in zip(np.array_split(part, batches), np.array_split(weights, batches), strict=True)
    ])  # fmt: skip
    means = scale * sums[:, 0] / sums[:, 1]
    watts = scale * float(sums[:, 0].sum() / sums[:, 1].sum())
    return Power(watts, T975[batches - 2] * float(means.std(ddof=1)) / math.sqrt(batches))
