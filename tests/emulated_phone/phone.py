"""An emulated phone: an adbd on a local port, a folder as its file system, a battery that drains."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from emulated_phone import commands
from emulated_phone.adbd import Adbd
from emulated_phone.faults import Faults
from emulated_phone.personalities import Personality
from emulated_phone.physics import Physics

MAPPED = re.compile(r"/data/local/tmp|/sys/|/proc/meminfo|/proc/cpuinfo")  # what a command may name of the phone's own
MARK = "EMULATED_PHONE"  # in the environment of every process of a phone: its root
CACHES = ("bin", "models", "data", "scripts")  # what a harness may leave in its folder, for the next time


def android_tools(folder: Path) -> Path | None:
    """A folder with Android's own shell and programs, mksh and toybox, if this machine has them.

    Debian's toybox lacks a few of Android's (dd, tr, expr): there the machine's own are found instead.
    """
    mksh, toybox = shutil.which("mksh"), shutil.which("toybox")
    if not mksh or not toybox:
        return None
    folder.mkdir(parents=True)
    for name in subprocess.run([toybox], capture_output=True, text=True, check=True).stdout.split():
        (folder / name).symlink_to(toybox)
    (folder / "sh").unlink(missing_ok=True)
    (folder / "sh").symlink_to(mksh)
    return folder


class EmulatedPhone:
    """Context manager; `with EmulatedPhone(PIXEL, tmp_path) as phone: adb.connect(phone.address)`.

    Args:
        personality: what kind of phone.
        root: an empty folder, which becomes the phone's file system; no blanks or quotes in its path.
        serial: other than the personality's own, for several phones of a kind.
        pace: seconds that a `benchmark_model` sleeps instead of computing, for benchmarks of a harness.
        speed: how much faster the battery drains and the phone warms than a real one would.
        plugged: "AC", "USB" or None.
        tools: folder of the programs it has, sh among them, as `android_tools` makes one; else this machine's own.
        verbose: runtime log lines of severity VERBOSE, as Android's builds print them.
    """

    def __init__(
        self, personality: Personality, root: Path, *, serial: str | None = None, pace: float | None = None,
        speed: float = 1.0, plugged: str | None = None, verbose: bool = True, tools: Path | None = None,
    ):  # fmt: skip
        self.personality, self.root = personality, Path(root).resolve()
        if re.search(r"[^\w./+-]", str(self.root)) or MAPPED.search(f"{self.root}/"):
            raise ValueError(f"Expected a root that can stand unquoted in a command. Received: {self.root}")
        self.serial = serial or personality.serial
        self.pace, self.verbose = pace, verbose
        self.programs = self.root / "state/programs"
        self.tools = tools
        self.shell = str(tools / "sh") if tools else shutil.which("dash") or "/bin/sh"
        for folder in ("bin", "data/local/tmp", "state/faults", "state/load", "state/settings"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self.faults = Faults(self.root / "state/faults")
        self.physics = Physics(personality, self.root, self.faults, speed, plugged)
        self._adbd = Adbd(self)

    def __enter__(self) -> "EmulatedPhone":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        commands.install(self.personality, self.serial, self.root)
        self.physics.start()
        self._adbd.start()

    def stop(self) -> None:
        """End every connection and every process of the phone."""
        self._adbd.stop()
        self.physics.stop()
        end = time.monotonic() + 5
        while (alive := self.processes()) and time.monotonic() < end:
            for process in alive:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.005)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._adbd.port}"

    def fault(self, kind: str, times: int = 1, **options) -> None:
        """Plant a fault that comes about `times` times; see faults.py for the kinds and their options."""
        if kind == "gone":
            return self._adbd.go_away(options.get("seconds", 1.0))
        self.faults.plant(kind, times, options)
        if kind == "unauthorized":
            self._adbd.cut()  # the next connection is the one that is refused

    def plug(self, source: str | None) -> None:
        """Connect a charger ("AC", "USB") or none; shown from now on."""
        self.physics.state.plugged = source
        self.physics.poke()

    def settings(self) -> dict[str, str]:
        """What a harness may change and must put back: "system/screen_brightness" -> "102" and so on."""
        state = self.root / "state"
        found = {str(path.relative_to(state / "settings")): path.read_text().strip()
                 for path in sorted((state / "settings").glob("*/*"))}  # fmt: skip
        for name in ("fixed_performance", "wakelock"):
            found[name] = (state / name).read_text().strip() if (state / name).exists() else ""
        return found | {"battery_updates_stopped": str((state / "stopped").exists()).lower()}

    def processes(self) -> list[int]:
        """Ids of the phone's processes that are alive."""
        mark, found = f"{MARK}={self.root}".encode(), []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    environment = Path("/proc", entry, "environ").read_bytes()
                except OSError:
                    continue  # it ended, or is another user's
                if mark in environment.split(b"\0"):
                    found.append(int(entry))
        return found

    def leftovers(self) -> tuple[list[str], list[str]]:
        """Processes of the phone that are alive, and files a harness should have removed, caches left out."""
        names = []
        for process in self.processes():
            try:
                names.append(Path("/proc", str(process), "cmdline").read_bytes().replace(b"\0", b" ").decode().strip())
            except OSError:
                continue
        place = self.root / "data/local/tmp"
        files = [str(path.relative_to(place)) for path in sorted(place.rglob("*")) if not path.is_dir()]
        return names, [file for file in files if file.split("/")[1:2] not in ([c] for c in CACHES)
                       or file.endswith(".part")]  # fmt: skip

    def banner(self) -> bytes:
        p = self.personality
        features = "cmd,stat_v2,fixed_push_mkdir,apex,sendrecv_v2" if p.shell_v2 else "cmd"
        features = "shell_v2," + features if p.shell_v2 else features
        return (f"device::ro.product.name={p.product};ro.product.model={p.model};"
                f"ro.product.device={p.device};features={features}").encode()  # fmt: skip

    def real_path(self, path: str) -> str:
        """Where a file of the phone lies on this computer; PermissionError for one outside of the phone."""
        real = os.path.realpath(self.root / path.lstrip("/"))
        if not f"{real}/".startswith(f"{self.root}/"):
            raise PermissionError(13, "Permission denied", path)
        return real

    def map_command(self, command: str) -> str:
        return MAPPED.sub(lambda found: f"{self.root}{found[0]}", command)

    def environment(self) -> dict[str, str]:
        """Of a command: nothing of the test's own but the way to the programs."""
        return {
            "PATH": f"{self.root}/bin:{self.tools or ''}:{os.environ['PATH']}", "HOME": "/", "ANDROID_ROOT": "/system",
            "OPENBLAS_NUM_THREADS": "1", MARK: str(self.root), "EMULATED_MACHINES": self.personality.machines,
            "EMULATED_GPU": self.personality.gpu, "EMULATED_NNAPI": str(int(self.personality.nnapi)),
            "EMULATED_PACE": "" if self.pace is None else str(self.pace), "EMULATED_VERBOSE": str(int(self.verbose)),
        }  # fmt: skip
