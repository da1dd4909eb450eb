"""``run_job``: the control, then stage by stage, each kept only where it pays; a killed job goes on where it was."""

import dataclasses
import json
import time
import warnings
from pathlib import Path

from android_bench.store import only_one, remember_config, write_file
from tfcompress import tasks
from tfcompress.convert import convert
from tfcompress.job import finish, judge, plan, search, spec, stages
from tfcompress.job.bar import epoch_bar
from tfcompress.job.folder import CONTROL, attempts, in_words, judged, load, row_of, rows_of
from tfcompress.kept import save
from tfcompress.recipes import Recipe


def run_job(path, out=None, *, workers=1, ray=None, say=print):
    """Do what a job file asks for; returns the path of the report.

    ``out`` then holds model.tflite, model.tfcp (packed), report.html, resolved.yaml, which runs the same job again to
    the same bytes, rows.jsonl (a line a stage) and a ``.keras`` and a ``.tflite`` of each stage that was tried. The
    same call goes on in a folder where it was stopped or killed, behind the last epoch of a training.

    Bytes are the same on one thread (``tfcompress run`` sees to it), with the same versions, on the same kind of CPU.
    Where the target is "fast", times decide what stays: there only resolved.yaml gives the same bytes.

    Args:
        path: of the job file, or of a resolved.yaml.
        out: the folder; default: runs/<name of the file>, for runs/x/resolved.yaml runs/x_again.
        workers: processes that try settings, where the job has a ``search``.
        ray: address of a Ray cluster that tries them, or "local".
        say: is told what was found, a line at a time.

    Raises:
        FileNotFoundError: no such file. ValueError: a bad job, data of other content than when it was resolved, a
            folder of another job. RuntimeError: another process works in the folder.
    """
    folder = default_folder(path) if out is None else Path(out)
    resolved, data = _asked(path, folder)
    with only_one(folder):
        _check_edited(folder, resolved)
        remember_config(folder, resolved)
        for leftover in (*folder.glob("*.part"), *folder.glob("part_*")):    # of processes that were killed
            leftover.unlink()
        if not (folder / "resolved.yaml").exists():
            plan.write(resolved, folder / "resolved.yaml")
        say(f"{folder}: {data}")
        _caution(resolved, data, say)
        if resolved["job"]["search"]:
            control(folder, resolved, data, say)
            resolved = search.best(folder, resolved, data, workers, ray, say)
        rows = work(folder, resolved, data, say)
        return finish.finish(folder, resolved, data, rows, say)


def write_plan(path, out=None, say=print):
    """Write the resolved.yaml of a job file, without doing the job; returns its path."""
    folder = default_folder(path) if out is None else Path(out)
    resolved, data = _asked(path)
    if (folder / "config.json").exists():
        raise ValueError(f"{folder} holds a job that was begun, and its resolved.yaml. Choose another folder: -o.")
    plan.write(resolved, folder / "resolved.yaml")
    _caution(resolved, data, say)
    return folder / "resolved.yaml"


def default_folder(path):
    """Where a job works.

    >>> default_folder("jobs/ecg.yaml").as_posix(), default_folder("/runs/ecg/resolved.yaml").as_posix()
    ('runs/ecg', '/runs/ecg_again')
    """
    if Path(path).stem != "resolved":
        return Path("runs") / Path(path).stem
    folder = Path(path).resolve().parent
    return folder.with_name(f"{folder.name}_again")


def work(folder, resolved, data, say=print):
    """All stages, those that are done left out; returns the rows of ``rows.jsonl``."""
    rows = [control(folder, resolved, data, say)]
    for stage in resolved["stages"]:
        for name, attempt in attempts(stage).items():
            row = row_of(folder, name)
            if row is None:
                if stage.get("kept") is False:
                    row = {"stage": name, "kept": False, "why": "not kept when this job was resolved"}
                else:
                    row = _tried(folder, resolved, data, name, attempt, rows)
                rows_of(folder).append(row)
                say(_line(row))
            rows.append(row)
            if row["kept"]:
                break
    return rows


def control(folder, resolved, data, say=print):
    """The row of the net that all begins with, trained where it is not there yet."""
    row = row_of(folder, CONTROL)
    if row is None:
        started, job, seed = time.perf_counter(), plan.check(resolved), resolved["seed"]
        task = tasks.find(job.task)
        stages.fresh()
        model, trained = plan.net(job, data, seed)
        if not trained:
            with epoch_bar(CONTROL) as bar:
                tasks.fit(model, task, data, Recipe(**resolved["train"]), seed=seed, callbacks=[bar],
                          backup=folder / f"backup_{CONTROL}.npz")
        save(model, folder / f"{CONTROL}.keras")
        row = judged(folder, CONTROL, convert(task.export(model)), task, data, job.target)
        row |= {"kept": True, "why": "what the others are measured against", "loss": 0.0,
                "seconds": round(time.perf_counter() - started, 1)}
        rows_of(folder).append(row)
        say(_line(row))
    return row


def _tried(folder, resolved, data, name, stage, rows):
    """The row of one attempt at a stage, its files behind it where it is kept."""
    started, allowed = time.perf_counter(), resolved["drop"] * plan.ALLOWED[stage["stage"]]
    job = plan.check(resolved)
    task = tasks.find(job.task)
    before = [row for row in rows if row["kept"]][-1]
    base = {"stage": name, "kept": False, "why": "", "allowed": allowed}
    stages.fresh()
    if stage["stage"] == "distil" and before["stage"] == CONTROL:
        return base | {"why": "The control has nothing to learn from itself."}
    teacher = lambda: load(folder, CONTROL)                       # noqa: E731 - read only where it is asked for
    seed = stages.stage_seed(resolved["seed"], stage["stage"])
    doing = stages.Work(task, data, teacher, Recipe(**resolved["tune"]), seed, folder / f"backup_{name}.npz")
    try:
        if stage["stage"] == "quantize":
            row = _quantized(folder, stage, doing, before, rows[0], allowed, job)
        else:
            model = stages.STAGES[stage["stage"]](load(folder, before["stage"]), stage, doing)
            save(model, folder / f"{name}.keras")
            row = judged(folder, name, convert(task.export(model)), task, data, job.target, before)
            row |= _verdict(task, stage, before, row, rows[0], allowed)
    except (ValueError, RuntimeError) as error:          # the job goes on with the model before it
        doing.backup.unlink(missing_ok=True)
        row = {"why": str(error)}
    return base | row | {"seconds": round(time.perf_counter() - started, 1)}


def _quantized(folder, stage, doing, before, first, allowed, job):
    """The better one of calibrated and trained; on a rerun the one that was found."""
    tried, failed = [], None
    for how in [stage["how"]] if "how" in stage else stages.HOW[stage["bits"]]:
        stages.fresh()
        try:
            file = stages.quantized(load(folder, before["stage"]), stage, doing, how)
            row = judged(folder, f"quantize_{how}", file, doing.task, doing.data, job.target, before)
        except (ValueError, RuntimeError) as error:
            failed = error
            continue
        tried.append(row | _verdict(doing.task, stage, before, row, first, allowed) | {"how": how})
    if not tried:
        raise failed
    best = judge.better(tried)
    write_file(folder / "quantize.tflite", (folder / f"quantize_{best['how']}.tflite").read_bytes())
    return best | {"stage": "quantize", "tried": {row["how"]: row["score"] for row in tried}}


def _verdict(task, stage, before, row, first, allowed):
    hops = [judge.Hop(**{field.name: one[field.name] for field in dataclasses.fields(judge.Hop)})
            for one in (before, row)]
    losses = tuple(judge.lost(task, one["score"], first["score"]) for one in (before, row))
    kept, why = judge.verdict(stage["stage"], stage, *hops, losses, allowed)
    if stage.get("kept"):                                # as it was found: times differ from run to run
        kept, why = True, f"{why}; kept when this job was resolved"
    return {"kept": kept, "why": why, "loss": losses[1]}


def _asked(path, begun=None):
    """The resolved job of a file, and its data; ``begun``: the folder where it may have been begun."""
    found = spec.read(path)
    job = plan.check(found) if isinstance(found, dict) else found
    data = plan.load(job)
    if job is found:
        return plan.resolve(job, data, begun and _stages_of(begun, job)), data
    now = plan.given(data, *plan.net(job, data, 0))
    for name, what in (("data_sha256", f"The data {data.name}"), ("model_sha256", f"The model {job.model}")):
        if now[name] != found[name]:
            raise ValueError(f"{what} is not what it was when this job was resolved. Received: SHA-256 "
                             f"{str(now[name])[:12]}..., resolved with {str(found[name])[:12]}... Resolve it anew.")
    if now["versions"] != found["versions"]:
        changed = ", ".join(f"{name} {found['versions'].get(name)} -> {version}"
                            for name, version in now["versions"].items() if found["versions"].get(name) != version)
        warnings.warn(f"Resolved with other versions ({changed}): the bytes may be others.", stacklevel=3)
    return found | {"versions": now["versions"]}, data


def _stages_of(folder, job):
    """As they were resolved when this job was begun in the folder; None where it was not."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) if path.exists() else {}
    return config["stages"] if config.get("job") == dataclasses.asdict(job) else None


def _caution(resolved, data, say):
    if doubt := plan.doubt(resolved["job"]["model"], data):
        say(f"CAUTION: {doubt}")


def _check_edited(folder, resolved):
    """ValueError where the folder holds a plan that was written, and perhaps edited, but another one is to be done."""
    path = folder / "resolved.yaml"
    if path.exists() and not (folder / "config.json").exists() and spec.read(path) != resolved:
        raise ValueError(f"{path} holds another plan, edited perhaps. To do that one: tfcompress run {path} -o "
                         f"{folder}; else delete it.")


def _line(row):
    mark, name = "kept" if row["kept"] else "not kept", in_words(row["stage"])
    if "score" not in row:
        return f"{name:10} {mark:9} {row['why']}"
    return (f"{name:10} {mark:9} {row['score']:.4f}  {row['bytes']:>11,} bytes  {row['packed_bytes']:>11,} "
            f"packed  {row['seconds']:>6.0f} s  {row['why']}")
