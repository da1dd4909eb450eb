"""Faults on demand: each is a file, so that the phone's own processes (`dumpsys`, `benchmark_model`) can take one."""

import itertools
import json
import os
from pathlib import Path

KINDS = (
    "drop_push",  # the link is cut in the middle of a push: after_bytes
    "drop_shell",  # the link is cut while a command runs; its children live on: after (seconds)
    "gone",  # connections are refused: seconds
    "unauthorized",  # the phone doesn't know the host's key
    "storage_full",  # a push fails; with `match`, a command whose text holds it
    "killed",  # benchmark_model dies with SIGKILL: after (seconds)
    "crash",  # ... with SIGSEGV
    "wrong_abi",  # ... is not executable here, exit code 126
    "hang_benchmark",  # ... sleeps for ever
    "no_output_file",  # ... leaves out its output file and says nothing
    "thermal_trip",  # the next run heats the phone: status, cap (fraction of the clock), seconds it stays afterwards
    "battery_garbage",  # dumpsys battery prints rubbish
    "hang",  # a shell never answers: match
    "noise",  # a shell answers with noise before its output: megabytes, run (False: only noise), match
    "evil_paths",  # a folder's list holds names that lead outside of it
)


class Faults:
    """`plant` them, `take` one when its time has come."""

    def __init__(self, folder: Path):
        self.folder, self._numbers = folder, itertools.count()

    def plant(self, kind: str, times: int, options: dict) -> None:
        if kind not in KINDS:
            raise ValueError(f"Unknown fault {kind!r}. Known faults: {', '.join(KINDS)}")
        for _ in range(times):
            number = next(self._numbers)
            hidden = self.folder / f".{number}"
            hidden.write_text(json.dumps({"kind": kind} | options))
            hidden.rename(self.folder / f"{kind}.{number:06d}")

    def take(self, kind: str, text: str = "") -> dict | None:
        """The options of a planted fault whose `match` is in the text, now used up; None where there is none."""
        for path in self._planted(kind):
            try:
                options = json.loads(path.read_text())
                if options.get("match", "") in text:
                    path.unlink()
                    return options
            except FileNotFoundError:
                continue  # another thread or process was first
        return None

    def peek(self, kind: str) -> dict:
        """The options of the next planted fault, left in place; empty where there is none."""
        for path in self._planted(kind):
            try:
                return json.loads(path.read_text())
            except FileNotFoundError:
                continue
        return {}

    def _planted(self, kind: str) -> list[Path]:
        return [self.folder / name for name in sorted(os.listdir(self.folder)) if name.startswith(kind + ".")]
