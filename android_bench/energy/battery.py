"""What a phone says about its battery and its power meters: text in, values out.

Nothing here talks to a phone. Every parser takes the whole output of one command, survives garbage and cut text, and
raises nothing but `BatteryError`.
"""

import dataclasses
import re

INT_MIN = -(2**31)  # what gauges answer for "not supported"
CHARGING, DISCHARGING, NOT_CHARGING, FULL = 2, 3, 4, 5  # BatteryManager.BATTERY_STATUS_*, 1 is unknown
STATUS_WORDS = {"unknown": 1, "charging": 2, "discharging": 3, "not charging": 4, "full": 5}
VOLTAGE_MV = (2500, 20000)  # one nearly empty cell; four full ones in series, a large tablet

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_DUMPSYS_LINE = re.compile(r"  ([A-Za-z][A-Za-z ]*): *(\S.*)?")
_HEALTH_PAIR = re.compile(r"(?<![A-Za-z_])([A-Za-z_]+(?: (?:now|avg|counter|count|charge))?): *([+-]?[0-9]{1,18})\b")
_RAIL = re.compile(
    r"^ *(?:\[([^\]\s]{1,80})\]:)?(\S[^\n]{0,80}?) +([0-9]{1,18}(?:\.[0-9]{1,9})?) mWs"
    r"(?: *\( *(-?[0-9]{1,18}(?:\.[0-9]{1,9})?) *\))?"
)
_NUMBER = r"([0-9]{1,12}(?:\.[0-9]{1,9})?)"


class BatteryError(ValueError):
    """The text is not the output that was asked for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Battery:
    """One reading of the battery; None is "not said". `current_raw` is as printed: its unit and sign are the phone's.

    `status`: 1 unknown, 2 charging, 3 discharging, 4 not charging, 5 full. `plugged`: what powers the phone, of "AC",
    "USB", "Wireless", "Dock". `problems`: why these numbers can't be a battery's, in words; () where they can.
    `updates_stopped`: somebody's `dumpsys battery unplug` or `set` froze the reading.
    """

    level_percent: float | None = None
    charge_uah: int | None = None
    status: int | None = None
    plugged: tuple[str, ...] = ()
    voltage_mv: float | None = None
    celsius: float | None = None
    current_raw: int | None = None
    current_average_raw: int | None = None
    full_charge_uah: int | None = None
    cycles: int | None = None
    updates_stopped: bool = False
    present: bool | None = None
    problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Odpm:
    """Energy of each rail since boot in mWs (= mJ), by `RAIL:SUBSYSTEM`; `deltas_mws` where the dump printed them."""

    elapsed_ms: int | None
    rails: dict[str, float]
    deltas_mws: dict[str, float]


@dataclasses.dataclass(frozen=True)
class BatteryStats:
    """Android's own estimate of who used how much, from a power profile: a model, not a measurement."""

    capacity_mah: float | None
    computed_mah: float | None
    drained_mah: tuple[float, float] | None  # by the level, from ... to
    uid_mah: dict[int, float]
    cpu_ms: dict[int, tuple[int, int]]  # user, system
    source: str = "model"


def parse_battery(text: str) -> Battery:
    """The output of `dumpsys battery`. A text without any value gives a `Battery` that says so in `problems`.

    The first of two equal keys counts, whatever its case; Samsung's event log at the end is left out.

    >>> parse_battery("  USB powered: true\\n  status: 2\\n  level: 84\\n  scale: 100\\n  voltage: 4110\\n").plugged
    ('USB',)

    Raises:
        BatteryError: not a text.
    """
    _check_text(text, "dumpsys battery")
    values, stopped = {}, False
    for line in text.splitlines():
        if line.startswith("["):
            break
        stopped = stopped or "(UPDATES STOPPED" in line
        match = _DUMPSYS_LINE.fullmatch(line.rstrip())
        if match:
            values.setdefault(match[1].lower(), match[2] or "")
    whole = {key: int(value) for key, value in values.items() if _WHOLE.fullmatch(value)}
    sources = ("AC", "USB", "Wireless", "Dock")
    return _battery(
        whole,
        status=whole.get("status"),
        voltage_mv=whole.get("voltage"),
        plugged=tuple(name for name in sources if values.get(f"{name.lower()} powered") == "true"),
        present={"true": True, "false": False}.get(values.get("present", "")),
        updates_stopped=stopped,
    )


def parse_health(text: str) -> Battery:
    """The output of `dumpsys android.hardware.health.IHealth/default` or `lshal debug ...IHealth/default`.

    >>> parse_health("level: 84 voltage: 4110 temp: 336\\ncurrent now: -412300\\n").current_raw
    -412300

    Raises:
        BatteryError: no value in the text.
    """
    _check_text(text, "the health HAL's dump")
    whole = {}
    for key, value in _HEALTH_PAIR.findall(text):
        whole.setdefault(key.lower(), int(value))
    if not whole.keys() & {"level", "voltage", "status", "current now", "charge counter"}:
        raise BatteryError(f"Expected the health HAL's dump with `level: N`, `voltage: N`. Received: {text[:80]!r}")
    names = {"ac": "AC", "usb": "USB", "wireless": "Wireless", "dock": "Dock"}
    return _battery(
        whole | {"temperature": whole.get("temp")},
        status=whole.get("status"),
        voltage_mv=whole.get("voltage"),
        plugged=tuple(word for name, word in names.items() if whole.get(name)),
        present=None if "present" not in whole else bool(whole["present"]),
    )


def parse_power_supply(text: str) -> Battery:
    """The `uevent` file of a battery in /sys/class/power_supply. It doesn't say what the phone is plugged to.

    >>> parse_power_supply("POWER_SUPPLY_STATUS=Discharging\\nPOWER_SUPPLY_VOLTAGE_NOW=3981250\\n").voltage_mv
    3981.25

    Raises:
        BatteryError: no POWER_SUPPLY_ line in the text.
    """
    _check_text(text, "a power_supply uevent file")
    values = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if key.startswith("POWER_SUPPLY_") and equals:
            values.setdefault(key.removeprefix("POWER_SUPPLY_"), value)
    if not values:
        raise BatteryError(f"Expected lines POWER_SUPPLY_NAME=value. Received: {text[:80]!r}")
    whole = {key: int(value) for key, value in values.items() if _WHOLE.fullmatch(value)}
    named = {
        "level": "CAPACITY", "charge counter": "CHARGE_COUNTER", "temperature": "TEMP", "current now": "CURRENT_NOW",
        "current avg": "CURRENT_AVG", "full charge": "CHARGE_FULL", "cycle count": "CYCLE_COUNT",
    }  # fmt: skip
    return _battery(
        {name: whole.get(key) for name, key in named.items()},
        status=STATUS_WORDS.get(values.get("STATUS", "").lower()),
        voltage_mv=whole["VOLTAGE_NOW"] / 1e3 if "VOLTAGE_NOW" in whole else None,
        plugged=(),
        present=None if "PRESENT" not in whole else bool(whole["PRESENT"]),
    )


def parse_odpm(text: str) -> Odpm:
    """The energy meter in a dump of the power stats HAL (2: dumpsys, 1: lshal), with or without the delta column.

    >>> parse_odpm("=== PowerStats HAL 2.0 energy meter ===\\n [VSYS_PWR_VBATT]:Battery  5566.25 mWs\\n").rails
    {'VSYS_PWR_VBATT:Battery': 5566.25}

    Raises:
        BatteryError: no energy meter or no rail in it.
    """
    _check_text(text, "the power stats HAL's dump")
    rails, deltas, elapsed, inside = {}, {}, None, False
    for line in text.splitlines():
        if line.startswith("="):
            inside = "End of" not in line and ("energy meter" in line or "rail energy" in line)
        if not inside:
            continue
        time = re.search(r"Elapsed time: ([0-9]{1,18}) ms", line)
        if time:
            elapsed = int(time[1])
        match = _RAIL.match(line)
        if match:
            name = f"{match[1]}:{match[2]}" if match[1] else match[2]
            rails[name] = float(match[3])
            if match[4]:
                deltas[name] = float(match[4])
    if not rails:
        raise BatteryError(f"Expected an energy meter with rows `[RAIL]:NAME  N mWs`. Received: {text[:80]!r}")
    return Odpm(elapsed, rails, deltas)


def parse_batterystats(text: str) -> BatteryStats:
    """The output of `dumpsys batterystats`, for readers (`Estimated power use`) or with `--checkin`.

    >>> parse_batterystats("9,0,l,pws,3900,3243,3237,3354\\n9,2000,l,pwi,uid,12.5,0,0,0\\n").uid_mah
    {2000: 12.5}

    Raises:
        BatteryError: neither form's power numbers are in the text.
    """
    _check_text(text, "dumpsys batterystats")
    uid_mah, cpu_ms = {}, {}
    summary = re.search(rf"^9,0,l,pws,{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\b", text, re.M) or re.search(
        rf"Capacity: {_NUMBER}, Computed drain: {_NUMBER}(?:, actual drain: {_NUMBER}(?:-{_NUMBER})?)?", text
    )
    for uid, mah in re.findall(rf"^9,([0-9]{{1,9}}),l,pwi,uid,{_NUMBER}\b", text, re.M):
        uid_mah[int(uid)] = float(mah)
    for user, app, uid, mah in re.findall(rf"^ *U[iI][dD] (?:u(\d)a(\d{{1,5}})|(\d{{1,9}})): {_NUMBER}", text, re.M):
        uid_mah[int(uid) if uid else int(user) * 100_000 + 10_000 + int(app)] = float(mah)
    for uid, user, system in re.findall(r"^9,([0-9]{1,9}),l,cpu,([0-9]{1,15}),([0-9]{1,15})\b", text, re.M):
        cpu_ms[int(uid)] = int(user), int(system)
    if not summary and not uid_mah:
        raise BatteryError(f"Expected `9,0,l,pws,...` or `Estimated power use (mAh)`. Received: {text[:80]!r}")
    capacity, computed, least, most = map(_float, summary.groups()) if summary else (None,) * 4
    drained = None if least is None else (least, least if most is None else most)
    return BatteryStats(capacity, computed, drained, uid_mah, cpu_ms)


def _battery(whole: dict, *, voltage_mv, present, **known) -> Battery:
    """The fields that every source names alike, and what is wrong with them."""
    level, scale, temperature = whole.get("level"), whole.get("scale", 100), whole.get("temperature")
    charge = whole.get("charge counter")
    values = dict(
        level_percent=None if level is None or scale <= 0 else 100 * level / scale,
        charge_uah=None if charge in (0, INT_MIN) else charge,
        celsius=None if temperature is None else temperature / 10,
        current_raw=whole.get("current now"),
        current_average_raw=whole.get("current avg"),
        full_charge_uah=whole.get("full charge") or None,
        cycles=whole.get("cycle count"),
    )
    problems = []
    if voltage_mv is None:
        problems.append("no voltage was read")
    elif not VOLTAGE_MV[0] <= voltage_mv <= VOLTAGE_MV[1]:
        problems.append(f"a voltage of {voltage_mv:g} mV is no battery's")
    if present is False:
        problems.append("the phone says that no battery is present")
    return Battery(**values, voltage_mv=voltage_mv, present=present, problems=tuple(problems), **known)


def _float(text):
    return None if text is None else float(text)


def _check_text(text, what: str) -> None:
    if not isinstance(text, str):
        raise BatteryError(f"Expected the text of {what}. Received: {type(text).__name__}; decode bytes first.")
