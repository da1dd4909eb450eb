"""Power from a counter that falls in steps: the charge counter of a battery, or its level in percent."""

import dataclasses
import math

import numpy as np

from android_bench.energy.meters import Power, Reading, Refusal, settled
from android_bench.energy.trace import Phases

STEPS = 5  # fewer steps than that during the load are no measurement
PLAUSIBLE_UAH = (300e3, 50e6)  # full: a watch; a large tablet


@dataclasses.dataclass(frozen=True)
class Edge:
    """A fall of a counter, seen at `time` (s) to `value` (uAh) by `drop`, `gap` seconds after the sample before.

    `early`: when the counter was last known to stand on the value before.
    """

    time: float
    early: float
    gap: float
    value: float
    drop: float


def step_joules(step_uah: float, voltage_mv: float) -> float:
    """Energy of one step of a charge counter.

    >>> round(step_joules(1000, 3850), 1)  # 1 mAh
    13.9
    """
    return step_uah * 3.6e-3 * voltage_mv / 1e3


def minutes_needed(
    step_uah: float, voltage_mv: float, watts: float, *, steps: int = STEPS, relative_error: float | None = None
) -> float:
    """Minutes of a load of `watts` until the counter has made `steps` steps, and enough of them that one step more or
    less is `relative_error` (0.1 = 10 %) of the whole.

    >>> round(60 * minutes_needed(1000, 3850, 3.0, steps=1), 1)  # seconds for 1 mAh
    4.6
    >>> round(minutes_needed(1000, 3850, 3.0, relative_error=0.01), 1)
    7.7

    Raises:
        ValueError: a value that isn't above 0.
    """
    values = (step_uah, voltage_mv, watts, steps, 1 if relative_error is None else relative_error)
    if not all(value > 0 for value in values):
        raise ValueError(
            "Expected a step, a voltage, a power, a number of steps and a relative error above 0. Received: "
            f"{step_uah=}, {voltage_mv=}, {watts=}, {steps=}, {relative_error=}"
        )
    if relative_error is not None:
        steps = max(steps, math.ceil(1 / relative_error - 1e-9))
    return steps * step_joules(step_uah, voltage_mv) / watts / 60


def charge_counter(samples, when: Phases, _capacity) -> Reading | Refusal | None:
    """From the battery's charge; None where the phone doesn't tell it."""
    read = [sample for sample in samples if sample.battery.charge_uah is not None]
    if not read:
        return None
    for sample in read:
        if sample.battery.level_percent and sample.battery.level_percent >= 5:
            full = 100 * sample.battery.charge_uah / sample.battery.level_percent
            if not PLAUSIBLE_UAH[0] <= full <= PLAUSIBLE_UAH[1]:
                return Refusal(f"charge_counter: nonsense: it would mean a full battery of {full / 1e3:.4g} mAh")
    return _staircase("charge_counter", read, [sample.battery.charge_uah for sample in read], when)


def level(samples, when: Phases, capacity_uah) -> Reading | Refusal | None:
    """From the level in percent; None where the full charge isn't known."""
    read = [sample for sample in samples if sample.battery.level_percent is not None]
    if not read or not capacity_uah:
        return None
    return _staircase("level", read, [sample.battery.level_percent * capacity_uah / 100 for sample in read], when)


def _staircase(source: str, samples, values: list[float], when: Phases) -> Reading | Refusal:
    """Power from a counter that falls in steps, by the times at which it was seen to fall."""
    edges = _edges(samples, values)
    if any(edge.drop < 0 for edge in edges):
        rise = max(-edge.drop for edge in edges) / 1e3
        return Refusal(f"{source}: not monotonic: it rose by {rise:.4g} mAh while discharging (gauge recalibrated?)")
    if not edges:
        return Refusal(f"{source}: constant at {values[0] / 1e3:.6g} mAh")
    step = min(edge.drop for edge in edges)
    begin, end = when.load
    during = [edge for edge in edges if begin < edge.time <= end]
    steps = sum(edge.drop for edge in during) / step
    volts = np.array([sample.battery.voltage_mv / 1e3 for sample in samples])
    joules = step_joules(step, 1e3 * float(volts.mean()))
    if steps < STEPS - 0.01:
        watts = max(steps, 1) * joules / (end - begin)
        return Refusal(
            f"{source}: below resolution: {steps:.3g} steps of {step / 1e3:.4g} mAh during the load, "
            f"at least {STEPS} are needed",
            minutes_needed(step, 1e3 * float(volts.mean()), watts),
        )
    rates = [edge.drop / (edge.time - last.time) for last, edge in zip(during, during[1:], strict=False)]
    usual = float(np.median(rates)) if rates else 0.0
    for last, edge in zip(during, during[1:], strict=False):
        if edge.drop > 3 * step + 2 * usual * (edge.time - last.time):
            return Refusal(f"{source}: it jumped by {edge.drop / 1e3:.4g} mAh at once (gauge recalibrated?)")
    times = np.array([sample.uptime_seconds for sample in samples])
    stale = float(np.median([edge.time - edge.early for edge in edges]))
    powers = [_phase_power(edges, phase, step, stale, times, volts) for phase in (when.before, when.load, when.after)]
    if None in powers:
        return Refusal(f"{source}: too few samples in one of the phases")
    rule = f"{source} x mean voltage, steps of {step / 1e3:.4g} mAh ({joules:.3g} J), {steps:.4g} during the load"
    return Reading(source, *powers, joules, rule, 1.0)


def _edges(samples, values) -> list[Edge]:
    edges, fresh = [], 0  # fresh: the sample before the last one at which anything had changed
    for k in range(1, len(values)):
        (time, now), (previous, then) = (
            (sample.uptime_seconds, sample.battery) for sample in (samples[k], samples[k - 1])
        )
        if values[k] != values[k - 1]:
            drop = values[k - 1] - values[k]
            edges.append(Edge(time, samples[fresh].uptime_seconds, time - previous, values[k], drop))
        if (now.charge_uah, now.voltage_mv, now.celsius) != (then.charge_uah, then.voltage_mv, then.celsius):
            fresh = k - 1
    return edges


def _phase_power(edges, phase, step: float, stale: float, times, volts) -> Power | None:
    """The narrower of two bounds: from the first edge to the last, or by the number of steps in the whole phase."""
    begin, end = settled(phase)
    inside = (times >= begin) & (times <= end)
    if inside.sum() < 2:
        return None
    volt = float(volts[inside].mean())
    noise = 2 * float(volts[inside].std()) / volt / math.sqrt(inside.sum())
    edges = [edge for edge in edges if begin < edge.time <= end]
    bounds = [_by_count(edges, end - begin, step, stale)]
    if len(edges) >= 2:
        bounds += _by_edges(edges[0], edges[-1], step)
    rate, half = min(bounds, key=lambda bound: bound[1])  # uAh/s
    return Power(rate * 3.6e-3 * volt, (half + noise * rate) * 3.6e-3 * volt)


def _by_count(edges, seconds: float, step: float, stale: float) -> tuple[float, float]:
    """n steps in a phase, or `stale` seconds less or more of it, are more than n - 1 and less than n + 1 steps."""
    count = sum(edge.drop for edge in edges) / step
    least, most = max(count - 1, 0) / (seconds + stale), (count + 1) / max(seconds - stale, seconds / 2)
    return step * (least + most) / 2, step * (most - least) / 2


def _by_edges(first: Edge, last: Edge, step: float) -> list[tuple[float, float]]:
    """The charge between two edges is known to a step when they were seen; it is exact at the times when they were,
    between `early` and `time`. The rate of either with its error.
    """
    drop, seconds = first.value - last.value, last.time - first.time
    rate = drop / seconds
    bounds = [(rate, (step + rate * (first.gap + last.gap) / 2) / seconds)]
    middle = (last.time + last.early - first.time - first.early) / 2
    loose = (last.time - last.early + first.time - first.early) / 2
    if middle > loose:
        bounds.append((drop * middle / (middle**2 - loose**2), drop * loose / (middle**2 - loose**2)))
    return bounds
