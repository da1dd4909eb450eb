"""One job on one phone: run it, and give back what was found, as JSON holds it."""

import dataclasses
import shlex
import threading
import time
from datetime import UTC, datetime

from android_bench import command, reference
from android_bench.accuracy import Pack, score
from android_bench.adb import safe_name
from android_bench.cpu import elsewhere
from android_bench.energy import power
from android_bench.energy.battery import Battery
from android_bench.job import Configuration, Job
from android_bench.logs.parse import BenchmarkLog, parse_log
from android_bench.session import FOLDER, Session
from android_bench.thermal import Snapshot, is_cooler, throttled, warm

RETRIED = (137, 139, 90)  # killed, crashed, output missing: may not happen again
STEP_SECONDS = 20  # of one point of the --sustain curve
MIB = 1024 * 1024
LATENCY_ONLY = "this benchmark_model (LiteRT 2's, or an old one) gives times only: take TensorFlow Lite's own"


class JobFailed(RuntimeError):
    """The phone is there, but the job gave no numbers. `retry`: it may the next time. `log`: what the tool said."""

    def __init__(self, message: str, retry: bool = False, log: str = ""):
        super().__init__(message)
        self.retry, self.log = retry, log


@dataclasses.dataclass(frozen=True)
class Cooling:
    """Wait before each latency run until skin and battery are below `celsius`, but not longer than `max_seconds`."""

    celsius: float | None = 37.0
    max_seconds: float = 300.0
    poll_seconds: float = 5.0


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What to measure, and how long."""

    timing: command.Timing = command.Timing()
    cooling: Cooling = Cooling()
    pack: Pack | None = None
    sustain_minutes: float = 0
    energy_minutes: float = 0
    grace_seconds: float = 60.0  # that a run may take beyond its own time before it is killed


class References:
    """This computer's outputs, made once for each file and kind of kernels, whichever phone asks first."""

    def __init__(self, pack: Pack, stop: threading.Event | None = None):
        self.pack, self.stop, self.made, self.lock = pack, stop, {}, threading.Lock()

    def get(self, model, xnnpack: bool, single: bool = False) -> reference.Reference:
        """`single`: one sample a run even where the file takes a batch.

        Raises:
            JobFailed: the data doesn't fit the file, or it can't be run here.
        """
        key = (model.sha256, xnnpack, single)
        with self.lock:
            if key not in self.made:
                try:
                    model.check()
                    self.made[key] = reference.make(
                        model.path, self.pack.feeds, xnnpack=xnnpack, single=single, stop=self.stop
                    )
                except (ValueError, RuntimeError) as error:
                    raise JobFailed(f"accuracy: {error}") from None
            return self.made[key]


class Measurer:
    """Runs the jobs of one phone. `start` is the snapshot that "cool" is compared with."""

    def __init__(self, session: Session, wishes: Wishes, references: References | None):
        self.session, self.wishes, self.references = session, wishes, references
        self.start: Snapshot | None = None
        self.start_was_cool = False
        self.timed: dict[tuple, tuple[str | None, float]] = {}  # of a configuration: what ran, seconds of a run

    def run(self, job: Job) -> dict:
        """What the job found.

        Raises:
            JobFailed: the tool failed, or what it wrote can't be used.
            AdbError: the phone refused (full, not authorized) or was lost.
        """
        name = f"{safe_name(job.configuration.model.id)}-{job.kind}-{job.repetition}"
        job.configuration.model.check()
        model = self.session.phone.push(job.configuration.model.path, f"{FOLDER}/models")
        found = getattr(self, f"_{job.kind}")(job, name, model)
        self.session.forget(name)
        return found

    def _latency(self, job: Job, name: str, model: str) -> dict:
        cooled, before = self._cool()
        log, ran = self._timed(job.configuration, name, model, self.wishes.timing)
        after = self.session.snapshot()
        self.timed[job.configuration.key] = log.ran_on, (log.timed.median_us or log.timed.mean_us) / 1e6
        fixed, usual = self.session.changed.fixed_performance, self.start if self.start_was_cool else None
        slowed = throttled(before, after, start=usual, fixed_performance=fixed)
        found = _repetition(log, ran, before, after) | {"throttled": slowed, "cooled": cooled, "log": ran.log}
        found["cores_note"] = elsewhere(job.configuration.mask, ran.cpu.cpus_allowed)
        if job.repetition == 0:
            found |= self._memory(job.configuration, name, model)
        return found

    def _cool(self) -> tuple[str | None, Snapshot]:
        """Wait until the phone is cool; in words what was waited for, or how hot it still is; and the last snapshot.

        The first time that means the limit; how cool the phone was at best in this room, `start`, will do ever after.
        """
        cooling, begin = self.wishes.cooling, time.monotonic()
        reason, words, snapshot = None, None, self.session.snapshot()
        while still := warm(snapshot, cooling.celsius, self.start):
            waited = time.monotonic() - begin
            if waited >= cooling.max_seconds:
                words = f"did not cool in {waited:.0f} s: {still}"
                break
            reason = reason or still
            self.session.phone.pause(min(cooling.poll_seconds, cooling.max_seconds - waited))
            snapshot = self.session.snapshot()
        if self.start is None or (not words and is_cooler(self.start, snapshot)):
            self.start, self.start_was_cool = snapshot, self.start_was_cool or not words
        if not words and (above := warm(snapshot, cooling.celsius)):
            words = f"did not wait: {above}, but no warmer than at the start"
        return words or (f"waited {time.monotonic() - begin:.0f} s: {reason}" if reason else None), snapshot

    def _timed(self, configuration: Configuration, name: str, model: str, timing: command.Timing):
        argv = command.latency(*self._common(configuration, model), timing, self._tool)
        limit = self.wishes.grace_seconds + 2 * timing.max_seconds
        ran = self.session.run(name, argv, limit=limit, mask=configuration.mask)
        log = parse_log(ran.log, ran.code)
        if log.failure:
            raise JobFailed(log.failure, ran.code in RETRIED, ran.log)
        if log.timed is None or log.timed.mean_us is None:
            raise JobFailed("the tool ended well, but printed no timed runs", log=ran.log)
        return log, ran

    def _memory(self, configuration: Configuration, name: str, model: str) -> dict:
        """The peak, or why there is none: what was timed is good all the same."""
        if self.session.binary.litert2:
            return {"peak_memory_bytes": None, "memory_note": LATENCY_ONLY}
        argv = command.memory(*self._common(configuration, model), self._tool)
        for _ in range(2):
            ran = self.session.run(name, argv, limit=2 * self.wishes.grace_seconds, period=0.05,
                                   mask=configuration.mask)  # fmt: skip
            log = parse_log(ran.log, ran.code)
            if not log.failure:
                peak = round(log.peak_memory_mb * MIB) if log.peak_memory_mb else ran.cpu.peak_memory_bytes
                return {"peak_memory_bytes": peak}
            if ran.code not in RETRIED:
                break
        return {"peak_memory_bytes": None, "memory_note": log.failure}

    def _accuracy(self, job: Job, name: str, model: str) -> dict:
        missing = {"input_layer_value_files", "output_filepath"} - self.session.flags
        if self.session.binary.litert2 or (self.session.flags and missing):
            return {"facts": {"accuracy_note": LATENCY_ONLY}}
        asked, kernels = job.configuration.delegate.partition(":")[0], job.configuration.delegate != "builtin"
        wanted = {"gpu32": "gpu"}.get(asked, asked)
        takes_one = self.timed.get(job.configuration.key, (wanted, 0))[0] == wanted
        expected = self.references.get(job.configuration.model, kernels)
        try:
            found = self._scored(job, name, model, expected)
            refused = asked not in ("cpu", "builtin") and found["facts"]["eval_ran_on"] != wanted and takes_one
        except JobFailed as failed:
            if failed.retry:
                raise
            found, refused = failed, True
        if refused and expected.dynamic and expected.chunk > 1:  # a delegate may take one sample, but no batch
            return self._scored(job, name, model, self.references.get(job.configuration.model, kernels, single=True))
        if isinstance(found, JobFailed):
            raise found
        return found

    def _scored(self, job: Job, name: str, model: str, expected: reference.Reference) -> dict:
        configuration, packs = job.configuration, []
        for number, content in enumerate(expected.packs):
            pushed = self.session.phone.push(content, f"{FOLDER}/data", f"x{number}")
            packs += [pushed, str(len(content) // expected.chunks)]
        inputs = [(layer.name, layer.shape) for layer in expected.inputs]
        argv = command.outputs(*self._common(configuration, model), inputs)
        words = ["sh", self.session.scripts["eval.sh"], str(expected.chunks), str(expected.chunk_bytes),
                 str(len(inputs)), *packs, *argv]  # fmt: skip
        each = self.timed.get(configuration.key, (None, 1.0))[1]
        limit = (5 + expected.chunks / 3) * self.wishes.grace_seconds + 3 * each * expected.chunks * expected.chunk
        ran = self.session.run(name, words, limit=limit, mask=configuration.mask)
        if ran.code == 90:
            last_line = ran.log.strip().rpartition("\n")[2][-200:]
            raise JobFailed(f"the tool wrote no output or a short one: {last_line}", retry=True, log=ran.log)
        log = parse_log(ran.log, ran.code)
        if log.failure:
            raise JobFailed(log.failure, ran.code in RETRIED, ran.log)
        size = expected.chunks * expected.chunk_bytes
        content = self.session.phone.pull(f"{ran.folder}/outputs", size)
        try:
            scores = expected.read(content)
        except ValueError as error:
            raise JobFailed(f"the outputs can't be used: {error}", retry=True, log=ran.log) from None
        found = score(expected, scores, self.wishes.pack)
        found["facts"]["eval_ran_on"] = log.ran_on
        if len(expected.outputs) > 1:
            found["facts"]["host_differences"] = expected.differences(content)
        return found

    def _sustain(self, job: Job, name: str, model: str) -> dict:
        timing = command.Timing(runs=1, min_seconds=STEP_SECONDS, max_seconds=2 * STEP_SECONDS, warmup_runs=0,
                                warmup_seconds=0)  # fmt: skip
        _, snapshot = self._cool()
        begin, points = snapshot.uptime_seconds, []
        while not points or points[-1]["minute"] < self.wishes.sustain_minutes:
            log, ran = self._timed(job.configuration, name, model, timing)
            snapshot = self.session.snapshot()
            points.append({
                "minute": round((snapshot.uptime_seconds - begin) / 60, 2),
                "p50_us": log.timed.median_us or log.timed.mean_us,
                "celsius": snapshot.celsius(), "status": snapshot.thermal.status,
                "clocks_khz": list(ran.cpu.mean_clocks_khz),
            })  # fmt: skip
        return {"sustain": points}

    def _energy(self, job: Job, name: str, model: str) -> dict:
        if self.session.binary.litert2:
            return {"energy": {"refused": LATENCY_ONLY, "minutes_needed": None}}
        seconds, facts = 60 * self.wishes.energy_minutes, self.session.facts
        timing = command.Timing(runs=1, min_seconds=seconds, max_seconds=2 * seconds, warmup_runs=0, warmup_seconds=0)
        argv = command.latency(*self._common(job.configuration, model), timing, self._tool)
        words = ["sh", self.session.scripts["energy.sh"], f"{min(5, max(0.5, seconds / 120)):g}", f"{seconds:g}",
                 "power", *argv]  # fmt: skip
        environment = f"CURRENT_FILE={shlex.quote(facts.power_supply or '')} ODPM={int(facts.has_odpm)}"
        self._cool()
        limit = 5 * seconds + 2 * self.wishes.grace_seconds
        ran = self.session.run(name, words, limit=limit, period=5, mask=job.configuration.mask, environment=environment)
        log = parse_log(ran.log, ran.code)
        if log.failure or log.timed is None:
            raise JobFailed(log.failure or "the tool printed no timed runs", ran.code in RETRIED, ran.log)
        content = self.session.phone.pull(f"{ran.folder}/power", limit=200_000_000)
        trace = power.read_trace(content.decode(errors="replace"))
        found = power.energy(trace, log.timed.count or 0, capacity_uah=_capacity(facts.battery))
        return {"energy": _energy_facts(found)}

    @property
    def _tool(self) -> str:
        return "litert2" if self.session.binary.litert2 else "tflite"

    def _common(self, configuration: Configuration, model: str) -> tuple[str, str, int, str]:
        delegate = configuration.delegate
        if delegate == "hexagon" and self.session.libraries:
            delegate = f"hexagon:{self.session.libraries}"
        return self.session.program, model, configuration.threads, delegate


def _repetition(log: BenchmarkLog, ran, before: Snapshot, after: Snapshot) -> dict:
    """The facts of one latency run, in the words of a result row."""
    timed = log.timed
    return {
        "p5_us": timed.p5_us, "p50_us": timed.median_us, "p95_us": timed.p95_us, "mean_us": timed.mean_us,
        "std_us": timed.std_us, "min_us": timed.min_us, "max_us": timed.max_us, "count": timed.count,
        "init_us": log.init_us, "first_us": log.first_us,
        "cpu_percent": ran.cpu.process_percent, "system_percent": ran.cpu.system_percent,
        "clocks_khz": list(ran.cpu.mean_clocks_khz), "cpus_allowed": ran.cpu.cpus_allowed,
        "celsius_before": before.celsius(), "celsius_after": after.celsius(),
        "status_before": before.thermal.status, "status_after": after.thermal.status,
        "battery_percent": after.battery.level_percent,
        "ran_on": log.ran_on, "note": log.note, "unconsumed": list(log.unconsumed), "tool": log.tool,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def _capacity(battery: Battery) -> float | None:
    """Charge of the full battery, as its counter and its level tell; None below 20 %, where that is a guess."""
    if not battery.charge_uah or (battery.level_percent or 0) < 20:
        return None
    return battery.charge_uah / battery.level_percent * 100


def _energy_facts(found) -> dict:
    if isinstance(found, power.Refusal):
        return {"refused": found.reason, "minutes_needed": found.minutes_needed}
    values = dataclasses.asdict(found)
    values["joules"] = values.pop("joules_per_inference")
    return values

