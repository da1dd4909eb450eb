"""The one row of a study: what was run, on what, and what was measured. One row is one line of JSON."""

import csv
import dataclasses
import io
import json
import math
import types
import typing
from pathlib import Path
from typing import Any

KINDS = ("host", "android", "emulated")
FRACTIONS = ("accuracy", "macro_f1", "sparsity", "agreement")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One model file on one device. `None` always means "not measured"; NaN and infinity are refused.

    Latencies are microseconds for one run of a batch of one, energy is joules a run, fractions are 0..1.

    >>> row = Result(id="P90Q8", recipe="prune 90 %, int8", device="laptop", accuracy=0.97, latency_p50_us=41.5)
    >>> Result.from_json(row.to_json()) == row
    True
    >>> row.energy_joules is None
    True

    Raises:
        TypeError: a field of another type than its annotation.
        ValueError: NaN, a fraction outside 0..1, a negative count or time, an unknown device kind.
    """

    # What was run
    id: str  # cell of the grid, unique together with device, seed and threads: "C0", "P90", "Q8P70"
    recipe: str  # the same in words: "prune 90 %, then int8"
    device: str  # a name a reader knows: "laptop, 2 threads", "Pixel 7"
    device_kind: str = "host"  # "host", "android" or "emulated"
    model_sha256: str | None = None  # of the .tflite file's bytes, 64 hex digits
    seed: int | None = None
    learning_rate: float | None = None  # the one picked for this cell

    # How good it is, on the test set, by running the .tflite file
    accuracy: float | None = None  # top-1, 0..1
    macro_f1: float | None = None  # mean F1 over the classes, 0..1
    recalls: dict[str, float] | None = None  # class name -> recall, 0..1 (None for a class without samples)
    delta_accuracy: float | None = None  # accuracy - the control's, same device and seed
    agreement: float | None = None  # share of inputs with the same top-1 as the Keras model, 0..1

    # How big it is
    raw_bytes: int | None = None  # the file
    gzip_bytes: int | None = None  # the file after gzip -9
    xz_bytes: int | None = None  # the file after xz -6
    packed_bytes: int | None = None  # the file with entropy-coded weights, lossless: `tfcompress pack`
    entropy_bytes: int | None = None  # order-0 entropy of the weights' stored values, and all else as it is packed
    sparsity: float | None = None  # exact zeros / all weights, counted in the .tflite (biases are not weights)
    levels: int | None = None  # most distinct values in one output channel of any weight tensor of the .tflite
    macs: int | None = None  # multiply-accumulates of one run, batch of one

    # How fast it is
    latency_p5_us: float | None = None
    latency_p50_us: float | None = None
    latency_p95_us: float | None = None
    latency_mean_us: float | None = None
    latency_std_us: float | None = None  # population standard deviation
    latency_min_us: float | None = None
    latency_max_us: float | None = None
    first_run_us: float | None = None  # the very first run, before the warm-up
    init_us: float | None = None  # load, apply delegate, allocate
    runs: int | None = None  # timed runs behind the numbers above
    threads: int | None = None
    delegate: str | None = None  # "xnnpack", "builtin" (no delegate), "gpu", "nnapi", ...

    # What it costs
    cpu_percent: float | None = None  # process CPU time / wall time * 100; 100 = one core, as in `top`
    peak_memory_bytes: int | None = None  # largest resident set of the process
    energy_joules: float | None = None  # one run, idle power subtracted
    energy_source: str | None = None  # where it came from: "rapl", "odpm", "charge_counter", ...

    # How it came about
    versions: dict[str, str] | None = None  # package -> version
    timings: dict[str, float] | None = None  # seconds: {"train": 41.2, "convert": 1.3}
    facts: dict[str, Any] | None = None  # anything JSON holds that one kind of device has: SoC, thermal status, ...
    error: str | None = None  # why the cell has no numbers: a failed cell is a row too

    def __post_init__(self):
        for name, hint in _HINTS.items():
            value = getattr(self, name)
            _check_type(name, value, hint)
            _check_finite(name, value)
        if self.device_kind not in KINDS:
            raise ValueError(f"Invalid device_kind: expected one of {', '.join(KINDS)}. Received: {self.device_kind!r}")
        for name in FRACTIONS:
            _check_fraction(name, getattr(self, name))
        for label, recall in (self.recalls or {}).items():
            _check_fraction(f"recalls[{label!r}]", recall)
        for name in _HINTS:
            value = getattr(self, name)
            if name.endswith(("_us", "_bytes", "_joules", "_percent")) or name in ("runs", "threads", "macs", "levels"):
                if value is not None and value < 0:
                    raise ValueError(f"{name} can't be negative; use None for not measured. Received: {value}")

    def replace(self, **changes) -> "Result":
        """The same row with some fields changed: `row.replace(latency_p50_us=12.0)`."""
        _known(changes)
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """One line of JSON without a line end; every field is there, `null` where nothing was measured."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> "Result":
        """The row of one line.

        Raises:
            ValueError: not JSON, cut off, NaN, an unknown key or a missing one.
        """
        try:
            values = json.loads(line, parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            raise ValueError(f"Expected one JSON object on the line ({error}). Received: {line[:80]!r}") from None
        if not isinstance(values, dict):
            raise ValueError(f"Expected one JSON object on the line. Received: {line[:80]!r}")
        _known(values)
        missing = [name for name in ("id", "recipe", "device") if name not in values]
        if missing:
            raise ValueError(f"The row lacks {missing}. Received: {line[:80]!r}")
        return cls(**values)


def read_rows(folder) -> list[Result]:
    """The rows of a results folder, or of a .jsonl file. ValueError where there are none."""
    path = Path(folder)
    path = path / "rows.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"Expected a folder of results, or its rows.jsonl. Received: {str(folder)!r}.")
    return [Result.from_json(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def to_csv(rows: list[Result], *, spread_facts: bool = False) -> str:
    """All fields, one row a line; recalls (and facts, if asked) in a column each, other nested fields as JSON."""
    table = [dict(json.loads(row.to_json())) for row in rows]
    for line in table:
        for name, recall in (line.pop("recalls") or {}).items():
            line[f"recall {name}"] = recall
        for name, value in (line.pop("facts") or {}).items() if spread_facts else ():
            line[f"fact {name}"] = value
    columns = list(dict.fromkeys(name for line in table for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for line in table:
        writer.writerow({k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in line.items()})
    return text.getvalue()


_HINTS = typing.get_type_hints(Result)


def _known(values) -> None:
    unknown = sorted(set(values) - set(_HINTS))
    if unknown:
        raise ValueError(f"Unknown fields in a result row: {unknown}. Known fields: {sorted(_HINTS)}")


def _check_type(name, value, hint) -> None:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    accepted = tuple(typing.get_origin(option) or option for option in options)
    if float in accepted:
        accepted += (int,)
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise TypeError(
            f"Field {name} of a result row takes {hint}. Received: {value!r} ({type(value).__name__}); "
            "convert numpy values with .item() and name classes with strings."
        )
    if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
        raise TypeError(f"Field {name} of a result row takes string keys. Received: {list(value)}")


def _check_finite(name, value) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_finite(f"{name}[{key!r}]", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_finite(f"{name}[{index}]", item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, or None for not measured. Received: {value}")


def _check_fraction(name, value) -> None:
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"{name} is a fraction from 0 to 1. Received: {value}")


def _no_constant(text):
    raise ValueError(f"A result row holds no {text}: use null for not measured.")
