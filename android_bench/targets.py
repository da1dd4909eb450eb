"""What runs jobs: a phone behind adb, or this computer through the same pipeline."""

import contextlib
import dataclasses
import hashlib
import threading
from pathlib import Path

from android_bench import host
from android_bench.accuracy import score
from android_bench.binary import Binary, choose
from android_bench.device import core_mask, describe, facts_command, read_facts
from android_bench.job import Job
from android_bench.lock import hold
from android_bench.measure import JobFailed, Measurer, References, Wishes
from android_bench.phones import Found
from android_bench.session import Session, open_session
from android_bench.settings import Wanted

HOST = "host"


@dataclasses.dataclass(frozen=True)
class Means:
    """What phones are measured with, the same for all of them. `patience`: seconds to wait for a phone that is gone."""

    wishes: Wishes
    references: References | None
    binaries: tuple[Binary, ...] = ()
    libraries: tuple[str, ...] = ()
    wanted: Wanted = Wanted()
    patience: float = 60.0
    stop: threading.Event | None = None


class PhoneDevice:
    """A phone with an open session."""

    def __init__(self, serial: str, session: Session, measurer: Measurer, wanted: Wanted):
        self.serial, self.session, self.measurer, self.wanted = serial, session, measurer, wanted

    def facts(self) -> dict:
        """What may have changed since it was found: the screen was switched on, the battery drained."""
        phone = self.session.phone
        text = phone.persist(lambda: phone.shell(facts_command()).output, self.session.patience)
        found = describe(read_facts(text))
        refused = list(self.session.changed.refused)
        return {name: found[name] for name in ("screen", "battery", "thermal") if name in found} | (
            {"settings_refused": refused} if refused else {})  # fmt: skip

    def run(self, job: Job) -> dict:
        configuration = job.configuration
        if configuration.mask:
            mask = core_mask(self.session.facts, configuration.mask)
            job = dataclasses.replace(job, configuration=dataclasses.replace(configuration, mask=mask))
        found, changed = self.measurer.run(job), self.session.changed
        return found | {"fixed_performance": changed.fixed_performance} if job.kind == "latency" else found

    def recover(self) -> None:
        """Wait for the phone, end what the lost job left, and set it up anew if it was restarted.

        DeviceLost if it does not come back.
        """
        self.session.phone.wait(self.session.patience)
        self.session.end_leftovers()
        self.session.prepare_after_restart(self.wanted)


@contextlib.contextmanager
def open_phone(found: Found, means: Means):
    """The phone, locked, prepared, and left as it was found.

    Raises:
        NoBinary: none of the binaries runs on it. Busy: another android-bench has it. AdbError: it refuses.
    """
    binary, _ = choose(list(means.binaries), found.facts.abis, found.label)
    with hold(found.serial):
        session = Session(found.phone, found.facts, binary, means.patience)
        with open_session(session, means.wanted, means.libraries):
            yield PhoneDevice(found.serial, session, Measurer(session, means.wishes, means.references), means.wanted)


def phone_facts(found: Found, means: Means) -> dict:
    """What devices.json and every row say about the phone and the program on it."""
    binary, abi = choose(list(means.binaries), found.facts.abis, found.label)
    facts = describe(found.facts) | {
        "abi": abi, "serial": found.serial,
        "binary": {"sha256": binary.sha256, "tool": "litert2" if binary.litert2 else "tflite"},
    }  # fmt: skip
    if means.libraries:
        facts["libraries"] = {Path(p).name: hashlib.sha256(Path(p).read_bytes()).hexdigest() for p in means.libraries}
    kind = "emulated" if found.facts.emulated else "android"
    return {"label": found.label, "kind": kind, "facts": {k: v for k, v in facts.items() if v not in (None, False)},
            "versions": {"benchmark_model": binary.sha256[:12]}}  # fmt: skip


class HostDevice:
    """This computer: delegates cpu and builtin, no energy, no thermals."""

    serial = HOST

    def __init__(self, means: Means):
        self.means = means

    def facts(self) -> dict:
        """Nothing changes here."""
        return {}

    def run(self, job: Job) -> dict:
        configuration, path = job.configuration, Path(job.configuration.model.path)
        if configuration.delegate not in ("cpu", "builtin") or configuration.mask:
            raise JobFailed("this computer has the delegates cpu and builtin, and no core masks")
        xnnpack = configuration.delegate == "cpu"
        if job.kind == "accuracy":
            expected = self.means.references.get(configuration.model, xnnpack)
            return score(expected, expected.scores, self.means.wishes.pack)
        if job.kind != "latency":
            raise JobFailed(f"{job.kind} is measured on phones only")
        timing = self.means.wishes.timing
        configuration.model.check()
        quiet = self.means.references.lock if self.means.references else contextlib.nullcontext()
        try:
            with quiet:  # while no outputs for the phones are made beside it
                found = host.measure(
                    path, threads=configuration.threads, runs=timing.runs, min_seconds=timing.min_seconds,
                    max_seconds=timing.max_seconds, warmup=timing.warmup_runs, warmup_seconds=timing.warmup_seconds,
                    xnnpack=xnnpack, stop=self.means.stop,
                )  # fmt: skip
        except RuntimeError as error:
            configuration.model.check()  # a file that is overwritten under a process kills it
            raise JobFailed(str(error)) from None
        return _repetition(found)

    def recover(self) -> None:
        """Nothing can be lost here."""


@contextlib.contextmanager
def open_host(means: Means):
    """This computer, locked like a phone."""
    with hold(HOST):
        yield HostDevice(means)


def host_facts() -> dict:
    """What devices.json and every row say about this computer."""
    facts = host.computer()
    return {"label": f"this computer ({facts['cpu']})", "kind": "host",
            "facts": {k: v for k, v in facts.items() if v is not None}}  # fmt: skip


def _repetition(found: host.HostMeasurement) -> dict:
    return {
        "p5_us": found.latency_p5_us, "p50_us": found.latency_p50_us, "p95_us": found.latency_p95_us,
        "mean_us": found.latency_mean_us, "std_us": found.latency_std_us, "min_us": found.latency_min_us,
        "max_us": found.latency_max_us, "count": found.runs, "init_us": found.init_us, "first_us": found.first_run_us,
        "cpu_percent": found.cpu_percent, "system_percent": None, "ran_on": found.delegate,
        "note": None, "unconsumed": [], "tool": "ai_edge_litert", "peak_memory_bytes": found.peak_memory_bytes,
        "memory_note": f"of a Python process that had {found.facts['memory_before_load_bytes'] / 1e6:.0f} MB before "
                       "it loaded the file",
    }  # fmt: skip
