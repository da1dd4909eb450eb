"""A small study from end to end: five cells on real digits, then the same again in harder ways."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tfcompress import measure
from tfcompress.study import cell as study_cell
from tfcompress.study import run
from tfcompress.study.grid import Cell, Distill, Prune, Quantize
from tfcompress.study.presets import PRESETS, StudyConfig, own
from tfcompress.study.run import StudyError, report, run_study

IDS = ("C0", "Q8", "P90Q8", "Q16P80", "Q8P90")
CONFIG = replace(PRESETS["tiny"], only=IDS)
pytestmark = pytest.mark.slow


def rows(folder):
    return {row["id"]: row for row in map(json.loads, (folder / "rows.jsonl").read_text().splitlines())}


def essence(folder):
    return {id: (r["model_sha256"], r["raw_bytes"], r["accuracy"], r["recalls"]) for id, r in rows(folder).items()}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    assert run_study(CONFIG, folder, workers=2) == folder / "report.html"
    return folder


def test_a_row_for_each_cell_and_nothing_left_over(study):
    assert tuple(rows(study)) == IDS
    assert sorted(path.stem for path in (study / "models").iterdir()) == sorted(IDS)
    assert not list(study.rglob("*.part*"))
    for row in rows(study).values():
        content = (study / "models" / f"{row['id']}.tflite").read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["model_sha256"]
        assert (row["raw_bytes"], row["energy_joules"]) == (len(content), None)
        assert row["latency_p50_us"] > 0 and row["cpu_percent"] > 0 and row["threads"] == 1
        measured = [v for k, v in row.items() if k not in ("energy_joules", "energy_source", "error", "learning_rate")]
        assert None not in measured


def test_the_control_is_the_base_model(study):
    splits = study_cell.read_data(CONFIG)
    base = keras.models.load_model(study / "control.keras")
    ours = measure.run(study / "models" / "C0.tflite", splits.x_test)[0]
    assert np.abs(ours - base.predict(splits.x_test, verbose=0)).max() < 1e-5
    row = rows(study)["C0"]
    assert (row["delta_accuracy"], row["sparsity"], row["learning_rate"]) == (0, 0, None)
    assert row["accuracy"] > 0.2  # it has learned something: chance is 0.1


@pytest.mark.parametrize(("id", "target"), [("P90Q8", 0.9), ("Q8P90", 0.9), ("Q16P80", 0.8)])
def test_zeros_survive_conversion_in_both_orders(study, id, target):
    # kernels of 16 to 256 weights: the count of zeros is a whole number in each
    assert rows(study)[id]["facts"]["pruned_sparsity"] == pytest.approx(target, abs=0.005)


def test_int8_is_smaller_and_has_few_levels(study):
    found = rows(study)
    assert found["Q8"]["levels"] <= 255
    assert found["P90Q8"]["gzip_bytes"] < found["Q8"]["gzip_bytes"] < found["C0"]["gzip_bytes"]
    assert found["P90Q8"]["learning_rate"] == CONFIG.learning_rates[0]


def test_again_adds_nothing(study):
    before = (study / "rows.jsonl").read_bytes()
    run_study(CONFIG, study)
    assert (study / "rows.jsonl").read_bytes() == before
    assert report(study).exists()


def test_another_configuration_or_a_changed_file_is_refused(study, tmp_path):
    with pytest.raises(ValueError, match="seed: 0 -> 1"):
        run_study(replace(CONFIG, seed=1), study)
    with pytest.raises(ValueError, match="Unknown devices: received .'pixel'."):
        run_study(CONFIG, study, devices=("pixel",))
    with pytest.raises(ValueError, match="has no config.json"):
        report(tmp_path)
    path = study / "models" / "Q8.tflite"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    try:
        with pytest.raises(ValueError, match="Q8.tflite is not the file that was recorded"):
            run_study(CONFIG, study)
    finally:
        path.write_bytes(content)


def test_killed_again_and_again_it_ends_with_the_same_rows(study, tmp_path):
    code = (
        "import sys, json; from tfcompress.study.presets import StudyConfig; "
        "from tfcompress.study.run import run_study; "
        "run_study(StudyConfig.from_dict(json.loads(sys.argv[1])), sys.argv[2])"
    )
    config = replace(CONFIG, only=("C0", "Q8", "P90Q8"))
    command = [sys.executable, "-c", code, json.dumps(config.to_dict()), str(tmp_path)]
    for kills, file in enumerate(("control.keras", "variants.jsonl", "rows.jsonl")):
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (tmp_path / file).exists():  # just begun with what comes behind it
            assert running.poll() is None, f"ended by itself, with code {running.returncode}"
            time.sleep(0.02)
        time.sleep(0.3 * kills)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    with open(tmp_path / "rows.jsonl", "ab") as torn:
        torn.write(b'{"id": "Q8"')
    run_study(config, tmp_path)
    assert essence(tmp_path) == {id: found for id, found in essence(study).items() if id in config.only}
    assert (tmp_path / "rows.jsonl").read_bytes().count(b"\n") == 3


@pytest.mark.parametrize(("threads", "shares", "kept", "calls"), [
    (1, [70, 100, 105], 100, 2), (1, [95, 100, 105], 95, 1), (1, [70, 80, 75], 80, 3), (2, [70, 100, 105], 70, 1),
])
def test_a_disturbed_measurement_is_made_again(monkeypatch, threads, shares, kept, calls):
    made = [SimpleNamespace(cpu_percent=share) for share in shares]
    left = iter(made)
    monkeypatch.setattr(run.host, "measure", lambda path, threads: next(left))
    assert run._measure("any.tflite", threads).cpu_percent == kept
    assert len(list(left)) == len(made) - calls


def test_two_ray_workers_give_the_same_rows(study, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'tfcompress[ray]'")
    config = replace(CONFIG, only=("C0", "P90Q8"))
    for name in ("control.keras", "control.json"):
        shutil.copy(study / name, tmp_path)
    run_study(config, tmp_path, workers=2, ray="local")
    assert essence(tmp_path) == {id: found for id, found in essence(study).items() if id in config.only}


def test_a_cell_that_fails_is_named_and_the_others_are_kept(study, tmp_path):
    config = replace(CONFIG, only=("C0", "Q8"), calibration=(0,))
    for name in ("control.keras", "control.json"):
        shutil.copy(study / name, tmp_path)
    with pytest.raises(StudyError, match="1 of 2 cells failed.*\n  Q8: ValueError"):
        run_study(config, tmp_path)
    assert [json.loads(line)["id"] for line in (tmp_path / "variants.jsonl").read_text().splitlines()] == ["C0"]


def test_your_own_net_and_data(study, tmp_path):
    splits = study_cell.read_data(CONFIG)
    arrays = {f"{kind}_{part}": getattr(splits, f"{kind}_{part}") for kind in "xy" for part in ("train", "val", "test")}
    np.savez(tmp_path / "mine.npz", **arrays)
    mine = replace(own(str(study / "control.keras"), str(tmp_path / "mine.npz")), only=("C0",))
    run_study(mine, tmp_path / "runs")
    assert essence(tmp_path / "runs")["C0"] == essence(study)["C0"]
    np.savez(tmp_path / "mine.npz", x_train=arrays["x_train"])
    with pytest.raises(ValueError, match="Missing: y_train, x_val"):
        study_cell.read_data(mine)


def test_calibration_draws_in_turn_from_the_classes():
    splits = study_cell.read_data(CONFIG)
    drawn = study_cell.calibration(splits, 20, seed=3)
    labels = [int(splits.y_train[np.all(splits.x_train == x, axis=(1, 2, 3))][0]) for x in drawn]
    assert sorted(labels) == sorted(2 * list(range(10)))


@pytest.mark.parametrize(
    "cell",
    [
        Cell("P80QAT8", (Prune(0.8), Quantize(8, in_training=True))),
        Cell("P80Q16KD", (Prune(0.8), Quantize(16)), Distill(temperature=2.0, alpha=1.0)),
        Cell("Q8P80", (Quantize(8, in_training=True), Prune(0.8)), Distill(temperature=1.0, alpha=0.5)),
    ],
    ids=lambda cell: cell.id,
)
def test_cells_taught_and_quantized_after_pruning(study, cell, monkeypatch):
    made, distiller = [], study_cell.Distiller
    monkeypatch.setattr(study_cell, "Distiller", lambda *args: made.append(distiller(*args)) or made[-1])
    splits = study_cell.read_data(CONFIG)
    record, _ = study_cell.make_variant(CONFIG, cell, study / "control.keras", splits)
    assert record["facts"]["pruned_sparsity"] == pytest.approx(0.8, abs=0.005)
    stages = sum(isinstance(step, Prune) or step.in_training for step in cell.steps) if cell.taught else 0
    assert [Distill(student.temperature, student.alpha) for student in made] == stages * [cell.taught]


def test_the_rate_with_the_smallest_cross_entropy_on_validation_wins(study, monkeypatch):
    scores = iter([{"loss": 0.5, "accuracy": 0.9, "macro_f1": 0.9}, {"loss": 0.2, "accuracy": 0.1, "macro_f1": 0.1}])
    monkeypatch.setattr(study_cell, "judge", lambda content, splits: next(scores))
    monkeypatch.setattr(study_cell, "tuned", lambda cell, control, *rest: control)
    config, cell = replace(CONFIG, learning_rates=(0.1, 0.01)), Cell("P80", (Prune(0.8),))
    record, _ = study_cell.make_variant(config, cell, study / "control.keras", study_cell.read_data(CONFIG))
    assert record["learning_rate"] == 0.01 and record["facts"]["validation"]["loss"] == 0.2
    assert [one["learning_rate"] for one in record["facts"]["tried"]] == [0.1, 0.01]


def test_a_seed_belongs_to_the_cell_not_to_its_turn():
    seeds = {id: study_cell.seed_of(CONFIG, id) for id in IDS}
    assert len(set(seeds.values())) == len(IDS) and all(0 <= seed < 2**31 for seed in seeds.values())
    assert seeds != {id: study_cell.seed_of(replace(CONFIG, seed=1), id) for id in IDS}
    assert isinstance(StudyConfig.from_dict(CONFIG.to_dict()).only, tuple)
