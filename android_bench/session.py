"""One phone, made ready: files pushed, settings changed, commands started detached and waited for."""

import contextlib
import dataclasses
import importlib.resources
import itertools
import re
import shlex
import threading
import time
from pathlib import Path

from android_bench import settings
from android_bench.adb import Phone
from android_bench.adb_errors import AdbError, DeviceLost, DeviceTimeout
from android_bench.binary import Binary, known_flags
from android_bench.cpu import CpuUse, cpu_use
from android_bench.device import Facts, snapshot_command
from android_bench.thermal import Snapshot, read_snapshot, sections

FOLDER = "/data/local/tmp/android_bench"
END_LEFTOVERS = (  # found by their command lines; the pattern doesn't match the text of the command it stands in
    f"for file in $(grep -lE '{FOLDER}/(bin|lib|scripts)/' /proc/[0-9]*/cmdline 2>/dev/null); do\n"
    'pid=${file#/proc/} pid=${pid%/cmdline}\nkill -9 "-$pid" 2>/dev/null || kill -9 "$pid" 2>/dev/null\ndone\n'
    f"rm -rf {FOLDER}/jobs {FOLDER}/*/*.part {FOLDER}/*/*/*.part"
)
LOG_BYTES, SAMPLE_BYTES = 400_000, 4_000_000  # read back at most
WAIT = 20  # seconds at most that one shell call waits for the end of a command


@dataclasses.dataclass(frozen=True)
class Ran:
    """A command that ended on the phone."""

    code: int  # 124: it was killed at its limit
    log: str
    folder: str  # on the phone, with what it wrote
    cpu: CpuUse


class Session:
    """A phone ready to run jobs. Use `open_session`.

    Attributes:
        phone, facts, binary: what runs where.
        flags: the flags that the binary knows; empty where its help can't be read.
        program: the binary's path on the phone. libraries: the folder of those pushed, "" without any.
        changed: which settings it took.
    """

    def __init__(self, phone: Phone, facts: Facts, binary: Binary, patience: float = 60):
        self.phone, self.facts, self.binary, self.patience = phone, facts, binary, patience
        self.phone.timeout = min(30.0, max(5.0, patience))
        self._runs, self._uptime = itertools.count(), 0.0
        self.flags: frozenset[str] = frozenset()
        self.program, self.changed = "", settings.Changed()
        self.scripts: dict[str, str] = {}
        self.libraries = ""

    def prepare(self, wanted: settings.Wanted, libraries=()) -> None:
        """End what an earlier harness left, push what every job needs, change the settings.

        Raises:
            AdbError: the phone refuses something every job needs.
        """
        self.end_leftovers()
        self.changed = settings.apply(self.phone, FOLDER, wanted)
        for name in ("run.sh", "eval.sh", "energy.sh"):
            script = importlib.resources.files("android_bench").joinpath("on_device", name).read_bytes()
            self.scripts[name] = self.phone.push(script, f"{FOLDER}/scripts", name)
        self.program = self.phone.push(self.binary.path, f"{FOLDER}/bin")
        self.phone.shell(f"find {FOLDER}/lib -maxdepth 1 -type l -exec rm -f {{}} + 2>/dev/null")  # of an earlier run
        for path in libraries:
            self.libraries = f"{FOLDER}/lib"
            pushed, name = shlex.quote(self.phone.push(path, f"{FOLDER}/lib/kept")), shlex.quote(Path(path).name)
            self.phone.shell(f"cd {FOLDER}/lib && ln -sf {pushed} ./{name}")
        self.flags = known_flags(self.phone.shell(f"{self._environment()} {shlex.quote(self.program)} --help").output)

    def prepare_after_restart(self, wanted: settings.Wanted) -> None:
        """Change the settings anew if the phone's clock says that it was restarted meanwhile."""
        before = self._uptime
        if self.snapshot().uptime_seconds < before:
            self.changed = settings.apply(self.phone, FOLDER, wanted)

    def run(self, name: str, argv: list[str], *, limit: float, period: float = 0.5, mask: str = "",
            environment: str = "") -> Ran:  # fmt: skip
        """Start `argv` in a new folder jobs/NAME/NUMBER; wait for its end, also beyond a link that drops and returns.

        Raises:
            DeviceLost: the phone did not come back within `patience` seconds, or was restarted.
            DeviceTimeout: after `limit` seconds the phone should have killed the command (code 124), but did not.
        """
        folder, turn = f"{self._folder(name)}/{next(self._runs)}", max(1, round(min(WAIT, self.patience)))
        words = [self.scripts["run.sh"], folder, f"{period:g}", str(max(1, round(limit))), *self._pinned(mask), *argv]
        clocks = " ".join(f"{cluster.policy}/scaling_cur_freq" for cluster in self.facts.clusters)
        start = (
            f"mkdir -p {shlex.quote(folder)}; CLOCKS={shlex.quote(clocks)} "
            f"{self._environment()} {environment} nohup $(command -v setsid) sh {shlex.join(words)} "
            ">/dev/null 2>&1 </dev/null &\n"
        )
        deadline = time.monotonic() + limit + self.patience
        while True:
            late = time.monotonic() > deadline
            try:
                answer = self.phone.shell(start + _wait(folder, turn, period), timeout=turn + self.phone.timeout)
            except DeviceLost:
                self.phone.wait(self.patience)
                if start and self.phone.shell(f"[ -e {shlex.quote(folder)}/pid ]").code:
                    raise
            except AdbError:
                self.end_leftovers()
                raise
            else:
                if answer.code == 0:
                    return _ran(answer.output, folder, self.phone.serial)
                if answer.code == 3:
                    raise DeviceLost(f"{self.phone.serial}: the command vanished ({answer.output.strip()[-200:]}); was "
                                     "the phone restarted, or is its storage full?")  # fmt: skip
            start = ""
            if late:
                self.end_leftovers()
                raise DeviceTimeout(f"{self.phone.serial}: no end within {limit:.0f} s; it was killed.")

    def snapshot(self) -> Snapshot:
        """Heat, battery and clocks now."""
        found = read_snapshot(self.phone.shell(snapshot_command()).output)
        self._uptime = found.uptime_seconds
        return found

    def forget(self, name: str) -> None:
        """Remove a job's folders; if the link is lost just then, a later `end_leftovers` does."""
        with contextlib.suppress(DeviceLost):
            self.phone.shell(f"rm -rf {shlex.quote(self._folder(name))}")

    def end_leftovers(self) -> None:
        """Kill what jobs of ours left running, and remove their files and half-pushed ones."""
        self.phone.persist(lambda: self.phone.shell(END_LEFTOVERS), self.patience)

    def close(self) -> None:
        """End and remove what is left of the jobs, and put the settings back; the pushed files stay for next time."""
        self.phone.stop = threading.Event()  # a user's Ctrl-C must not keep the settings changed
        self.phone.wait(min(30, self.patience))
        try:
            self.end_leftovers()
        finally:
            self.phone.persist(lambda: settings.put_back(self.phone, FOLDER), self.patience)

    def _folder(self, name: str) -> str:
        return f"{FOLDER}/jobs/{name}"

    def _pinned(self, mask: str) -> list[str]:
        return ["taskset", mask] if mask else []

    def _environment(self) -> str:
        where = shlex.quote(self.libraries)
        return f"LD_LIBRARY_PATH={where} ADSP_LIBRARY_PATH={where}" if where != "''" else ""


@contextlib.contextmanager
def open_session(session: Session, wanted: settings.Wanted, libraries=()):
    """The session, prepared; whatever happens, the phone is left as it was found if it can be reached."""
    try:
        session.phone.persist(lambda: session.prepare(wanted, libraries), session.patience)
        yield session
    finally:
        try:
            session.close()
        except settings.NotRestored:
            raise
        except AdbError:  # lost for good: its settings come back when it is next seen
            pass


def clean(phone: Phone) -> None:
    """Put settings back, end what runs of ours, and remove everything that was ever pushed.

    Raises:
        AdbError: a setting could not be put back; the script that knows its value stays.
    """
    settings.put_back(phone, FOLDER)
    phone.shell(END_LEFTOVERS)
    phone.shell(f"rm -rf {FOLDER}")


def _wait(folder: str, seconds: int, period: float) -> str:
    """The shell command that waits for a job: 0 ended (and its files follow), 2 still running, 3 gone.

    It looks five times as often as the job is sampled, so that it disturbs a long one as little.
    """
    pause = min(1.0, max(0.05, period / 5))
    return (
        f"cd {shlex.quote(folder)} || exit 3\nturn=0\n"
        f"while [ ! -f rc ] && [ $turn -lt {seconds / pause:.0f} ]; do sleep {pause:g}; turn=$((turn + 1)); done\n"
        'if [ ! -f rc ]; then\npid=$(cat pid) && [ -n "$pid" ] && [ -e "/proc/$pid/stat" ] && exit 2\n'
        "sleep 0.3; [ -f rc ] || exit 3\n"
        "fi\n"
        "for file in rc begin end times; do echo @@$file; cat $file; done\n"
        f"echo @@samples; tail -c {SAMPLE_BYTES} samples 2>/dev/null\necho; echo @@log\n"
        f"dd if=log bs={LOG_BYTES} count=1 2>/dev/null\n"  # Android 8.0 has no head -c
        f"dd if=log bs={LOG_BYTES} skip=1 2>/dev/null | tail -c {LOG_BYTES // 2}\nexit 0"
    )


def _ran(text: str, folder: str, serial: str) -> Ran:
    head, _, log = text.partition("\n@@log\n")
    parts = sections(head)
    code = parts.get("rc", "").strip()
    clocks = [re.match(r"\d+\.\d+", parts.get(name, "")) for name in ("begin", "end")]
    if not code.isdecimal() or not all(clocks):
        raise DeviceLost(f"{serial}: what a command left is not whole: restarted, or storage full?")
    use = cpu_use(parts.get("begin", ""), parts.get("end", ""), parts.get("times", ""), parts.get("samples", ""))
    return Ran(int(code), log, folder, use)
