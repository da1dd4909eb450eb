"""Settings that are changed on a phone while it is measured, and put back: on success, failure, Ctrl-C, or next time.

What they were is written to a script on the phone before anything is changed. A harness that dies leaves the script
there, and the next one that sees the phone (or `android-bench clean`) runs it first.
"""

import dataclasses
import re
import shlex

from android_bench.adb import Phone
from android_bench.adb_errors import AdbError

NAMES = {  # setting -> its namespace
    "stay_on_while_plugged_in": "global",
    "screen_off_timeout": "system",
    "screen_brightness_mode": "system",
    "screen_brightness": "system",
}
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
FIXED = "cmd power set-fixed-performance-mode-enabled"


class NotRestored(AdbError):
    """A setting of the phone is still changed."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a phone should be set to: `brightness` 0..255 or None to leave it."""

    stay_awake: bool = True
    brightness: int | None = None
    fixed_performance: bool = False

    def values(self) -> dict[str, str]:
        found = {}
        if self.stay_awake:
            found |= {"stay_on_while_plugged_in": "7", "screen_off_timeout": str(2**31 - 1)}
        if self.brightness is not None:
            found |= {"screen_brightness_mode": "0", "screen_brightness": str(self.brightness)}
        return found


@dataclasses.dataclass(frozen=True)
class Changed:
    """Whether the phone is in fixed-performance mode (Android 11 and later; some refuse it), and what it refused."""

    fixed_performance: bool = False
    refused: tuple[str, ...] = ()


def apply(phone: Phone, folder: str, wanted: Wanted) -> Changed:
    """Put back what an earlier harness left, write down what is set now, then set what is wanted.

    A script that could not be run to its end stays: it knows what was set before anybody changed it.
    """
    restore(phone, folder)
    kept = phone.shell(f"cat {_script(folder)} 2>/dev/null").output  # it failed: change no more than it puts back
    values = {name: value for name, value in wanted.values().items() if not kept or f" {name} " in kept}
    before = {name: _now(phone, name) for name in values}
    before = {name: old for name, old in before.items() if old == "null" or NUMBER.fullmatch(old)}
    fixed = wanted.fixed_performance and (not kept or FIXED in kept) and phone.shell(f"{FIXED} false").code == 0
    lines = [_put_back(name, old) for name, old in before.items()]
    lines += [f"{FIXED} false || code=1"] if fixed else []
    if not lines:
        return Changed()
    script = _script(folder)
    text = shlex.quote("\n".join(["code=0", *lines, "exit $code", ""]))
    wrote = phone.shell(f"[ -f {script} ] || {{ mkdir -p {shlex.quote(folder)} && printf %s {text} >{script}.part && "
                        f"mv -f {script}.part {script}; }}")  # fmt: skip
    if wrote.code:
        raise AdbError(f"{phone.serial}: can't write to {folder} ({wrote.output.strip()[-200:]}), so nothing is set.")
    changes = [_put(name, values[name]) for name in before]
    changes += ["input keyevent 224"] if wanted.stay_awake else []  # KEYCODE_WAKEUP
    phone.shell("\n".join(changes))
    refused = tuple(name for name in before if _now(phone, name) != values[name])
    return Changed(fixed and phone.shell(f"{FIXED} true").code == 0, refused)


def restore(phone: Phone, folder: str) -> bool:
    """Run the script that `apply` left, and remove it; False if there was none, or it failed and stays."""
    script = _script(folder)
    return phone.shell(f"[ -f {script} ] && sh {script} && rm -f {script}").code == 0


def put_back(phone: Phone, folder: str) -> None:
    """`restore`, and NotRestored where something could not be put back; the script that knows its value stays."""
    if not restore(phone, folder) and phone.shell(f"[ -f {_script(folder)} ]").code == 0:
        raise NotRestored(
            f"{phone.serial}: not every setting could be put back; {folder}/restore.sh on the phone holds their "
            "values. Unlock the phone, then run `android-bench clean`."
        )


def _now(phone: Phone, name: str) -> str:
    return phone.shell(f"settings get {NAMES[name]} {name}").output.strip()


def _put(name: str, value: str) -> str:
    """The command for one value; a setting that was not there ("null") is deleted."""
    if value == "null":
        return f"settings delete {NAMES[name]} {name} >/dev/null"
    return f"settings put {NAMES[name]} {name} {value}"


def _put_back(name: str, value: str) -> str:
    """The line of the script; a setting that this shell may not change was not changed either, which is no failure."""
    return f'[ "$(settings get {NAMES[name]} {name})" = {value} ] || {_put(name, value)} || code=1'


def _script(folder: str) -> str:
    return shlex.quote(f"{folder}/restore.sh")
