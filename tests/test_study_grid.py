"""The grid of methods.md H: 17 + 1 cells, in order."""

import json
from dataclasses import replace

import pytest

from tfcompress.study.grid import SECOND_SIX, Distill, Prune, Quantize, cells
from tfcompress.study.presets import PRESETS, StudyConfig

IDS = "C0 P70 P80 P90 Q16 Q8 P70Q16 P70Q8 P80Q16 P80Q8 P90Q16 P90Q8 Q16P70 Q16P80 Q16P90 Q8P70 Q8P80 Q8P90"


def test_ids_and_order():
    assert " ".join(cell.id for cell in cells()) == IDS


@pytest.mark.parametrize("second_six", SECOND_SIX)
def test_17_and_one_control_all_different(second_six):
    grid = cells(second_six)
    assert len({cell.id for cell in grid}) == len({(cell.steps, cell.taught) for cell in grid}) == 18
    assert [cell.id for cell in grid if not cell.steps] == ["C0"]
    assert [cell.id for cell in grid if not cell.trains] == ["C0", "Q16", "Q8"]


def test_the_order_of_the_steps():
    by_id = {cell.id: cell for cell in cells()}
    assert by_id["P90Q8"].steps == (Prune(0.9), Quantize(8))
    assert by_id["Q8P90"].steps == (Quantize(8, in_training=True), Prune(0.9))
    assert {cell.precision for cell in cells()} == {"float32", "float16", "int8"}


def test_unknown_second_six():
    with pytest.raises(ValueError, match="received 'magic', expected one of reversed_order, qat, kd"):
        cells("magic")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_goes_through_json(name):
    config = PRESETS[name]
    assert config.name == name
    assert StudyConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_data_that_is_not_there_is_one_error_and_leaves_no_folder(tmp_path, monkeypatch):
    from tfcompress.study.run import run_study

    monkeypatch.delenv("TFCOMPRESS_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="set TFCOMPRESS_DATA"):
        run_study(replace(PRESETS["ecg"], dataset_options={}), tmp_path / "runs")  # no download in a test
    assert list(tmp_path.iterdir()) == []


def test_a_taught_study_teaches_the_cells_that_train_and_no_others():
    plain, taught = PRESETS["tiny"].cells(), replace(PRESETS["tiny"], taught=Distill(1.0, 1.0)).cells()
    assert [cell.id for cell in taught] == [cell.id for cell in plain]
    assert [cell.id for cell in taught if not cell.taught] == ["C0", "Q16", "Q8"]
    assert taught[-1].recipe == "int8 in training, then prune 90 %, taught by the control"


def test_a_taught_study_of_pupils_is_refused():
    with pytest.raises(ValueError, match="would make six of them twice"):
        replace(PRESETS["tiny"], taught=Distill(), second_six="kd")
    with pytest.raises(ValueError, match="is a Distill\\(temperature, alpha\\) or None. Received: True"):
        StudyConfig.from_dict(PRESETS["tiny"].to_dict() | {"taught": True})  # as folders of older versions say
    with pytest.raises(ValueError, match="Expected temperature > 0 and 0 < alpha <= 1"):
        Distill(alpha=0)
    assert cells("kd")[-1].recipe == "prune 90 %, then int8, taught by the control and the labels"
