"""Which phones there are behind the adb servers, each counted once, and which of them the user means."""

import collections
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

from android_bench.adb import Phone, Server
from android_bench.adb_errors import AdbError
from android_bench.device import DeviceError, Facts, facts_command, read_facts
from android_bench.transports import Attached

PATIENCE = 10.0  # seconds that a phone may take to come back while it is asked what it is


class NoChoice(ValueError):
    """No phone, or not clear which; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Found:
    """A phone that answers. `serial` is its own number, the same on USB and Wi-Fi; `label` is unique among them."""

    phone: Phone
    facts: Facts
    serial: str
    label: str
    transports: tuple[str, ...] = ()  # adb's serials that lead to it


@dataclasses.dataclass(frozen=True)
class Survey:
    """All phones that answer, and in words why others can't be used."""

    phones: tuple[Found, ...]
    problems: tuple[str, ...]


def survey(servers: list[Server], stop: threading.Event | None = None) -> Survey:
    """Ask every attached phone for its facts; phones that don't answer become problems, never errors."""
    lines = [(server, line) for server in servers for line in server.attached()]
    problems = [f"{line.serial} is {line.state}: {line.advice}." for _, line in lines if line.advice]
    ready = [(server, line) for server, line in lines if not line.advice]
    with ThreadPoolExecutor(max(1, len(ready))) as pool:
        answers = list(pool.map(lambda pair: _ask(*pair, stop), ready))
    problems += [answer for answer in answers if isinstance(answer, str)]
    groups: dict[str, list[tuple]] = {}
    for line, phone, facts in sorted((a for a in answers if not isinstance(a, str)), key=lambda a: _wireless(a[0])):
        groups.setdefault(facts.serial or phone.serial, []).append((line, phone, facts))
    problems += [_twins(serial, group) for serial, group in groups.items() if _cabled(group) > 1]
    names = labels({serial: group[0][2].name or group[0][2].model or serial for serial, group in groups.items()})
    found = [
        Found(group[0][1], group[0][2], serial, names[serial], tuple(line.serial for line, _, _ in group))
        for serial, group in groups.items()
    ]
    return Survey(tuple(sorted(found, key=lambda item: (item.label, item.serial))), tuple(problems))


def labels(names: dict[str, str]) -> dict[str, str]:
    """A name of its own for each serial: where two share one, the end of the serial is added, or all of it.

    >>> labels({"A1234": "Pixel 7", "B5678": "Pixel 7", "C": "POCO F5"})
    {'A1234': 'Pixel 7 (1234)', 'B5678': 'Pixel 7 (5678)', 'C': 'POCO F5'}
    """
    found = names
    for end in (slice(-4, None), slice(None)):
        count = collections.Counter(found.values())
        found = {serial: label if count[label] == 1 else f"{names[serial]} ({serial[end]})"
                 for serial, label in found.items()}  # fmt: skip
    return found


def choose(found: Survey, wanted: list[str]) -> list[Found]:
    """The phones that `--device` names (serials or names, or "all"); without it the only one there is.

    Raises:
        NoChoice: no phone, several and no choice, or a name that none has.
    """
    known = ", ".join(f"{item.phone.serial} ({item.label})" for item in found.phones)
    if not found.phones:
        raise NoChoice(" ".join(found.problems) or (
            "No phone is attached: plug one in with USB debugging on (Settings > Developer options), or name a "
            "wireless one with --connect HOST:PORT; --device host measures on this computer."
        ))  # fmt: skip
    if wanted == ["all"]:
        return list(found.phones)
    if not wanted:
        if len(found.phones) > 1:
            raise NoChoice(f"{len(found.phones)} phones are attached; choose with --device SERIAL[,SERIAL] or "
                           f"--device all: {known}.")  # fmt: skip
        return list(found.phones)
    chosen = {}
    for name in wanted:
        matching = [item for item in found.phones
                    if name in (item.phone.serial, *item.transports, item.serial, item.label)]  # fmt: skip
        if len(matching) != 1:
            raise NoChoice(" ".join([f"Expected the serial of an attached phone. Received: {name!r}. Attached: "
                                     f"{known}.", *found.problems]))  # fmt: skip
        chosen[matching[0].serial] = matching[0]
    return list(chosen.values())


def _ask(server: Server, line: Attached, stop) -> tuple[Attached, Phone, Facts] | str:
    phone = Phone(server, line.serial, stop)
    try:
        text = phone.persist(lambda: phone.shell(facts_command(), timeout=30).output, patience=PATIENCE)
        return line, phone, read_facts(text)
    except (AdbError, DeviceError) as error:
        return f"{line.serial} does not answer: {error}"


def _cabled(group: list[tuple]) -> int:
    """How many phones a group is at least: one phone has one cable, and one model."""
    cables = sum(not _wireless(line) for line, _, _ in group)
    return max(cables, len({(facts.model, facts.fingerprint) for _, _, facts in group}))


def _twins(serial: str, group: list[tuple]) -> str:
    lines = ", ".join(line.serial for line, _, _ in group)
    return f"{lines} all give {serial} as their serial number, so only the first is used: unplug the others in turn."


def _wireless(line: Attached) -> bool:
    return ":" in line.serial or "_adb-tls" in line.serial

