"""The coverage matrix: two families for real and small, how rows are kept, and what the committed rows say."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from android_bench.store import Store

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import coverage  # noqa: E402
import coverage_columns  # noqa: E402
import coverage_tfmot  # noqa: E402


def test_known_ratio_of_signal_and_noise():
    wanted = np.array([[1.0], [-1.0]])
    assert coverage_columns.snr_db(wanted + 0.1, wanted) == 20.0
    assert coverage_columns.snr_db(wanted[::-1], wanted) == -6.0


@pytest.mark.slow
@pytest.mark.parametrize(("family", "column"), [("MobileNetV3Small", "strip"), ("MobileNet", "qat")])
def test_small_images_of_two_families(monkeypatch, family, column):
    monkeypatch.setattr(coverage_columns, "SIZE", 32)
    figures = coverage_columns.COLUMNS[column](family)
    assert "reason" not in figures and figures["largest_difference"] == 0


CHILDREN = {
    "says": "import json; print('noise'); print(json.dumps({'tensors': 3}))",
    "refuses": "import json; print(json.dumps({'reason': 'no kernel for layer x'}))",
    "dies": "import os; os.abort()",
    "hangs": "import time; time.sleep(60)",
}


def test_whatever_a_child_does_is_a_row_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(coverage, "SECONDS", 3)
    store, made = Store(tmp_path / "rows.jsonl", key=("family", "column")), []
    keys = [{"family": name, "column": "strip"} for name in CHILDREN]

    def command(key):
        made.append(key["family"])
        return ["-c", CHILDREN[key["family"]]]

    coverage.fill(store, keys, command)
    rows = {row["family"]: row for row in store.read()}
    assert {name: row["ok"] for name, row in rows.items()} == dict.fromkeys(CHILDREN, False) | {"says": True}
    assert rows["says"]["tensors"] == 3 and rows["refuses"]["reason"] == "no kernel for layer x"
    assert rows["dies"]["reason"].startswith("ended with code -6") and rows["hangs"]["reason"] == "not done after 3 s"
    coverage.fill(store, keys, command)
    assert made == list(CHILDREN)
    coverage.fill(store, keys[:3], command, again=True)
    assert made == [*CHILDREN, "refuses", "dies"] and len(store.read()) == 4


def test_table_counts_and_says_what_is_in_the_way():
    ran = {"snr_db": 50.0, "settings": 4}
    six = dict.fromkeys(coverage_columns.LEAST_DB, ran)
    rows = [
        {"family": "MobileNet", "column": "strip", "ok": True, "reason": None, "tensors": 27},
        {"family": "VGG16", "column": "strip", "ok": False, "reason": "MemoryError: fc1"},
        {"family": "MobileNet", "column": "precisions", "ok": False, "reason": "int4: SNR -3 dB"} | six,
    ]
    lines = coverage.table(rows).splitlines()
    assert "| MobileNet | 27 tensors | not run | not run | **no** | 6 × 4 |" in lines
    assert "| **of 15** | **1** | **0** | **0** | **0** | **1** |" in lines
    assert lines[-2:] == ["* MobileNet, six precisions: int4: SNR -3 dB", "* VGG16, compress, strip: MemoryError: fc1"]


def test_tfmot_errors_are_told_by_their_layer():
    short = coverage_tfmot.short
    assert short("ValueError: Please ... You passed: <class 'tf_keras.src.layers.x.Rescaling'>") == "Rescaling"
    assert short('AttributeError: Exception encountered when calling layer "tf.math.add" (type X).') == "tf.math.add"
    assert short("MemoryError: 3 GB") == "MemoryError: 3 GB"


@pytest.mark.parametrize("module", [coverage, coverage_tfmot], ids=lambda module: module.__name__)
def test_committed_rows_hold_the_promise(module):
    """13 of 15 families in every column whose rows are all made, and the table beside the rows is made of them."""
    results = SCRIPTS / "results" / f"{module.__name__}.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert results.with_suffix(".md").read_text() == module.table(rows)
    if module is coverage:
        for column in coverage_columns.COLUMNS:
            mine = [row for row in rows if row["column"] == column]
            assert len(mine) < 15 or sum(row["ok"] for row in mine) >= 13, column
