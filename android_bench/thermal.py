"""How warm a phone is, whether heat slowed a run, and whether it has cooled down. Text in, value out."""

import dataclasses
import re

from android_bench import cpu
from android_bench.energy.battery import Battery, parse_battery

STATUSES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")  # of Android, 0..6
KINDS = {
    -1: "UNKNOWN", 0: "CPU", 1: "GPU", 2: "BATTERY", 3: "SKIN", 4: "USB_PORT", 5: "POWER_AMPLIFIER", 9: "NPU",
    10: "TPU", 11: "DISPLAY", 12: "MODEM", 13: "SOC", 14: "WIFI", 15: "CAMERA", 16: "FLASHLIGHT", 17: "SPEAKER",
    18: "AMBIENT", 19: "POGO",
}  # 6, 7 and 8 are volts, amperes and percent of the battery's current limit: no temperatures  # fmt: skip
CAPPED = 0.95  # a clock limit below this share of the top clock slows a run
START_SLACK_CELSIUS = 2.0  # as warm as at the start is cool enough


class ThermalError(ValueError):
    """The text is not what snapshot.sh prints."""


@dataclasses.dataclass(frozen=True)
class Temperature:
    """One sensor."""

    name: str
    kind: str  # "CPU", "SKIN", "BATTERY", ...: a value of KINDS
    celsius: float
    status: int  # 0 none .. 6 shutdown


@dataclasses.dataclass(frozen=True)
class Threshold:
    """From which temperature on a sensor's status is 1, 2, ... 6."""

    name: str
    kind: str
    hot_celsius: tuple[float | None, ...]  # by status, 0 first; None = not published


@dataclasses.dataclass(frozen=True)
class Thermal:
    """What the phone's thermal service says. An absent service: no status, no temperatures."""

    status: int | None  # 0 none .. 6 shutdown; None also while someone overrides it. Many Samsungs always say 0
    temperatures: tuple[Temperature, ...]
    thresholds: tuple[Threshold, ...] = ()


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A phone's heat and clocks at one moment. The clocks are one a cluster, the slowest cluster first."""

    uptime_seconds: float
    thermal: Thermal
    battery: Battery
    clocks_khz: tuple[int | None, ...]  # now
    limits_khz: tuple[int | None, ...]  # allowed now: heat lowers it
    top_khz: tuple[int | None, ...]  # what the hardware can do

    def celsius(self) -> dict[str, float]:
        """The hottest "skin", "battery" and "cpu" sensor; what wasn't measured is left out."""
        return hottest(self.thermal, self.battery)


def sections(text: str) -> dict[str, str]:
    """The parts of a script's output by the name in the `@@name` line above each; the first of a name wins.

    >>> sections("@@uptime\\n12.5 20.0\\n@@battery\\n")
    {'uptime': '12.5 20.0', 'battery': ''}
    """
    found = {}
    for part in re.split(r"^@@", "\n" + text.replace("\r\n", "\n"), flags=re.M)[1:]:
        name, _, content = part.partition("\n")
        found.setdefault(name.strip(), content.rstrip("\n"))
    return found


def parse_thermalservice(text: str) -> Thermal:
    """The answer of `dumpsys thermalservice` (Android 10 and later).

    Only the block `Current temperatures from HAL` counts: the cached one above it may be minutes old. Sensors that
    show 0, NaN, -273 or anything else that no phone survives are absent ones.

    >>> parse_thermalservice('''Thermal Status: 0
    ... Current temperatures from HAL:
    ...     Temperature{mValue=35.8, mType=3, mName=SKIN, mStatus=0}
    ...     Temperature{mValue=0.0, mType=2, mName=SUBBAT, mStatus=0}''').temperatures
    (Temperature(name='SKIN', kind='SKIN', celsius=35.8, status=0),)
    """
    status = re.search(r"^[ \t]*Thermal Status: ([0-6])\b", text, re.M)
    overridden = re.search(r"^[ \t]*IsStatusOverride: true\b", text, re.M)
    current = text.partition("Current temperatures from HAL:")[2].partition("Current cooling devices from HAL:")[0]
    row = r"Temperature\{mValue=([^,\n]{1,40}), mType=(-?[0-9]{1,2}), mName=([^\n]{0,100}?), mStatus=([0-6])\}"
    temperatures = []
    for value, kind, name, severity in re.findall(row, current):
        celsius = _celsius(value)
        if celsius is not None and int(kind) in KINDS:
            temperatures.append(Temperature(name, KINDS[int(kind)], celsius, int(severity)))
    row = r"Threshold\{mType=(-?[0-9]{1,2}), mName=([^\n]{0,100}?), mHotThrottlingThresholds=\[([^\]\n]{0,200})\]"
    thresholds = [
        Threshold(name, KINDS[int(kind)], tuple(_celsius(value) for value in hot.split(",")))
        for kind, name, hot in re.findall(row, text) if int(kind) in KINDS
    ]  # fmt: skip
    return Thermal(int(status[1]) if status and not overridden else None, tuple(temperatures), tuple(thresholds))


def read_snapshot(text: str) -> Snapshot:
    """What snapshot.sh printed.

    Raises:
        ThermalError: there is no uptime in it, so the script did not run.
    """
    if not isinstance(text, str):
        raise ThermalError(f"Expected the text that snapshot.sh printed. Received: {type(text).__name__}")
    parts = sections(text)
    uptime = re.match(r"\s*([0-9]{1,12}\.[0-9]{1,6})\b", parts.get("uptime", ""))
    if not uptime:
        raise ThermalError(
            f"Expected the text that snapshot.sh prints, with an uptime in it. Received: {text[:80]!r}; "
            "try `adb shell cat /proc/uptime`."
        )
    policies = cpu.parse_cpufreq(parts.get("cpufreq", ""))
    return Snapshot(
        uptime_seconds=float(uptime[1]),
        thermal=parse_thermalservice(parts.get("thermal", "")),
        battery=parse_battery(parts.get("battery", "")),
        clocks_khz=tuple(policy.clock_khz for policy in policies),
        limits_khz=tuple(policy.limit_khz for policy in policies),
        top_khz=tuple(policy.max_khz for policy in policies),
    )


def hottest(thermal: Thermal, battery: Battery) -> dict[str, float]:
    """°C of the hottest "skin", "battery" and "cpu" sensor; `dumpsys battery` stands in for a battery sensor.

    What it says while its updates are stopped, or without a battery, is no temperature.
    """
    found = {}
    for key in ("skin", "battery", "cpu"):
        sensors = [sensor.celsius for sensor in thermal.temperatures if sensor.kind == key.upper()]
        if not sensors and key == "battery" and not battery.updates_stopped and battery.present is not False:
            sensors = [] if battery.celsius is None else [battery.celsius]
        if sensors:
            found[key] = max(sensors)
    return found


def throttled(
    before: Snapshot, after: Snapshot, *, start: Snapshot | None = None, fixed_performance: bool = False
) -> str | None:
    """Why a run between two snapshots was slowed by heat, in words; `None` if nothing shows that it was.

    A maker may cap clocks for good: with `start`, the cool phone before the first run, only limits below the limits
    then count. A phone in fixed-performance mode caps them on purpose: then only those that sank during the run do.
    """
    for moment, snapshot in (("before", before), ("after", after)):
        if snapshot.thermal.status:
            return f"thermal status {_status(snapshot.thermal.status)} {moment} the run"
    for moment, snapshot in (("before", before), ("after", after)):
        usual = start.limits_khz if start and not start.thermal.status else snapshot.top_khz
        wanted = before.limits_khz if fixed_performance else usual
        capped = _capped(snapshot.limits_khz, wanted)
        if capped:
            return f"{capped} {moment} the run"
    return None


def warm(snapshot: Snapshot, limit_celsius: float | None, start: Snapshot | None = None) -> str | None:
    """Why a phone is still too warm to start the next run, in words; `None` once it is cool.

    Cool is: thermal status 0, clock limits as high as at the start, and both skin and battery either below the limit
    or at most 2 °C warmer than at the start (in a hot room a phone never comes below the limit).

    Args:
        limit_celsius: highest skin and battery temperature; `None` leaves only the comparison with the start.
        start: taken before the first run of all.
    """
    if snapshot.thermal.status:
        return f"thermal status {_status(snapshot.thermal.status)}"
    at_start = start.celsius() if start else {}
    for part in ("skin", "battery"):
        celsius = snapshot.celsius().get(part)
        allowed = [limit_celsius] if limit_celsius is not None else []
        allowed += [at_start[part] + START_SLACK_CELSIUS] if part in at_start else []
        if celsius is not None and allowed and celsius > max(allowed):
            return f"{part} {celsius:.1f} °C, above {max(allowed):.1f} °C"
    return _capped(snapshot.limits_khz, start.limits_khz) if start else None


def is_cooler(before: Snapshot, now: Snapshot) -> bool:
    """Whether skin (or the battery, where no skin is known) is cooler now, and neither of the two is warmer."""
    pairs = [(before.celsius().get(part), now.celsius().get(part)) for part in ("skin", "battery")]
    pairs = [(then, later) for then, later in pairs if then is not None and later is not None]
    return bool(pairs) and all(then >= later for then, later in pairs) and pairs[0][0] > pairs[0][1]


def _status(status: int) -> str:
    return f"{status} ({STATUSES[status]})"


def _capped(limits, wanted) -> str | None:
    """The most capped cluster in words. Clusters are compared only while all of them are there."""
    if len(limits) != len(wanted):
        return None
    pairs = [(limit / top, limit, top) for limit, top in zip(limits, wanted, strict=True) if limit and top]
    share, limit, top = min(pairs, default=(1, 0, 0))
    return f"clock limited to {limit / 1e6:.2f} of {top / 1e6:.2f} GHz" if share < CAPPED else None


def _celsius(text: str) -> float | None:
    """A temperature that a sensor in a phone can show; everything else stands for "no sensor"."""
    number = re.fullmatch(r"\s*(-?[0-9]{1,6}(?:\.[0-9]{1,20})?)\s*", text)
    celsius = float(number[1]) if number else 0.0
    return celsius if celsius and -50 <= celsius <= 200 else None
