"""Traces of phones that never were: a planted load over an idle power, on a virtual clock, read as phones read it."""

import dataclasses

import numpy as np

from android_bench.energy.battery import Battery, Odpm
from android_bench.energy.trace import Sample, Trace

TICK = 0.25  # seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phone:
    """What is planted. Times in seconds, power in watts, charge in uAh."""

    load_watts: float = 3.0
    idle_watts: float = 0.6
    idle_drift: float = 0.0  # share by which the idle power changes from begin to end
    load_fade: float = 0.0  # share by which the load falls from its begin to its end (throttling)
    load_seconds: float = 600.0
    idle_seconds: float = 300.0
    least_gap: float = 1.0
    most_gap: float = 5.0
    capacity: float = 4_000_000.0
    step: float = 1000.0  # 0: the counter stays where it is
    refresh: float = 0.0  # seconds between two updates of what `dumpsys battery` shows; 0: always fresh
    lag: float = 0.0
    current: float = -1e6  # printed number per ampere: -1e6 is Android's, 1e3 a Samsung's charger; 0: none
    odpm: bool = False
    noise: float = 0.1


def played(phone: Phone, random: np.random.Generator) -> tuple[Trace, float]:
    """The trace, and the joules that the load really took."""
    begin, end = phone.idle_seconds, phone.idle_seconds + phone.load_seconds
    clock = np.arange(0, end + phone.idle_seconds + 10, TICK)
    idle = phone.idle_watts * (1 + phone.idle_drift * (clock / clock[-1] - 0.5)) * _wander(phone.noise, clock, random)
    fade = 1 - phone.load_fade * (clock - begin) / phone.load_seconds
    load = np.where((clock >= begin) & (clock < end), phone.load_watts * fade, 0) * _wander(phone.noise, clock, random)
    watts = idle + load
    open_volts = 4.05 - 0.3 * np.cumsum(watts) * TICK / 4 / 3600 / (phone.capacity / 1e6)
    volts = open_volts - 0.1 * watts / open_volts
    charge = phone.capacity * random.uniform(0.75, 0.85) - np.cumsum(watts / volts) * TICK / 3.6e-3
    energy = np.cumsum(watts) * TICK
    gaps = random.uniform(phone.least_gap, phone.most_gap, int(clock[-1] / phone.least_gap) + 1)
    marks = {0.0: "begin", begin: "load_begin", end: "load_end", end + phone.idle_seconds: "end"}
    times = sorted({*marks, *(t for t in 0.05 + np.cumsum([0, *gaps]) if t < end + phone.idle_seconds)})
    base, start = random.uniform(1e8, 5e8), random.uniform(1e3, 1e5)
    phase = random.uniform(0, phone.refresh or 1)
    samples = []
    for count, time in enumerate(times):
        total = base + 1e3 * energy[int((time + random.uniform(0, 0.2)) / TICK)]
        rails = {"VSYS_PWR_VBATT:Battery": float(np.float32(total)), "S2M:CPU": 0.6 * total}
        meters = Odpm(None, rails, {}) if phone.odpm and (time in marks or count % 8 == 0) else None
        if time in marks:
            samples.append(Sample(start + time, odpm=meters, mark=marks[time]))
            continue
        shown = max(0.0, (time - phase) // phone.refresh * phone.refresh + phase if phone.refresh else time)
        k, now = int(max(0.0, shown - phone.lag) / TICK), int(time / TICK)
        ampere = watts[now] / volts[now] * random.normal(1, 0.05)
        battery = Battery(
            level_percent=float(100 * charge[k] // phone.capacity), status=3, present=True,
            charge_uah=int(charge[k] // phone.step * phone.step) if phone.step else 3_000_000,
            voltage_mv=round(1e3 * volts[k] + 3 * _hashed(shown)), celsius=30.0,
        )  # fmt: skip
        raw = round(ampere * phone.current) if phone.current else None
        samples.append(Sample(start + time, battery, raw, meters))
    truth = float(load.sum() * TICK)
    return Trace(tuple(samples), (phone.least_gap + phone.most_gap) / 2), truth


def written(trace: Trace) -> str:
    """The file that energy.sh would have made of it, but for the order: the marks come last there."""
    lines = [f"@@period {trace.period_seconds}"]
    for sample in trace.samples:
        lines.append(f"@ {sample.uptime_seconds:.2f} 0.00")
        if sample.mark:
            lines.append(f"@@mark {sample.mark}")
        if sample.odpm:
            rows = [f"  [{name.replace(':', ']:')}  {mws:.2f} mWs" for name, mws in sample.odpm.rails.items()]
            lines += ["@@odpm", "=== PowerStats HAL 2.0 energy meter ===", *rows, "=== End of ==="]
        if sample.battery:
            lines += [
                "@@battery", f"  Charge counter: {sample.battery.charge_uah}", f"  status: {sample.battery.status}",
                f"  level: {sample.battery.level_percent:.0f}", f"  voltage: {sample.battery.voltage_mv}",
                "  temperature: 300", "@@current", str(sample.current_raw),
            ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _wander(noise: float, clock, random) -> np.ndarray:
    """A factor round 1 whose fluctuations last for some seconds."""
    width = int(8 / TICK)
    white = random.normal(0, 1, len(clock) + width)
    sums = np.cumsum(white)
    return 1 + noise * (sums[width:] - sums[:-width])[: len(clock)] / width**0.5


def _hashed(time: float) -> float:
    """A reading noise of -1..1 that is the same for the same update."""
    return (time * 7919.37) % 2 - 1
