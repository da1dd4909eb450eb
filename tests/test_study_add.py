"""A file of the user's own joins a study: here a distilled, factorised, filter-pruned int8 student."""

import json
import re
from dataclasses import replace

import keras
import numpy as np
import pytest

import tfcompress as tc
from tfcompress import measure, training, zoo
from tfcompress.cli import main
from tfcompress.recipes import Recipe
from tfcompress.study import cell
from tfcompress.study.presets import PRESETS
from tfcompress.study.run import add_to_study, run_study

pytestmark = pytest.mark.slow
CONFIG = replace(PRESETS["tiny"], only=("C0", "Q8"))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    run_study(CONFIG, folder)
    return folder


@pytest.fixture(scope="module")
def student(study):
    """``(quantization-aware Keras model, its int8 file)`` after all of it, the control as teacher throughout."""
    splits = cell.read_data(CONFIG)
    teacher = keras.models.load_model(study / "control.keras", compile=False)
    recipe = Recipe(epochs=3, batch_size=20, learning_rate=3e-3)
    model = zoo.build("image_mobilenet", splits.input_shape, splits.classes, blocks=1, width=16, seed=3)
    training.fit(tc.Distiller(model, teacher), splits, recipe)
    data = (splits.x_train, splits.y_train)
    small = tc.factorize(model, 0.8, data=data, fit=1, teacher=teacher).model
    small = tc.prune_filters(small, data, 0.7, criterion="l2_norm", rounds=1, fit=1).model
    aware = tc.quantize_aware(small)
    tc.calibrate(aware, splits.x_train)
    training.fit(tc.Distiller(aware, teacher), splits, replace(recipe, epochs=1, learning_rate=1e-3))
    return aware, tc.convert(aware, "int8")


def test_the_file_is_its_keras_self(student):
    aware, file = student
    splits = cell.read_data(CONFIG)
    given = np.asarray(aware.predict(splits.x_test, verbose=0))
    assert abs(measure.evaluate(file, splits.x_test, splits.y_test).accuracy
               - (given.argmax(-1) == splits.y_test).mean()) <= 0.001
    np.testing.assert_allclose(measure.run(file, splits.x_test)[0], given, atol=1.01 / 256)


def test_its_row_joins_the_report(study, student, tmp_path, capsys):
    path = tmp_path / "student.tflite"
    student[1].save(path)
    assert main(["add", str(study), f"student={path}", "--recipe", "distilled, factorised, pruned, int8"]) == 0
    page = (study / "report.html").read_text()
    assert "student" in page and "distilled, factorised, pruned, int8" in page
    rows = {row["id"]: row for row in map(json.loads, (study / "rows.jsonl").read_text().splitlines())}
    splits = cell.read_data(CONFIG)
    found = rows["student"]
    assert found["accuracy"] == measure.evaluate(path, splits.x_test, splits.y_test).accuracy
    assert found["raw_bytes"] == path.stat().st_size and found["latency_p50_us"] > 0
    assert found["delta_accuracy"] == pytest.approx(found["accuracy"] - rows["C0"]["accuracy"])
    before = (study / "rows.jsonl").read_bytes()
    add_to_study(study, {"student": path})                     # again: nothing is measured twice
    run_study(CONFIG, study)                                   # the study itself is still complete
    assert (study / "rows.jsonl").read_bytes() == before
    assert re.search(r"<td[^>]*>\s*student", (study / "report.html").read_text())


def test_errors(study, student, tmp_path):
    other = tmp_path / "other.tflite"
    other.write_bytes((study / "models" / "Q8.tflite").read_bytes())
    with pytest.raises(ValueError, match="a new word"):
        add_to_study(study, {"C0": other})
    with pytest.raises(ValueError, match="rows"):
        add_to_study(tmp_path, {"mine": other})
    wide = keras.Sequential([keras.Input((5,)), keras.layers.Dense(10)])
    with pytest.raises(ValueError, match="takes"):
        add_to_study(study, {"mine": tc.convert(wide)})
    assert main(["add", str(study), "file.tflite"]) == 2
    assert not (study / "models" / "mine.tflite").exists()
