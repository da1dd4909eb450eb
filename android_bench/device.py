"""What a phone is: model, processor clusters, memory, battery, heat. Text of facts.sh in, `Facts` out."""

import dataclasses
import importlib.resources
import re
from typing import Any

from rich.table import Table
from rich.text import Text

from android_bench.cpu import parse_cpufreq
from android_bench.energy.battery import Battery, parse_battery
from android_bench.thermal import STATUSES, Thermal, hottest, parse_thermalservice, sections

TABLET_DP = 600  # smallest width of a tablet, in units of 1/160 inch
LONGEST_VALUE = 200  # of a name that a phone gives itself; Android's own limit is 91


class DeviceError(ValueError):
    """The text is not what facts.sh prints, or the phone has no such cores."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Cores that share one clock."""

    cpus: tuple[int, ...]
    min_khz: int | None
    max_khz: int | None
    policy: str  # folder of its files, "/sys/devices/system/cpu/..."


@dataclasses.dataclass(frozen=True)
class Facts:
    """One phone. `None` and `()` = the phone doesn't tell."""

    serial: str | None
    model: str | None  # "WGR-W09"
    maker: str | None
    name: str | None  # what it is sold as, else the model
    soc: str | None
    abis: tuple[str, ...]  # the preferred one first
    android: str | None  # "14"
    sdk: int | None
    form: str  # "phone", "tablet", "tv" or "unknown"
    ram_bytes: int | None
    clusters: tuple[Cluster, ...]  # the slowest first
    screen: str | None  # "on" or "off"
    fingerprint: str | None  # of the system's build
    emulated: bool
    battery: Battery
    thermal: Thermal
    power_supply: str | None  # a current_now below /sys that the shell may read
    has_odpm: bool  # energy of each rail is measured


def facts_command() -> str:
    """The shell command whose output `read_facts` takes."""
    return _script("facts.sh", "clocks.sh")


def snapshot_command() -> str:
    """The shell command whose output `thermal.read_snapshot` takes."""
    return _script("snapshot.sh", "clocks.sh")


def read_facts(text: str) -> Facts:
    """What facts.sh printed; a part that is missing or garbled is unknown.

    Raises:
        DeviceError: there is not one property in it, so nothing on the other side is an Android.
    """
    if not isinstance(text, str):
        raise DeviceError(f"Expected the text that facts.sh printed. Received: {type(text).__name__}")
    parts = sections(text)
    properties = parse_getprop(parts.get("getprop", ""))
    if not properties:
        raise DeviceError(
            f"Expected the text that facts.sh prints, with the answer of getprop in it. Received: {text[:80]!r}; "
            "try `adb shell getprop`."
        )

    def first(*keys):
        return next((value for key in keys if (value := _printable(properties.get(key, "")))), None)

    model = first("ro.product.model", "ro.product.device")
    abis = first("ro.product.cpu.abilist", "ro.product.cpu.abi") or ""
    sdk = first("ro.build.version.sdk")
    memory = re.search(r"^MemTotal:\s*([0-9]{1,15}) kB", parts.get("memory", ""), re.M)
    return Facts(
        serial=first("ro.serialno", "ro.boot.serialno"),
        model=model,
        maker=first("ro.product.manufacturer", "ro.product.brand"),
        name=first("ro.config.marketing_name", "ro.product.marketname", "ro.vendor.oplus.market.name") or model,
        soc=first("ro.soc.model", "ro.board.platform", "ro.hardware"),
        abis=tuple(abi.strip() for abi in abis.split(",") if abi.strip()),
        android=first("ro.build.version.release"),
        sdk=int(sdk) if sdk and re.fullmatch("[0-9]{1,4}", sdk) else None,
        form=_form(first("ro.build.characteristics") or "", parts.get("wm", "")),
        ram_bytes=int(memory[1]) * 1024 if memory else None,
        clusters=tuple(
            Cluster(policy.cpus, policy.min_khz, policy.max_khz, policy.path)
            for policy in parse_cpufreq(parts.get("cpufreq", ""))
        ),
        screen=_screen(parts.get("screen", "")),
        fingerprint=first("ro.build.fingerprint"),
        emulated=_emulated(properties),
        battery=parse_battery(parts.get("battery", "")),
        thermal=parse_thermalservice(parts.get("thermal", "")),
        power_supply=_power_supply(parts.get("supplies", "")),
        has_odpm=re.search(r"^[ \t]*\[[^\]\n]+\]:.*\d mWs", parts.get("odpm", ""), re.M) is not None,
    )


def parse_getprop(text: str) -> dict[str, str]:
    """The properties in the answer of `getprop`; a value may span lines, and one that is cut off is left out.

    >>> parse_getprop("[ro.product.model]: [Pixel 7]\\n[ro.note]: [two\\nlines]\\n[ro.cut]: [of")
    {'ro.product.model': 'Pixel 7', 'ro.note': 'two\\nlines'}
    """
    lines, values = [], {}
    for line in text.replace("\r\n", "\n").split("\n"):
        start = re.match(r"\[([^\]\n]{1,256})\]: \[(.*)", line)
        if start:
            lines = values[start[1]] = [start[2]]
        else:
            lines.append(line)
    whole = {key: "\n".join(lines) for key, lines in values.items()}
    return {key: value.rpartition("]")[0] for key, value in whole.items() if "]" in value}


def core_mask(facts: Facts, which: str) -> str:
    """The mask for toybox's `taskset`, hexadecimal without 0x, bit n = core n.

    Clusters of one top clock count as one. With three or more, "big" is everything between "little" and "prime".

    Args:
        which: "little", "big", "prime", "all", or such a mask.

    Raises:
        DeviceError: the phone has no such cores, or doesn't tell, or the mask is none.
    """
    known = sorted(cpu for cluster in facts.clusters for cpu in cluster.cpus)
    if which not in ("little", "big", "prime", "all"):
        return _checked_mask(which, known, facts)
    if not known:
        raise DeviceError(f"{facts.model} doesn't tell its cores and clocks: give a mask such as f0, not {which!r}.")
    clocks = sorted({cluster.max_khz for cluster in facts.clusters if cluster.max_khz})
    if any(cluster.max_khz is None for cluster in facts.clusters) and which != "all":
        raise DeviceError(f"{facts.model} hides the top clock of some cores: give a mask such as f0, not {which!r}.")
    if which == "all":
        return _mask(known)
    if len(clocks) < 2:
        raise DeviceError(
            f"All cores of {facts.model} have the same top clock, so none is {which!r}: ask for 'all', or give a mask."
        )
    if which == "prime" and len(clocks) == 2:
        raise DeviceError(f"{facts.model} has two kinds of cores, 'little' and 'big'. Received: 'prime'")
    wanted = {"little": clocks[:1], "big": clocks[1:-1] or clocks[1:], "prime": clocks[-1:]}[which]
    return _mask([cpu for cluster in facts.clusters if cluster.max_khz in wanted for cpu in cluster.cpus])


def describe(facts: Facts) -> dict[str, Any]:
    """The facts as JSON holds them, in the words of a result row; what is unknown is left out."""
    battery = {
        "percent": facts.battery.level_percent,
        "plugged": list(facts.battery.plugged),
        "celsius": facts.battery.celsius,
    }
    thermal = {"status": facts.thermal.status, "celsius": hottest(facts.thermal, facts.battery) or None}
    found = {
        "name": facts.name, "model": facts.model, "maker": facts.maker, "serial": facts.serial, "soc": facts.soc,
        "abi": facts.abis[0] if facts.abis else None, "abis": list(facts.abis) or None, "android": facts.android,
        "sdk": facts.sdk, "form": facts.form, "ram_bytes": facts.ram_bytes, "fingerprint": facts.fingerprint,
        "clusters": [
            _known({"cpus": list(cluster.cpus), "min_khz": cluster.min_khz, "max_khz": cluster.max_khz})
            for cluster in facts.clusters
        ] or None,
        "screen": facts.screen, "battery": _known(battery), "thermal": _known(thermal) or None,
        "has_odpm": facts.has_odpm, "emulated": facts.emulated,
    }  # fmt: skip
    return _known(found)


def device_table(phones: list[Facts]) -> Table:
    """The phones one below the other, for a terminal; fits in 80 columns."""
    table = Table(show_lines=True)
    for title in ("device", "system", "processor", "battery", "heat"):
        table.add_column(title, overflow="fold")
    for facts in phones:
        kind = [facts.form if facts.form != "unknown" else None, "emulated" if facts.emulated else None]
        cells = (
            [_title(facts), ", ".join(filter(None, kind)), facts.serial],
            [facts.android and f"Android {facts.android}", *facts.abis[:1], facts.screen and f"screen {facts.screen}"],
            [facts.soc, *map(_cluster_cell, facts.clusters), _memory_cell(facts)],
            _battery_cell(facts),
            _heat_cell(facts),
        )
        table.add_row(*(Text("\n".join(filter(None, cell)) or "–") for cell in cells))
    return table


def _script(*names: str) -> str:
    folder = importlib.resources.files("android_bench").joinpath("on_device")
    text = "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)
    return "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def _printable(value: str) -> str:
    """A phone's own words without what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in value[:LONGEST_VALUE]).strip()


def _form(characteristics: str, wm: str) -> str:
    """The build's own word, else the screen's smallest width; the panel's numbers before those set by the user."""
    words = [word.strip() for word in characteristics.split(",")]
    for word in ("tablet", "tv"):
        if word in words:
            return word
    size = re.search(r"Physical size: ([0-9]{1,6})x([0-9]{1,6})", wm)
    density = re.search(r"Physical density: ([0-9]{1,5})", wm)
    if {"watch", "automotive", "car"} & set(words) or not size or not density or not int(density[1]):
        return "unknown"
    narrow = min(int(size[1]), int(size[2])) * 160 / int(density[1])
    return "tablet" if narrow >= TABLET_DP else "phone"


def _screen(text: str) -> str | None:
    display = re.search(r"Display Power: state=([A-Z_]+)", text)
    if display:
        return "on" if display[1] in ("ON", "VR") else "off"
    awake = re.search(r"mWakefulness=([A-Za-z]+)", text)
    return None if not awake else "on" if awake[1] in ("Awake", "Dreaming") else "off"


def _emulated(properties: dict[str, str]) -> bool:
    marks = ("ro.kernel.qemu", "ro.boot.qemu", "ro.tfcompress.emulated")
    hardware = properties.get("ro.hardware", "")
    return any(properties.get(mark) == "1" for mark in marks) or hardware in ("ranchu", "goldfish", "cutf_cvm")


def _power_supply(text: str) -> str | None:
    """The current of the battery, not that of a charger; the supply that is named `battery` if there are several."""
    found = []
    for line in text.split("\n"):
        path, kind, value = [*line.strip().split("|"), "", ""][:3]
        name = re.search(r"/sys/class/power_supply/([A-Za-z0-9_.-]+)$", path)
        fits = kind in ("Battery", "BMS") or (not kind and name and re.search("bat|bms|gauge", name[1].lower()))
        if name and fits and re.fullmatch(r"-?[0-9]{1,12}", value):
            found.append((name[1] != "battery", kind != "Battery", name[1]))
    return f"/sys/class/power_supply/{min(found)[2]}/current_now" if found else None


def _checked_mask(mask: str, known: list[int], facts: Facts) -> str:
    if not re.fullmatch(r"(0[xX])?[0-9a-fA-F]{1,64}", mask):
        raise DeviceError(f"Expected little, big, prime, all or a hexadecimal mask of cores. Received: {mask!r}")
    bits = int(mask, 16)
    if not bits or (known and not any(bits >> cpu & 1 for cpu in known)):
        raise DeviceError(f"The mask {mask} holds none of the cores of {facts.model}: {known or 'unknown'}.")
    return f"{bits & int(_mask(known), 16) if known else bits:x}"


def _mask(cpus: list[int]) -> str:
    return f"{sum(1 << cpu for cpu in cpus):x}"


def _known(values: dict) -> dict:
    return {key: value for key, value in values.items() if value is not None}


def _title(facts: Facts) -> str:
    name = facts.name or "unknown"
    return name if not facts.maker or name.lower().startswith(facts.maker.lower()) else f"{facts.maker} {name}"


def _cluster_cell(cluster: Cluster) -> str:
    return f"{len(cluster.cpus)} × {f'{cluster.max_khz / 1e6:.2f}' if cluster.max_khz else '?'} GHz"


def _memory_cell(facts: Facts) -> str | None:
    return f"{facts.ram_bytes / 2**30:.1f} GiB" if facts.ram_bytes else None


def _battery_cell(facts: Facts) -> list[str]:
    level = facts.battery.level_percent
    return [*([f"{level:.0f} %"] if level is not None else []), *facts.battery.plugged]


def _heat_cell(facts: Facts) -> list[str]:
    status, celsius = facts.thermal.status, hottest(facts.thermal, facts.battery)
    words = [f"status {status} ({STATUSES[status]})"] if status is not None else []
    return words + [f"{part} {value:.1f} °C" for part, value in celsius.items()]
