"""All jobs on all devices: devices in parallel, one job at a time on each, every result on the disk at once."""

import dataclasses
import hashlib
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from android_bench.adb import safe_name
from android_bench.adb_errors import AdbError, DeviceLost, Stopped
from android_bench.job import Configuration, Job
from android_bench.logs.log_lines import printable
from android_bench.measure import JobFailed
from android_bench.rows import make_row
from android_bench.store import Store, write_file

KEY = ("serial", "id", "model_sha256", "threads", "delegate", "mask", "kind", "repetition")
ATTEMPTS = 3  # of a job that a lost link, a kill or a crash ended
ROWS_EVERY = 1.0  # seconds between two versions of rows.jsonl


class Device(Protocol):
    """What runs jobs: a phone or this computer."""

    serial: str

    def facts(self) -> dict:
        """What it says of itself now that it is ready."""

    def run(self, job: Job) -> dict:
        """What the job found; JobFailed, AdbError."""

    def recover(self) -> None:
        """Make the device ready again after a lost link; DeviceLost if it does not come back."""


@dataclasses.dataclass
class Results:
    """The folder of a run: jobs.jsonl (a line the moment a job ends), devices.json, and rows.jsonl made of them."""

    folder: Path
    configurations: list[Configuration]

    def __post_init__(self):
        self.store = Store(self.folder / "jobs.jsonl", KEY)
        self.lock, self.written = threading.Lock(), 0.0
        self.lines = self.store.read()
        self.keys = set(map(self.store.key_of, self.lines))

    def drop_failed(self, keys: set[tuple]) -> None:
        """Forget those of these jobs that failed, so that they run again."""
        kept = [line for line in self.lines if not line["error"] or self.store.key_of(line) not in keys]
        if len(kept) < len(self.lines):
            write_file(self.store.path, b"".join(json.dumps(line).encode() + b"\n" for line in kept))
            self.lines, self.keys = kept, set(map(self.store.key_of, kept))

    def done(self, serial: str, job: Job) -> bool:
        return (serial, *job.key) in self.keys

    def add(self, line: dict) -> None:
        with self.lock:
            self.store.append(line)
            self.lines.append(line)
            self.keys.add(self.store.key_of(line))
            if time.monotonic() - self.written > ROWS_EVERY:
                self.write_rows()

    def keep(self, log: str, serial: str, job: Job) -> str:
        """Write what the tool said; the file's path from the folder."""
        words = (serial[-16:], job.configuration.model.id[-24:], *map(str, job.key[2:]))
        own = hashlib.sha256(repr((serial, job.key)).encode()).hexdigest()[:8]
        name = f"logs/{safe_name('-'.join(filter(None, words)))}-{own}.txt"
        write_file(self.folder / name, "".join(c if c.isprintable() or c in "\n\t" else " " for c in log).encode())
        return name

    def devices(self) -> dict[str, dict]:
        """What is known of each device by its serial, from this run and earlier ones."""
        path = self.folder / "devices.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def remember(self, devices: dict[str, dict]) -> None:
        with self.lock:
            text = json.dumps(self.devices() | devices, indent=1, ensure_ascii=False)
            write_file(self.folder / "devices.json", text.encode())

    def write_rows(self) -> list:
        """Make rows.jsonl of every configuration that has a line, those of earlier runs too; returns the rows."""
        rows, devices = [], self.devices()
        configurations = {configuration.key: configuration for configuration in self.configurations}
        by_configuration: dict[tuple, list[dict]] = {}
        for line in self.lines:
            found = Configuration.from_line(line)
            configurations.setdefault(found.key, found)
            by_configuration.setdefault((line["serial"], *found.key), []).append(line)
        for serial, device in devices.items():
            for key, configuration in configurations.items():
                if (serial, *key) in by_configuration:
                    rows.append(make_row(configuration, device, by_configuration[serial, *key]))
        write_file(self.folder / "rows.jsonl", "".join(row.to_json() + "\n" for row in rows).encode())
        self.written = time.monotonic()
        return rows


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How it ended on one device."""

    serial: str
    failed: tuple[dict, ...]  # lines of the jobs that gave no numbers
    left: int  # jobs that were not run
    words: str | None  # why jobs are left


def run_device(device: Device, jobs: list[Job], results: Results, seed: int, tell: Callable) -> Outcome:
    """Run what isn't done yet; `tell(serial, done, job)` before each job and at the end. `Stopped` ends it."""
    known = results.devices()[device.serial]
    results.remember({device.serial: known | {"facts": known["facts"] | device.facts()}})
    todo = [job for job in jobs if not results.done(device.serial, job)]
    keys = {(device.serial, *job.key) for job in jobs}
    failed = [line for line in results.lines if line["error"] and results.store.key_of(line) in keys]
    for number, job in enumerate(todo):
        tell(device.serial, len(jobs) - len(todo) + number, job)
        try:
            line, log = _attempts(device, job)
        except DeviceLost as error:
            return Outcome(device.serial, tuple(failed), len(todo) - number, str(error))
        line = {"serial": device.serial, **job.to_line(), "order": jobs.index(job), "seed": seed, **line}
        line |= {"log": results.keep(log, device.serial, job)} if log else {}
        failed += [line] if line["error"] else []
        results.add(line)
    tell(device.serial, len(jobs), None)
    return Outcome(device.serial, tuple(failed), 0, None)


def _attempts(device: Device, job: Job) -> tuple[dict, str]:
    """A job's line (what it found, or why not after some attempts), and what the tool said at last.

    DeviceLost if the device is gone for good.
    """
    failures, begin, log = [], time.monotonic(), ""
    for attempts in range(1, ATTEMPTS + 1):  # noqa: B007
        found, error = None, None
        try:
            found = dict(device.run(job))
            log = found.pop("log", "")
        except DeviceLost as lost:
            error = printable(str(lost), 1000)
            device.recover()
        except JobFailed as reason:
            error, log = printable(str(reason), 1000), reason.log
            if not reason.retry:
                failures.append(error)
                break
        except (AdbError, ValueError) as refused:
            error = printable(str(refused), 1000)
            failures.append(error)
            break
        if error is None:
            break
        failures.append(error)
    seconds = round(time.monotonic() - begin, 3)
    line = {"found": found, "error": error, "failures": failures, "attempts": attempts, "seconds": seconds}
    return line, log


def run_all(devices: list[tuple[str, Callable, list[Job]]], results: Results, seed: int, tell: Callable,
            stop: threading.Event) -> list[Outcome]:  # fmt: skip
    """Run each device's jobs in a thread of its own. `devices`: a serial, what opens the Device, and its jobs.

    Raises:
        KeyboardInterrupt: Ctrl-C; every device was told to stop and has cleaned up.
    """

    def work(serial, opened, jobs):
        found, words = None, "stopped"
        try:
            with opened() as device:
                found = run_device(device, jobs, results, seed, tell)
            return found
        except Stopped:
            pass
        except (AdbError, OSError, ValueError, RuntimeError) as error:  # a closing that failed as well
            words = str(error)
        if found:
            return dataclasses.replace(found, words="; ".join(filter(None, (found.words, words))))
        return Outcome(serial, (), sum(not results.done(serial, job) for job in jobs), words)

    with ThreadPoolExecutor(max(1, len(devices))) as pool:
        futures = [pool.submit(work, *device) for device in devices]
        try:
            while not all(future.done() for future in futures):
                time.sleep(0.05)
        except KeyboardInterrupt:
            stop.set()
            told = [words for future in futures if (words := future.result().words) not in (None, "stopped")]
            raise KeyboardInterrupt("".join(f"\n  {words}" for words in told)) from None
        finally:
            pool.shutdown()
            if results.lines:
                results.write_rows()
    return [future.result() for future in futures]
