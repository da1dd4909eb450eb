"""The study of students: train what has no row yet, time the files in turn, write the report."""

import hashlib
import json
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from android_bench import side_by_side
from android_bench.host import computer
from android_bench.store import Store, only_one, remember_config, write_file

from ..cell import read_data
from . import train
from .config import StudentsConfig, plans, preset
from .page import write_report
from .train import ALONE, TAUGHT, TEACHER

WORK = {TEACHER: 3.0, TAUGHT: 1.5, ALONE: 0.5}  # about how long each takes, for the bar


def run_students(preset_or_config, folder=None) -> Path:
    """Run a study of students, or go on with one that was stopped or killed; returns the path of `report.html`.

    For each seed a teacher is trained, then each student with it and without it, all with the same recipe; the
    float32 `.tflite` files are judged on the test data and timed in turn on this computer, one thread. In `folder`:
    `config.json`, `models/`, `trained.jsonl` (a row a training), `rows.jsonl` (a row for each seed, scaling and
    block), `report.html`. More seeds, scalings or blocks go into the same folder.

    Args:
        preset_or_config: "digits", "ecg", "tiny", or a `StudentsConfig`.
        folder: default `runs/students/<name>`.

    Raises:
        ValueError: unknown preset, scaling or block; a budget that no student is near (nothing is trained then); a
            folder that holds another study, or whose files have changed.
        FileNotFoundError: data that is in no package.
        RuntimeError: another process runs this study.
    """
    config = preset(preset_or_config)
    folder = Path(folder) if folder is not None else Path("runs/students") / config.name
    splits = read_data(config)
    students = plans(config, splits.input_shape, splits.classes)
    with only_one(folder), _progress() as progress:
        remember_config(folder, config.remembered())
        write_file(folder / "about.json", json.dumps(_facts(splits)).encode())
        one = WORK[TEACHER] + len(students) * (WORK[TAUGHT] + WORK[ALONE])
        bar = progress.add_task("", total=one * len(config.seeds))
        study = _Study(config, folder, splits, students, lambda **words: progress.update(bar, **words))
        for seed in config.seeds:
            study.train(seed)
            study.measure(seed)
            page = report(folder)
    return page


def report(folder) -> Path:
    """Write `report.html` from the rows that a study's folder holds; returns its path.

    Raises:
        ValueError: no such study, or no rows.
    """
    folder = Path(folder)
    for name in ("config.json", "rows.jsonl"):
        if not (folder / name).exists():
            raise ValueError(f"Expected the folder of a study that has rows. Received: {folder}, which has no {name}.")
    config, facts = (json.loads((folder / name).read_text()) for name in ("config.json", "about.json"))
    return write_report(_rows(folder).read(), folder / "report.html", config, facts)


class _Study:
    """The state of one run: what is trained, and where it lies."""

    def __init__(self, config: StudentsConfig, folder: Path, splits, students, tell):
        self.config, self.folder, self.splits, self.students, self.tell = config, folder, splits, students, tell
        self.trained = Store(folder / "trained.jsonl", key=("seed", "block", "scaling", "way"))
        self.rows = _rows(folder)
        (folder / "models").mkdir(exist_ok=True)

    def train(self, seed: int) -> None:
        """The teacher and every student of this seed that has no row yet."""
        teacher = self.folder / "models" / f"seed{seed}-teacher.keras"
        self._once((seed, self.config.teacher_block, "", TEACHER),
                   lambda: train.train_teacher(self.config, seed, self.splits, teacher))  # fmt: skip
        for plan in self.students:
            for way, path in ((TAUGHT, teacher), (ALONE, None)):
                self._once((seed, plan.block, plan.scaling, way),
                           lambda plan=plan, path=path: train.train_student(self.config, seed, plan, self.splits, path))

    def measure(self, seed: int) -> None:
        """A row for each student of this seed: its files' figures, and its time beside the teacher's."""
        made = {self.trained.key_of(row): row for row in self.trained.read()}
        missing = [plan for plan in self.students if (seed, plan.scaling, plan.block) not in self.rows]
        if not missing:
            return
        self.tell(description=f"seed {seed}: timing {len(missing)} students")
        keys = [(seed, self.config.teacher_block, "", TEACHER)]
        keys += [(seed, plan.block, plan.scaling, TAUGHT) for plan in missing]
        times = side_by_side.latencies([self._file(key, made[key]["sha256"]) for key in keys], turns=25)
        for plan, latency in zip(missing, times[1:], strict=True):
            taught, alone = (made[seed, plan.block, plan.scaling, way] for way in (TAUGHT, ALONE))
            self.rows.append(_row(seed, plan, made[keys[0]], taught, alone, times[0], latency))

    def _once(self, key, work) -> None:
        seed, block, scaling, way = key
        if key not in self.trained:
            self.tell(description=f"seed {seed}: training {' '.join(filter(None, (block, scaling, way)))}")
            record, content = work()
            write_file(self._path(key), content)
            self.trained.append(dict(zip(self.trained.key, key, strict=True)) | record)
        self.tell(advance=WORK[way])

    def _path(self, key) -> Path:
        seed, *words = key
        return self.folder / "models" / f"seed{seed}-{'-'.join(filter(None, words))}.tflite"

    def _file(self, key, sha256) -> Path:
        """Its path; ValueError where the file is not the one that was recorded."""
        path = self._path(key)
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise ValueError(f"{path} is gone, or not the file that was recorded: restore it, or remove its line from "
                             f"{self.trained.path} to train it again.")  # fmt: skip
        return path


def _row(seed, plan, teacher, taught, alone, teacher_latency, latency) -> dict:
    """One row of `rows.jsonl`; accuracies are shares, `gain` is their difference."""
    return dict(
        seed=seed, scaling=plan.scaling, block=plan.block, depth=plan.depth, width=plan.width,
        blocks=list(plan.blocks), channels=list(plan.channels), params=taught["params"], budget=plan.budget,
        within_budget=plan.within, macs=taught["macs"], bytes=taught["bytes"], latency_us=latency,
        accuracy_taught=taught["accuracy"], accuracy_alone=alone["accuracy"],
        gain=taught["accuracy"] - alone["accuracy"], macro_f1_taught=taught["macro_f1"],
        macro_f1_alone=alone["macro_f1"], test_samples=taught["test_samples"],
        teacher={name: teacher[name] for name in ("block", "params", "bytes", "macs", "accuracy", "macro_f1")}
        | {"latency_us": teacher_latency},
    )  # fmt: skip


def _facts(splits) -> dict:
    return {"data": str(splits), "licence": splits.licence} | computer()


def _rows(folder: Path) -> Store:
    return Store(folder / "rows.jsonl", key=("seed", "scaling", "block"))


def _progress() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
