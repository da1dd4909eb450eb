"""The study: make 18 files, measure each on each device, write one row the moment it is known, then the report."""

import hashlib
import json
import os
import re
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from android_bench import host
from android_bench.result import Result, read_rows
from android_bench.store import Store, only_one, remember_config, write_file
from tfcompress import flatbuffer

from .cell import described, judge, read_data
from .phones import as_devices
from .pool import LocalPool, RayPool
from .presets import StudyConfig, preset
from .report import CONTROL as CONTROL_CELL
from .report import write_report
from .worker import CONTROL

WORK = {"control": 4.0, "train": 4.0, "convert": 1.0, "measure": 0.5}  # about how long each takes, for the time left
QUIET = 90  # percent of its core that a one-thread run has where nothing else runs
THREADS = {"host-1thread": 1, "host-allthreads": os.cpu_count() or 1}


class StudyError(RuntimeError):
    """Some cells have no row; the message lists why. What was made is kept: the same command goes on from there."""


def run_study(preset_or_config, out=None, *, workers=1, ray=None, devices=("host-1thread",)) -> Path:
    """Run a study, or go on with one that was stopped or killed; returns the path of `report.html`.

    First the control is trained and the 18 files are made (by `workers` processes, or actors on the Ray cluster at
    `ray`), then each is timed on each device, one at a time on a quiet machine. In `out`: `config.json`,
    `control.keras`, `models/<id>.tflite`, `variants.jsonl`, `rows.jsonl` (`android_bench.result.Result` rows),
    `report.html`, `report.csv`.

    Args:
        preset_or_config: "digits", "ecg", "ecg_full", "ecg_resnet", "tiny", or a `StudyConfig`.
        out: the study's folder; default `runs/<name>`.
        workers: processes or actors; each uses one thread, and the files are the same with any number.
        ray: address of a Ray cluster, "auto", or "local".
        devices: of "host-1thread", "host-allthreads".

    Raises:
        ValueError: unknown preset or device, or a folder that holds another study.
        FileNotFoundError: data that is in no package; the message says how to get it.
        RuntimeError: another process runs this study; StudyError: cells failed (the others are kept).
    """
    config = preset(preset_or_config)
    unknown = sorted(set(devices) - set(THREADS))
    if unknown or not devices:
        raise ValueError(f"Unknown devices: received {unknown or 'none'}, expected some of {', '.join(THREADS)}.")
    folder = Path(out) if out is not None else Path("runs") / config.name
    if not ray and not (folder / "control.keras").exists():
        read_data(config)  # data that isn't there is said now, before there is a folder
    with only_one(folder), _progress() as progress:
        remember_config(folder, config.to_dict() | {"files": config.files()})
        work = WORK["control"] + sum(map(_work, config.cells())) + WORK["measure"] * len(config.cells()) * len(devices)
        bar = progress.add_task("", total=work)
        _make_all(config, folder, workers, ray, progress, bar)
        _measure_all(config, folder, devices, progress, bar)
    return report(folder)


def report(folder, phones=()) -> Path:
    """Write `report.html` and `report.csv` from the rows that a study's folder holds; returns the first one's path.

    `phones` are results folders of `android-bench run` on the study's files: each phone is a device more.
    """
    folder = Path(folder)
    config = _config_of(folder)
    order = {id: number for number, id in enumerate(dict.fromkeys(
        [*(cell.id for cell in config.cells()), *(row["id"] for row in Store(folder / "variants.jsonl").read())]))}
    rows = [Result.from_json(json.dumps(row)) for row in _rows(folder).read()]
    devices = list(dict.fromkeys(row.device for row in rows))
    rows.sort(key=lambda row: (devices.index(row.device), order[row.id]))
    found = [row for path in phones for row in read_rows(path)]
    if found:
        variants = sorted(Store(folder / "variants.jsonl").read(), key=lambda variant: order[variant["id"]])
        rows += as_devices(variants, found, CONTROL_CELL)
    facts = json.loads((folder / "control.json").read_text())
    return write_report(rows, folder / "report.html", title=config.title, about=_about(config, rows, facts))


def add_to_study(folder, files, recipe="your own file") -> Path:
    """Files of your own join a study: judged on its test data, timed on this computer, a row each in the report.

    Args:
        folder: of a study that has rows.
        files: `{id: path, bytes or TFLiteModel}` of classifiers that take the study's inputs; an id that the study has
            is an error. A file of the same id and bytes that joined before is left as it is.
        recipe: what the report says of them.

    Returns:
        The path of `report.html`, written again.

    Raises:
        ValueError: no such study, an id that is taken, a file that is no `.tflite` or takes other inputs.
    """
    folder = Path(folder)
    config, rows, variants = _config_of(folder), _rows(folder), Store(folder / "variants.jsonl")
    contents = {id: flatbuffer.content_of(file) for id, file in files.items()}
    splits = read_data(config)
    with only_one(folder):
        known = {row["id"]: row for row in variants.read()}
        for id, content in contents.items():
            taken = id in known and known[id]["model_sha256"] != hashlib.sha256(content).hexdigest()
            if taken or not re.fullmatch(r"[\w.-]+", id):
                raise ValueError(f"The id of a file of your own is a new word. Received: {id!r}. The study has: "
                                 f"{', '.join(known)}.")
        for id, content in contents.items():
            if id not in known:
                facts = {"validation": judge(content, splits), "tried": [], "precision": "own",
                         "test_samples": len(splits.y_test)}  # fmt: skip
                known[id] = described(content, splits) | {"id": id, "recipe": recipe, "facts": facts}
                write_file(folder / "models" / f"{id}.tflite", content)
                variants.append(known[id])
            for device in dict.fromkeys(row["device"] for row in rows.read() if row["device"] in THREADS):
                _measure_once(folder, rows, known[id], known[CONTROL_CELL], device)
    return report(folder)


def _config_of(folder: Path) -> StudyConfig:
    for name in ("config.json", "rows.jsonl"):
        if not (folder / name).exists():
            raise ValueError(f"Expected the folder of a study that has rows. Received: {folder}, which has no {name}.")
    found = json.loads((folder / "config.json").read_text())
    if "control" not in found:
        raise ValueError(f"{folder} is of another kind of study. Expected the folder of a `tfcompress study`.")
    return StudyConfig.from_dict(found)


def _make_all(config, folder, workers, ray, progress, bar) -> None:
    """Phase 1: the control, then a `.tflite` file and a line in variants.jsonl for each cell that has none."""
    variants = Store(folder / "variants.jsonl")
    control, facts = folder / "control.keras", folder / "control.json"
    models = folder / "models"
    models.mkdir(exist_ok=True)
    made = {row["id"]: row for row in variants.read()}
    for row in made.values():
        _check_file(models / f"{row['id']}.tflite", row["model_sha256"])
    missing = [cell for cell in config.cells() if cell.id not in made]
    done = [_work(cell) for cell in config.cells() if cell.id in made]
    progress.update(bar, completed=WORK["control"] * facts.exists() + sum(done))
    if not missing:
        return
    shared = {"config": config.to_dict(), "control": str(control.resolve())}
    pool = RayPool(workers, ray) if ray else LocalPool(workers, folder)
    try:
        if not (control.exists() and facts.exists()):
            progress.update(bar, description="training the control")
            [(_, answer)] = pool.run([shared | {"name": CONTROL, "output": ""}])
            if "error" in answer:
                raise StudyError(f"The control could not be trained. {answer['error']}")
            write_file(facts, json.dumps(answer["record"]).encode())
            progress.advance(bar, WORK["control"])
        missing.sort(key=lambda cell: -len(cell.steps) * cell.trains)  # the long ones first
        jobs = [
            shared | {"name": cell.id, "output": str((models / f"{cell.id}.tflite").resolve())} for cell in missing
        ]
        progress.update(bar, description=f"making {len(jobs)} variants")
        errors = []
        for job, answer in pool.run(jobs):
            if "error" in answer:
                errors.append(f"  {job['name']}: {answer['error']}")
                continue
            variants.append(answer["record"])
            progress.advance(bar, next(_work(cell) for cell in missing if cell.id == job["name"]))
    finally:
        pool.close()
    if errors:
        raise StudyError("\n".join([f"{len(errors)} of {len(jobs)} cells failed; the others are kept:", *errors]))


def _measure_all(config, folder, devices, progress, bar) -> None:
    """Phase 2: one row for each file on each device, one measurement at a time."""
    rows, variants = _rows(folder), {row["id"]: row for row in Store(folder / "variants.jsonl").read()}
    for device in devices:
        for cell in config.cells():
            progress.update(bar, description=f"measuring {cell.id} on {device}")
            _measure_once(folder, rows, variants[cell.id], variants[CONTROL_CELL], device)
            progress.advance(bar, WORK["measure"])


def _measure_once(folder: Path, rows: Store, variant: dict, control: dict, device: str) -> None:
    """The row of one file on one device of this computer, if there is none yet."""
    if (variant["id"], device) in rows:
        return
    row = Result(device=device, **variant)
    row = row.replace(delta_accuracy=row.accuracy - control["accuracy"])
    found = _measure(folder / "models" / f"{variant['id']}.tflite", THREADS[device])
    rows.append(json.loads(found.into(row).to_json()))


def _measure(path: Path, threads: int) -> host.HostMeasurement:
    """The least disturbed of up to three measurements: the first follows the end of the training processes."""
    best = host.measure(path, threads=threads)
    for _ in range(2):
        if threads > 1 or best.cpu_percent >= QUIET:
            break
        best = max(best, host.measure(path, threads=threads), key=lambda found: found.cpu_percent)
    return best


def _work(cell) -> float:
    return WORK["train" if cell.trains else "convert"]


def _rows(folder: Path) -> Store:
    return Store(folder / "rows.jsonl", key=("id", "device"))


def _check_file(path: Path, sha256: str) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
    if found != sha256:
        raise ValueError(
            f"{path} is {'gone' if found is None else 'not the file that was recorded'}: restore it, or remove its "
            f"line from {path.parent.parent / 'variants.jsonl'} to make it again."
        )


def _progress() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
                    TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False))  # fmt: skip


def _busy(rows: list[Result]) -> str:
    here = [row for row in rows if row.device_kind == "host" and row.threads == 1]
    share = min((row.cpu_percent for row in here if row.cpu_percent is not None), default=100)
    if share >= QUIET:
        return ""
    return (
        f". The machine was busy: some runs had {share:.0f} % of their core. When it is quiet, remove rows.jsonl and "
        "run the study again: only the times are measured anew"
    )


def _about(config: StudyConfig, rows: list[Result], facts: dict) -> dict:
    """What the report says under "What was run, and on what"."""
    first, computer = rows[0], rows[0].facts or {}
    rates = ", ".join(f"{rate:g}" for rate in config.learning_rates)
    picked = ", picked by cross-entropy of the .tflite file on the validation split"
    energy = {row.device for row in rows if row.energy_joules is None}
    samples = {(row.facts or {}).get("eval_samples") for row in rows if row.device_kind != "host"} - {None}
    phones = {"Accuracy on phones": f"of {min(samples):,} samples, run there"} if samples else {}
    return {
        "Data": facts["data"],
        "Licence": facts["licence"],
        "Net": f"{config.model}, {facts['parameters']:,} parameters; "
        + ("as it came" if config.model.endswith(".keras") else f"control trained {config.control.epochs} epochs"),
        "Fine-tuning": f"{config.fine_tune.epochs} epochs from the control, each cell with its own seed; learning rate "
        f"of {rates}"
        + (picked if len(config.learning_rates) > 1 else "")
        + (f"; {config.taught} (T = {config.taught.temperature:g})" if config.taught else "")
        + (f"; examples mixed (mixup {config.fine_tune.mixup:g})" if config.fine_tune.mixup else ""),
        "Pruning": "by magnitude, in every kernel but the head's; biases and normalization are not pruned. "
        + {"unstructured": "The same share of each kernel", "global": "All kernels ranked together"}[config.granularity]
        + ". Polynomial schedule (Zhu & Gupta 2017)",
        "Seeds": f"study {config.seed}; cells derive theirs from it. One thread a worker: a rerun gives the same bytes",
        "Machine": f"{computer.get('cpu')}, {computer.get('cores')} cores, {computer.get('system')}",
        "Timing": "; ".join(
            f"{row.device}: {row.threads} thread{'s' if (row.threads or 1) > 1 else ''}, {row.delegate}, "
            f"{row.runs} runs of a batch of one" for row in rows if row.id == CONTROL_CELL
        ) + _busy(rows),
        **phones,
        "CPU %": "process CPU time / wall time; 100 is one core",
        "Energy": f"not measured on {', '.join(sorted(energy))}" if energy else "see the table",
        "Versions": ", ".join(f"{name} {version}" for name, version in (first.versions or {}).items()),
    }  # fmt: skip
