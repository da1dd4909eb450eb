"""A whole run: models on phones, results on the disk, and the report."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import json
import re
import sys
import threading
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from android_bench.accuracy import Pack
from android_bench.adb import Server
from android_bench.adb_errors import AdbError
from android_bench.binary import locate
from android_bench.command import delegate_flags
from android_bench.job import Configuration, models, plan
from android_bench.measure import References, Wishes
from android_bench.phones import choose, labels, survey
from android_bench.report import page as report
from android_bench.result import read_rows
from android_bench.runner import Outcome, Results, run_all
from android_bench.settings import Wanted
from android_bench.store import only_one, remember_config
from android_bench.targets import HOST, Means, host_facts, open_host, open_phone, phone_facts

NAMED_CORES = ("", "little", "big", "prime", "all")


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
        dataclasses.replace(request.wishes, pack=pack), References(pack, stop) if pack else None,
        libraries=request.library, wanted=request.wanted, patience=request.wait, stop=stop,
    )  # fmt: skip
    devices, facts, means = _devices(request, means, stop, quiet)
    folder = Path(request.output)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Expected a folder for the results. Received: {str(folder)!r}, which is a file.")
    with only_one(folder):
        remember_config(folder, _config(request, means))
        results = Results(folder, configurations)
        _same_files(results.lines, configurations)
        facts = _labelled(results.devices() | _same_phones(results.devices(), facts))
        options = {"repetitions": request.repetitions, "seed": request.seed}
        jobs = [
            (serial, opened, plan(configurations, kinds=_kinds(means.wishes, serial), serial=serial, **options))
            for serial, opened in devices
        ]
        planned = {serial: {(serial, *job.key) for job in mine} for serial, _, mine in jobs}
        facts |= {serial: facts[serial] | {"planned": len(keys | {k for k in results.keys if k[0] == serial})}
                  for serial, keys in planned.items()}  # fmt: skip
        results.remember(facts)
        if request.retry_failed:
            results.drop_failed(set().union(*planned.values()))
        names = {serial: facts[serial]["label"] for serial, _ in devices}
        with _progress(names, {serial: len(mine) for serial, _, mine in jobs}, quiet) as tell:
            outcomes = run_all(jobs, results, request.seed, tell, stop)
        problems = [f"{names[o.serial]}: {o.words}; {o.left} jobs left" for o in outcomes if o.words]
        problems += [_failures(names[o.serial], o) for o in outcomes if o.failed]
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
    for cores in lists["cores"]:
        if cores not in NAMED_CORES and not re.fullmatch("(0[xX])?[0-9a-fA-F]{1,64}", cores):
            raise ValueError(f"--cores takes little, big, prime, all, or a hexadecimal mask. Received: {cores!r}.")
    here = [word for word in (*lists["delegate"], *lists["cores"]) if word not in ("cpu", "builtin", "")]
    if HOST in request.device and here:
        raise ValueError(f"This computer has --delegate cpu and builtin, and no --cores. Received: {', '.join(here)}.")
    if set(request.device) == {HOST} and (request.wishes.energy_minutes or request.wishes.sustain_minutes):
        raise ValueError("--energy-minutes and --sustain are measured on phones only. Received: --device host alone.")
    for library in request.library:
        if not Path(library).is_file():
            raise ValueError(f"Expected a shared library. Received: {library!r}, which is not a file; check the path.")
    return [Configuration(*each) for each in itertools.product(models(request.paths), *lists.values())]


def _failures(name: str, outcome: Outcome, most: int = 3) -> str:
    """How many jobs failed on a device, and the first causes."""
    causes: dict[str, dict] = {}
    for line in outcome.failed:
        causes.setdefault(line["error"], line)
    words = [f"    {line['id']}, {line['kind']}: {' '.join(error.split())[:300]}" for error, line in causes.items()]
    more = [f"    and {len(words) - most} other causes, in the report"] if len(words) > most else []
    return "\n".join([f"{name}: {len(outcome.failed)} jobs failed", *words[:most], *more])


def _same_phones(before: dict[str, dict], now: dict[str, dict]) -> dict[str, dict]:
    """`now`; ValueError where a phone was measured into the folder with another benchmark_model or system."""
    for serial, device in now.items():
        old, new = before.get(serial, device)["facts"], device["facts"]
        pairs = {"benchmark_model": [f.get("binary", {}).get("sha256", "")[:12] for f in (old, new)],
                 "build of Android": [f.get("fingerprint") for f in (old, new)],
                 "--library": [", ".join(f"{name} {sha[:12]}" for name, sha in f.get("libraries", {}).items())
                               for f in (old, new)]}  # fmt: skip
        for name, (was, now_is) in pairs.items():
            if was != now_is:
                raise ValueError(f"{device['label']} was measured into this folder with another {name} "
                                 f"({was or 'none'}, now {now_is or 'none'}): choose another --output.")  # fmt: skip
    return now


def _same_files(lines: list[dict], configurations: list[Configuration]) -> None:
    """ValueError where the folder holds results of another file under one of these names."""
    known = {line["id"]: line["model_sha256"] for line in lines}
    for model in {configuration.model for configuration in configurations}:
        if known.get(model.id, model.sha256) != model.sha256:
            raise ValueError(f"The folder holds results of another {model.id} (sha256 {known[model.id][:12]}, that of "
                             f"this file is {model.sha256[:12]}): choose another --output.")  # fmt: skip


def _labelled(devices: dict[str, dict]) -> dict[str, dict]:
    """The devices with labels of their own, also where an earlier run into the folder had another phone of a kind."""
    names = labels({serial: device["label"] for serial, device in devices.items()})
    return {serial: device | {"label": names[serial]} for serial, device in devices.items()}


def servers(request: Request) -> list[Server]:
    """The adb servers of a request that answer, with the wireless phones connected to the first.

    AdbError if none answers; of several, those that don't are told of.
    """
    found, errors = [], []
    for address in request.adb_server or ("",):
        try:
            found.append(Server(address, request.adb))
        except AdbError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    for error in errors:
        print(f"warning: {error}", file=sys.stderr)
    for address in request.connect:
        found[0].connect(address)
    return found


def write_report(folder) -> Path:
    """Write `report.html`, `.csv` and `.jsonl` of a results folder; returns the first one's path."""
    folder = Path(folder)
    config = folder / "config.json"
    about, rows = json.loads(config.read_text()) if config.exists() else {}, read_rows(folder)
    about = _about(about, all(row.device_kind == "host" for row in rows))
    return report.write_report(rows, folder / "report.html", about=about, unfinished=_unfinished(folder))


def _unfinished(folder: Path) -> str | None:
    """Which devices have not run all of their jobs, in words."""
    results = Results(folder, [])
    done = collections.Counter(line["serial"] for line in results.lines)
    return ", ".join(
        f"{device['label']} has run {done[serial]} of {device['planned']} jobs"
        for serial, device in results.devices().items() if done[serial] < device.get("planned", 0)
    ) or None  # fmt: skip


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


def _kinds(wishes: Wishes, serial: str) -> tuple[str, ...]:
    phone = serial != HOST  # this computer has no battery, and its heat is not read
    more = {"accuracy": wishes.pack, "sustain": phone and wishes.sustain_minutes,
            "energy": phone and wishes.energy_minutes}  # fmt: skip
    return ("latency", *(kind for kind, asked in more.items() if asked))


def _config(request: Request, means: Means) -> dict:
    """What rows of one folder must share."""
    parts = {"timing": means.wishes.timing, "cooling": means.wishes.cooling, "settings": request.wanted}
    pack = means.wishes.pack
    flat = {f"{part}.{k}": v for part, fields in parts.items() for k, v in dataclasses.asdict(fields).items()}
    return flat | {
        "seed": request.seed, "eval_sha256": pack.sha256 if pack else None, "eval_limit": request.eval_limit,
        "energy_minutes": means.wishes.energy_minutes, "sustain_minutes": means.wishes.sustain_minutes,
    }  # fmt: skip


def _about(config: dict, here: bool) -> dict:
    if "timing.runs" not in config:
        return {}
    timing = {name.removeprefix("timing."): value for name, value in config.items() if name.startswith("timing.")}
    celsius = config["cooling.celsius"]
    limit = "off" if celsius is None else f"until skin and battery are below {celsius:g} °C"
    cooling = {"Cool-down": f"{limit} (or as cool as at the start), at most {config['cooling.max_seconds']:g} s"}
    return {
        "A latency run": "runs: {runs} or more, for {min_seconds:g} s or more, {max_seconds:g} s at most; warm-up "
                         "before: {warmup_runs} or more, for {warmup_seconds:g} s or more".format(**timing),
        **({} if here else cooling),
        "Order": f"blocks of all configurations, shuffled with seed {config['seed']} and the device's serial",
        "CPU %": "processor time / wall time of the process, loading included where the run is short; 100 is one core",
    }  # fmt: skip


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
