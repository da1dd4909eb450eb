"""The lines of `adb devices -l`: transports, their states, and what to do about them."""

import dataclasses
import re

STATES = {
    "unauthorized": "unlock the phone and tap 'Allow USB debugging', then run the command again",
    "authorizing": "it is being asked for permission: unlock the phone and tap 'Allow USB debugging'",
    "offline": "replug the cable, or 'adb disconnect' and 'adb connect' a wireless phone",
    "connecting": "wait a moment and run the command again",
    "no permissions": "this user may not open the USB device: add a udev rule (group plugdev) and replug the phone",
    "recovery": "the phone is in recovery: start Android",
    "sideload": "the phone is in sideload: start Android",
    "bootloader": "the phone is in the bootloader: start Android",
    "rescue": "the phone is in rescue mode: start Android",
}
_LINE = re.compile(r"^(\S.*?)\s+(device|offline|unauthorized|authorizing|connecting|recovery|bootloader|sideload|rescue"
                   r"|host|no permissions[^;\[]*(?:; see \[[^\]]*\])?)(?: (.*)|$)")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Attached:
    """One line of `adb devices -l`: a transport, not yet a phone (one phone may have two)."""

    serial: str
    state: str  # "device", "offline", "unauthorized", "no permissions", ...
    tags: dict[str, str]

    @property
    def advice(self) -> str | None:
        """What to do about the state; None for a phone that can be used."""
        if self.state == "device":
            return None
        return STATES.get(self.state, "run 'adb devices' and see adb's own message")


def parse_devices(text: str) -> tuple[Attached, ...]:
    """The lines of `adb devices -l`.

    >>> parse_devices("adb-4db (2)._adb-tls-connect._tcp device product:marble transport_id:6")[0].serial
    'adb-4db (2)._adb-tls-connect._tcp'
    >>> parse_devices("R3CN123                unauthorized usb:337641472X")[0].advice
    "unlock the phone and tap 'Allow USB debugging', then run the command again"
    """
    found = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match and not line.startswith(("List of devices", "* daemon")):
            state = "no permissions" if match[2].startswith("no permissions") else match[2]
            tags = dict(word.split(":", 1) for word in (match[3] or "").split() if ":" in word)
            found.append(Attached(match[1], state, tags))
    return tuple(found)
