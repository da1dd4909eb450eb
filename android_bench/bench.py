"""A whole run: models on phones, results on the disk, and the report."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import sys
import threading
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from android_bench.accuracy import Pack
from android_bench.adb import Server
from android_bench.binary import locate
from android_bench.command import delegate_flags
from android_bench.job import Configuration, models, plan
from android_bench.measure import References, Wishes
from android_bench.phones import choose, labels, survey
from android_bench.report import page as report
from android_bench.result import read_rows
from android_bench.runner import Results, run_all
from android_bench.settings import Wanted
from android_bench.store import only_one, remember_config
from android_bench.targets import HOST, Means, host_facts, open_host, open_phone, phone_facts


@dataclasses.dataclass(frozen=True)
class Request:
    """What `android-bench run` was asked for; the flags of the command have the same names."""

    paths: tuple[str, ...]
    output: str = "results"
    device: tuple[str, ...] = ()
    adb: str | None = None
    adb_server: tuple[str, ...] = ()
    connect: tuple[str, ...] = ()
    benchmark_binary: tuple[str, ...] = ()
    library: tuple[str, ...] = ()
    threads: tuple[int, ...] = (1,)
    delegate: tuple[str, ...] = ("cpu",)
    cores: tuple[str, ...] = ("",)
    repetitions: int = 3
    seed: int = 0
    eval: str | None = None
    eval_limit: int | None = None
    retry_failed: bool = False
    wait: float = 60.0
    wishes: Wishes = Wishes()
    wanted: Wanted = Wanted()


class Incomplete(RuntimeError):
    """Some jobs gave no numbers or were not run; the message lists them, the rest is on the disk."""


def run(request: Request, quiet: bool = False) -> Path:
    """Measure; returns the path of the report.

    Raises:
        ValueError: bad input, no phone, no choice, no binary. AdbError: no adb, or no phone reached.
        Incomplete: some jobs failed or are left; the report is written.
        KeyboardInterrupt: stopped; the same call goes on from there.
    """
    configurations = _configurations(request)
    pack = Pack.read(request.eval, request.eval_limit) if request.eval else None
    stop = threading.Event()
    means = Means(
        dataclasses.replace(request.wishes, pack=pack), References(pack) if pack else None,
        libraries=request.library, wanted=request.wanted, patience=request.wait,
    )  # fmt: skip
    devices, facts, means = _devices(request, means, stop, quiet)
    folder = Path(request.output)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Expected a folder for the results. Received: {str(folder)!r}, which is a file.")
    with only_one(folder):
        remember_config(folder, _config(request, means))
        results = Results(folder, configurations)
        if request.retry_failed:
            results.drop_failed()
        facts = _labelled(results.devices() | facts)
        results.remember(facts)
        jobs = [(serial, opened, plan(configurations, repetitions=request.repetitions, kinds=_kinds(means.wishes),
                                      seed=request.seed, serial=serial)) for serial, opened in devices]  # fmt: skip
        names = {serial: facts[serial]["label"] for serial, _ in devices}
        with _progress(names, {serial: len(mine) for serial, _, mine in jobs}, quiet) as tell:
            outcomes = run_all(jobs, results, request.seed, tell, stop)
        problems = [f"{names[o.serial]}: {o.words}; {o.left} jobs left" for o in outcomes if o.words]
        problems += [f"{names[o.serial]}: {o.failed} jobs failed" for o in outcomes if o.failed]
        page = write_report(folder) if results.lines else None
    if problems:
        raise Incomplete("\n  ".join(["Not everything was measured; the same command goes on from here "
                                      "(--retry-failed: with the failed jobs, too):", *problems]
                                     + ([f"Report of the rest: {page}"] if page else [])))  # fmt: skip
    return page


def _configurations(request: Request) -> list[Configuration]:
    """All combinations, each once. ValueError for none, a delegate that no benchmark_model has, or a missing file."""
    lists = {name: list(dict.fromkeys(getattr(request, name))) for name in ("threads", "delegate", "cores")}
    empty = [name for name, values in lists.items() if not values]
    if empty:
        raise ValueError(f"Expected one or more values for --{empty[0]}. Received none.")
    for delegate in lists["delegate"]:
        delegate_flags(delegate) if delegate != "npu" else None
    for library in request.library:
        if not Path(library).is_file():
            raise ValueError(f"Expected a shared library. Received: {library!r}, which is not a file; check the path.")
    return [Configuration(*each) for each in itertools.product(models(request.paths), *lists.values())]


def _labelled(devices: dict[str, dict]) -> dict[str, dict]:
    """The devices with labels of their own, also where an earlier run into the folder had another phone of a kind."""
    names = labels({serial: device["label"] for serial, device in devices.items()})
    return {serial: device | {"label": names[serial]} for serial, device in devices.items()}


def servers(request: Request) -> list[Server]:
    """The adb servers of a request, with the wireless phones connected."""
    found = [Server(address, request.adb) for address in request.adb_server or ("",)]
    for address in request.connect:
        found[0].connect(address)
    return found


def write_report(folder) -> Path:
    """Write `report.html`, `.csv` and `.jsonl` of a results folder; returns the first one's path."""
    folder = Path(folder)
    config = folder / "config.json"
    about = json.loads(config.read_text()) if config.exists() else {}
    return report.write_report(read_rows(folder), folder / "report.html", about=_about(about))


def _devices(request: Request, means: Means, stop: threading.Event, quiet: bool):
    """What is measured on: (serial, what opens it), their facts by serial, and the means with the binaries found."""
    wanted = [name for name in request.device if name != HOST]
    devices, facts = [], {}
    if HOST in request.device:
        devices.append((HOST, functools.partial(open_host, means)))
        facts[HOST] = host_facts()
    if wanted or not request.device:
        seen = survey(servers(request), stop)
        found = choose(seen, wanted)
        for problem in seen.problems if not quiet else ():
            print(f"warning: {problem}", file=sys.stderr)
        means = dataclasses.replace(means, binaries=tuple(locate(request.benchmark_binary)))
        devices += [(phone.serial, functools.partial(open_phone, phone, means)) for phone in found]
        facts |= {phone.serial: phone_facts(phone, means) for phone in found}
    return devices, facts, means


def _kinds(wishes: Wishes) -> tuple[str, ...]:
    more = {"accuracy": wishes.pack, "sustain": wishes.sustain_minutes, "energy": wishes.energy_minutes}
    return ("latency", *(kind for kind, asked in more.items() if asked))


def _config(request: Request, means: Means) -> dict:
    """What rows of one folder must share."""
    wishes = dataclasses.asdict(dataclasses.replace(means.wishes, pack=None)) | {"pack": None}
    data = hashlib.sha256(Path(request.eval).read_bytes()).hexdigest() if request.eval else None
    return wishes | {
        "seed": request.seed, "eval_sha256": data, "eval_limit": request.eval_limit,
        "benchmark_binaries": sorted(binary.sha256 for binary in means.binaries),
        **{f"settings_{name}": value for name, value in dataclasses.asdict(request.wanted).items()},
    }  # fmt: skip


def _about(config: dict) -> dict:
    timing, cooling = config.get("timing") or {}, config.get("cooling") or {}
    words = {
        "A latency run": f"at least {timing.get('runs')} runs and {timing.get('min_seconds')} s, at most "
                         f"{timing.get('max_seconds')} s, after {timing.get('warmup_runs')} runs and "
                         f"{timing.get('warmup_seconds')} s of warm-up",
        "Cool-down": f"until skin and battery are below {cooling.get('celsius')} °C (or as cool as at the start), "
                     f"at most {cooling.get('max_seconds')} s",
        "Order": f"blocks of all configurations, shuffled with seed {config.get('seed')} and the phone's serial",
    }  # fmt: skip
    return words if timing else {}


@contextlib.contextmanager
def _progress(names: dict[str, str], totals: dict[str, int], quiet: bool):
    """A bar for each device; gives the function that tells it where a device is."""
    columns = (TextColumn("{task.fields[label]}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))  # fmt: skip
    with Progress(*columns, disable=quiet) as progress:
        bars = {serial: progress.add_task("", total=totals[serial], label=label) for serial, label in names.items()}

        def tell(serial, done, job):
            words = f"{job.configuration.model.id} {job.kind}" if job else ""
            progress.update(bars[serial], completed=done, description=words)

        yield tell
