"""What the user asks for: a job file of at most five fields."""

import dataclasses
from pathlib import Path

import yaml

from tfcompress import tasks

EXAMPLE = "fields, one a line: `task: classification`, `data: mine.npz`, `model: mine.keras`, `target: small`"


@dataclasses.dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        task: a name in ``tasks.TASKS``.
        data: a name of the task's data sets, or the path of an ``.npz`` (``tasks.user_data.read``); None: the first.
        model: a name in ``zoo.MODELS``, or the path of a trained ``.keras`` model; None: the task's default net.
        target: "small": fewest packed bytes. "fast": shortest run. A ratio up to 1000, or bytes above that, of the
            ``.tflite``. All within what the metric may lose (``drop`` of the resolved file).
        search: trials of other settings of the stages; 0 takes those that ``plan`` sets.

    >>> Job("ocr").target
    'small'
    """

    task: str
    data: str | None = None
    model: str | None = None
    target: object = "small"
    search: int = 0

    def __post_init__(self):
        if not isinstance(self.task, str):
            raise ValueError(f"`task` is a name. Received: task: {self.task!r}.")
        tasks.find(self.task)
        good = self.target in ("small", "fast") if isinstance(self.target, str) else _is_number(self.target)
        if not good:
            raise ValueError("`target` is 'small', 'fast', a ratio above 1 (times smaller) or bytes above 1000. "
                             f"Received: target: {self.target!r}.")
        if not isinstance(self.search, int) or isinstance(self.search, bool) or self.search < 0:
            raise ValueError(f"`search` is a number of trials, 0 or more. Received: search: {self.search!r}.")
        for name in ("data", "model"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"`{name}` is a name or a path. Received: {name}: {getattr(self, name)!r}.")


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and 1 < value < float("inf")


def read(path):
    """What a file asks for: a ``Job``, or the mapping of a ``resolved.yaml``. Paths are relative to the file's folder.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no YAML, fields that a job does not have.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No job at {str(path)!r}. Expected a YAML file with {EXAMPLE}.")
    try:
        found = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ValueError(f"{path} is no YAML{where}: {what}. Expected, in a job file, {EXAMPLE}.") from error
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path} holds no fields. Expected {EXAMPLE}.")
    if "stages" in found:
        if isinstance(found.get("job"), dict):
            _make_absolute(found["job"], path.parent)
        return found
    known = [field.name for field in dataclasses.fields(Job)]
    unknown = [str(name) for name in found if name not in known]
    if unknown:
        raise ValueError(f"{path}: a job has no field {', '.join(unknown)}. Fields: {', '.join(known)}. More can be "
                         "set in the resolved.yaml that `tfcompress run --plan` writes.")
    if "task" not in found:
        raise ValueError(f"{path}: `task` is missing. One of {', '.join(tasks.TASKS)}.")
    _make_absolute(found, path.parent)
    return Job(**found)


def _make_absolute(job, folder):
    for name, ending in (("data", ".npz"), ("model", ".keras")):
        if isinstance(job.get(name), str) and job[name].endswith(ending):
            job[name] = str((folder / job[name]).resolve())
