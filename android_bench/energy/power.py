"""From a trace of a phone's battery to joules per inference with a 95 % interval, or to the reason why not.

Each source gives the mean power of three phases: idle, load, idle. What the load cost is the difference, times its
seconds. The interval holds the source's resolution, its noise and the drift of the idle power; it can't hold a gauge's
own calibration error (1 to 3 % is common), which is the same for every model on that phone.
"""

import dataclasses
import math

from android_bench.energy.meters import Reading, Refusal, current, odpm
from android_bench.energy.staircase import charge_counter, level, minutes_needed
from android_bench.energy.trace import Phases, Trace, charging, phases, read_trace, sane

WANDER = 0.04  # share by which a phone's idle power differs from one quarter of an hour to the next

__all__ = ["Energy", "Refusal", "energy", "minutes_needed", "read_trace"]


@dataclasses.dataclass(frozen=True)
class Energy:
    """Net joules of one inference with their 95 % interval, idle power subtracted.

    `resolution_joules` is the smallest energy that the source tells apart; `rule` says how it was read, in words.
    """

    joules_per_inference: float
    low: float
    high: float
    source: str  # "odpm", "charge_counter", "current" or "level"
    resolution_joules: float
    idle_watts: float
    load_watts: float
    seconds: float
    rule: str


def energy(trace: Trace, inferences: int, *, capacity_uah: float | None = None) -> Energy | Refusal:
    """Joules per inference from the best source in the trace: ODPM, charge counter, current, level.

    Args:
        inferences: runs between the marks load_begin and load_end, warm-up included.
        capacity_uah: charge of the full battery; only the level needs it.
    """
    if inferences <= 0:
        return Refusal(f"no inferences: expected 1 or more during the load. Received: {inferences}")
    when = phases(trace)
    if isinstance(when, str):
        return Refusal(when)
    refusals = []
    metered = odpm(trace, when)
    if metered is not None:
        metered = metered if isinstance(metered, Refusal) else _net(metered, when, inferences)
        if isinstance(metered, Energy):
            return metered
        refusals.append(metered)
    samples = sane(trace)
    why = samples if isinstance(samples, str) else charging(trace)
    if why:
        return _joined([Refusal(why), *refusals])
    for read in (charge_counter, current, level):
        found = read(samples, when, capacity_uah)
        if isinstance(found, Reading):
            found = _net(found, when, inferences)
        if isinstance(found, Energy):
            return found
        if found is not None:
            refusals.append(found)
    return _joined(refusals or [Refusal("no meter: the phone tells neither a charge counter nor a current")])


def _joined(refusals: list[Refusal]) -> Refusal:
    minutes = [refusal.minutes_needed for refusal in refusals if refusal.minutes_needed is not None]
    return Refusal("; ".join(refusal.reason for refusal in refusals), min(minutes, default=None))


def _net(reading: Reading, when: Phases, inferences: int) -> Energy | Refusal:
    """Load minus idle. The idle power during the load is taken as the mean of before and after. It may be as far from
    that as these two are from each other, and two phases that agree by chance don't make it known to less than WANDER.
    """
    before, load, after, seconds = reading.before, reading.load, reading.after, when.load_seconds
    drift = abs(before.watts - after.watts)
    idle = (before.watts + after.watts) / 2
    idle_half = max((before.half + after.half + drift) / 2, drift, WANDER * abs(idle))
    watts, half = load.watts - idle, math.hypot(load.half, idle_half)
    if watts <= half:
        helps = reading.falls and watts > drift
        return Refusal(
            f"{reading.source}: not above idle: {load.watts:.3g} W under load, {idle:.3g} W idle, "
            f"uncertain by {half:.2g} W",
            1.1 * seconds / 60 * (half / watts) ** (1 / reading.falls) if helps else None,
        )
    each = seconds / inferences
    return Energy(
        watts * each, (watts - half) * each, (watts + half) * each, reading.source, reading.resolution_joules,
        idle, load.watts, seconds, reading.rule,
    )  # fmt: skip
