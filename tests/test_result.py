"""The row: what it accepts, what it refuses, and that a line gives it back."""

import numpy as np
import pytest

from android_bench.result import Result

ROW = dict(id="C0", recipe="control", device="laptop")


def test_a_full_row_survives_its_line():
    row = Result(
        **ROW, device_kind="android", accuracy=1, recalls={"N": 0.9, "V": None}, raw_bytes=224688, latency_p50_us=41.5,
        versions={"tensorflow": "2.21.0"}, timings={"train": 4.0}, facts={"thermal_status": [0, 1], "charging": False},
    )  # fmt: skip
    line = row.to_json()
    assert "\n" not in line
    assert Result.from_json(line) == row
    assert row.replace(threads=2).threads == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": float("nan")}, "finite"),
        ({"facts": {"temperature": [float("inf")]}}, "temperature"),
        ({"accuracy": 97.0}, "fraction"),
        ({"recalls": {"N": 1.5}}, "recalls"),
        ({"latency_p50_us": -1.0}, "negative"),
        ({"device_kind": "phone"}, "host, android, emulated"),
        ({"acuracy": 0.5}, "acuracy"),
    ],
)
def test_wrong_values_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Result(**ROW).replace(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"runs": 1.5},
        {"raw_bytes": np.int64(3)},
        {"accuracy": "0.9"},
        {"recalls": {0: 1.0}},
        {"runs": True},
        {"id": None},
    ],
)
def test_wrong_types_are_refused(change):
    with pytest.raises(TypeError, match=next(iter(change))):
        Result(**{**ROW, **change})


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        '{"id": "C0"}',
        '{"id": "C0", "recipe": "r", "dev',
        '{"id": "C0", "recipe": "r", "device": "d", "x": 1}',
        '{"id": "C0", "recipe": "r", "device": "d", "accuracy": NaN}',
    ],
)
def test_a_broken_line_is_one_clear_error(line):
    with pytest.raises(ValueError):
        Result.from_json(line)
