"""What is to be run on a phone, and in which order."""

import dataclasses
import hashlib
import os
import random
from pathlib import Path

KINDS = ("latency", "accuracy", "sustain", "energy")


@dataclasses.dataclass(frozen=True)
class Model:
    """A `.tflite` file: its path here, the sha256 of its bytes, the id of its rows, and its size."""

    path: str
    sha256: str
    id: str
    bytes: int | None = None

    @classmethod
    def read(cls, path) -> "Model":
        """ValueError unless `path` is a `.tflite` file."""
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"Expected a .tflite file. Received: {str(path)!r}, which is not a file; check the path.")
        content = path.read_bytes()
        if content[4:8] != b"TFL3":
            raise ValueError(
                f"Expected a .tflite file (TFL3 at byte 4). Received: {str(path)!r}, {len(content)} bytes."
            )
        return cls(str(path.resolve()), hashlib.sha256(content).hexdigest(), _text(path.stem), len(content))

    def check(self) -> None:
        """ValueError if the file is not what it was when it was read."""
        path = Path(self.path)
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != self.sha256:
            raise ValueError(f"{self.path} changed since the run began: measure the new file into another folder.")


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One row of the results on one phone."""

    model: Model
    threads: int
    delegate: str
    mask: str  # cores as hex without 0x, "" for all

    @property
    def key(self) -> tuple:
        """What tells it from the others of the same phone, as JSON keeps it."""
        return (self.model.id, self.model.sha256, self.threads, self.delegate, self.mask)

    @classmethod
    def from_line(cls, line: dict) -> "Configuration":
        """The configuration of a line of jobs.jsonl; where the file lies is not known any more."""
        model = Model("", line["model_sha256"], line["id"], line.get("model_bytes"))
        return cls(model, line["threads"], line["delegate"], line["mask"])


@dataclasses.dataclass(frozen=True)
class Job:
    """One process (or series of processes) on the phone: `kind` is latency, accuracy, sustain or energy."""

    configuration: Configuration
    kind: str
    repetition: int = 0

    @property
    def key(self) -> tuple:
        return (*self.configuration.key, self.kind, self.repetition)

    def to_line(self) -> dict:
        """The fields of a line of jobs.jsonl that say which job it is of."""
        configuration, model = self.configuration, self.configuration.model
        return {
            "id": model.id, "model_sha256": model.sha256, "model_bytes": model.bytes, "threads": configuration.threads,
            "delegate": configuration.delegate, "mask": configuration.mask, "kind": self.kind,
            "repetition": self.repetition,
        }  # fmt: skip


def models(paths) -> list[Model]:
    """The files as models with ids of their own: a stem that two files share is lengthened by the folder's name.

    >>> models([])
    Traceback (most recent call last):
    ValueError: Expected one or more .tflite files. Received none.
    """
    found = [Model.read(path) for path in paths]
    if not found:
        raise ValueError("Expected one or more .tflite files. Received none.")
    stems = [model.id for model in found]
    found = [
        dataclasses.replace(m, id=f"{_text(Path(m.path).parent.name)}/{m.id}") if stems.count(m.id) > 1 else m
        for m in found
    ]
    if len({model.id for model in found}) < len(found):
        twice = sorted({m.path for m in found if [n.id for n in found].count(m.id) > 1})
        raise ValueError(f"Expected files with names of their own. Received the same name more than once: {twice}")
    return found


def _text(name: str) -> str:
    """A file's name may be no text; a row's id is."""
    return os.fsencode(name).decode(errors="replace")


def plan(configurations, *, repetitions: int = 3, kinds=("latency",), seed: int = 0, serial: str = "") -> list[Job]:
    """All jobs of one phone, in the order they run.

    Latency comes first, in blocks: each block holds every configuration once, in a random order of its own, so that a
    phone that warms up or slows down does so for all of them. Then accuracy, sustained load, and energy.
    The order follows from `seed` and the phone's serial.

    >>> a, b = (Configuration(Model(n, "0", n), 1, "cpu", "") for n in "ab")
    >>> [(job.configuration.model.id, job.repetition) for job in plan([a, b], repetitions=2, seed=1)]
    [('b', 0), ('a', 0), ('a', 1), ('b', 1)]
    """
    rng = random.Random(f"{seed} {serial}")
    jobs = []
    for kind in KINDS:
        for repetition in range(repetitions if kind == "latency" else 1) if kind in kinds else ():
            block = [Job(configuration, kind, repetition) for configuration in configurations]
            rng.shuffle(block)
            jobs += block
    return jobs
