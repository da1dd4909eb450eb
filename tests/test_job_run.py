"""Jobs from the file to the report: what stays, what is rolled back, what a stop leaves, the same bytes again."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import yaml

from tfcompress import measure, tasks
from tfcompress.distribute import Backup
from tfcompress.job import folder as files
from tfcompress.job import plan, spec
from tfcompress.job.run import run_job, write_plan
from tfcompress.pruning.keep_zeros import KeepZeros
from tfcompress.quantization.aware import quantize_aware

pytestmark = pytest.mark.slow


def short(**changed):
    """A resolved job of few epochs on 392 cars: 95 % of the weights can't go, 80 % can."""
    resolved = plan.resolve(spec.Job("regression", "auto_mpg"), tasks.load("regression", "auto_mpg"))
    resolved["train"]["epochs"] = 20
    for stage in resolved["stages"]:
        stage.update({"epochs": 3} if "epochs" in stage else {})
    resolved["stages"][1].update(sparsity=[0.97, 0.7], epochs=20)
    return resolved | changed


def run(resolved, place, **options):
    place.mkdir(exist_ok=True)
    plan.write(resolved, place / "job.yaml")
    lines = []
    run_job(place / "job.yaml", place / "out", **({"say": lines.append} | options))
    return lines


def sha256(place):
    return hashlib.sha256((place / "out" / "model.tflite").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    place = tmp_path_factory.mktemp("job")
    return place, run(short(drop=0.5), place)


def test_what_ships_is_what_was_judged(done):
    place, lines = done
    out, data, task = place / "out", tasks.load("regression", "auto_mpg"), tasks.TASKS["regression"]
    bench = files.row_of(out, "bench")
    content = (out / "model.tflite").read_bytes()
    assert bench["sha256"] == sha256(place) and bench["bytes"] == len(content) < bench["control_bytes"]
    assert bench["test"] == task.score(measure.run(content, data.x_test), data.y_test)
    assert bench["packed_bytes"] == (out / "model.tfcp").stat().st_size
    for row in files.rows_of(out).read():
        if (out / f"{row['stage']}.tflite").exists():
            own = (out / f"{row['stage']}.tflite").read_bytes()
            assert row["score"] == task.score(measure.run(own, data.x_val), data.y_val)
    page = (out / "report.html").read_text()
    assert bench["sha256"] in page and "Auto MPG" in page and f"{bench['test']:.4f}" in page


def test_stages_come_in_order_and_pruning_leaves_its_zeros(done):
    out = done[0] / "out"
    rows = {row["stage"]: row for row in files.rows_of(out).read()}
    assert list(rows) == ["control", "factorize", "prune_97", "prune_70", "shrink", "distil", "quantize", "convert",
                          "bench"]  # fmt: skip
    assert not rows["prune_97"]["kept"] and rows["prune_70"]["kept"]
    assert rows["prune_70"]["packed_bytes"] < 0.6 * rows["factorize"]["packed_bytes"]
    kernels = [layer.kernel.numpy() for layer in files.load(out, "prune_70").layers if hasattr(layer, "kernel")][:-1]
    assert np.mean(np.concatenate([k.ravel() for k in kernels]) == 0) == pytest.approx(0.7, abs=0.01)
    assert measure.sparsity(out / "model.tflite") > 0.3  # trained on and quantized, the zeros that shrink left stay


def test_a_resolved_job_makes_the_same_bytes_and_skips_what_did_not_stay(done, tmp_path):
    resolved = yaml.safe_load((done[0] / "out" / "resolved.yaml").read_text())
    assert all("kept" in stage for stage in resolved["stages"])
    lines = run(resolved, tmp_path)
    assert sha256(tmp_path) == sha256(done[0])
    spared = [stage["stage"] for stage in resolved["stages"] if not stage["kept"]]
    assert [line.split()[0] for line in lines if "not kept when" in line] == spared


def test_what_was_done_is_not_done_again(done, monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("trained again"))
    before = sha256(done[0])
    run(short(drop=0.5), done[0])
    assert sha256(done[0]) == before


def test_another_job_does_not_get_the_folder(done):
    with pytest.raises(ValueError, match="another configuration"):
        run(short(drop=0.4), done[0])


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("epoch", [2, 50])               # in the control's training, and in a stage's
def test_a_stop_within_a_training_leaves_no_trace(done, tmp_path, monkeypatch, epoch):
    seen, keep = [], Backup.on_epoch_end

    def stop(self, number, logs=None):
        keep(self, number, logs)
        seen.append(number)
        if len(seen) == epoch:
            raise Stopped

    monkeypatch.setattr(Backup, "on_epoch_end", stop)
    with pytest.raises(Stopped):
        run(short(drop=0.5), tmp_path)
    assert list((tmp_path / "out").glob("backup_*.npz"))
    run(short(drop=0.5), tmp_path)
    assert sha256(tmp_path) == sha256(done[0])
    assert len(seen) == 20 + 3 + 20 + 20 + 3 + 3              # no epoch was done twice
    assert not list((tmp_path / "out").glob("backup_*.npz"))


def test_a_stage_that_loses_too_much_is_rolled_back(tmp_path):
    resolved = short(drop=0.0)
    resolved["stages"] = [stage | {"sparsity": 0.99} for stage in resolved["stages"] if stage["stage"] == "prune"]
    run(resolved, tmp_path)
    rows = {row["stage"]: row for row in files.rows_of(tmp_path / "out").read()}
    assert not rows["prune_99"]["kept"] and rows["prune_99"]["why"].startswith("loses ")
    assert rows["convert"]["macs"] == rows["control"]["macs"] and measure.sparsity(
        tmp_path / "out" / "model.tflite") < 0.1
    assert rows["convert"]["file"] in ("as_dynamic.tflite", "as_float16.tflite", "as_float32.tflite")


def test_your_own_trained_model_is_taken_as_it_is(tmp_path):
    data = tasks.load("regression", "auto_mpg")
    net = tasks.TASKS["regression"].model(data, 1)
    net.save(tmp_path / "mine.keras")
    (tmp_path / "job.yaml").write_text("task: regression\ndata: auto_mpg\nmodel: mine.keras\ntarget: 3\n")
    run_job(tmp_path / "job.yaml", tmp_path / "out", say=lambda line: None)
    found = measure.run(tmp_path / "out" / "control.tflite", data.x_test)[0]
    np.testing.assert_allclose(found, net.predict(data.x_test, verbose=0), atol=1e-4)


def test_a_trained_net_with_one_sigmoid_and_examples_that_it_may_know(tmp_path):
    """Two classes in one column, validation and test drawn from what the net was trained on: done, and said to be."""
    x = np.random.default_rng(0).normal(size=(600, 6)).astype("float32")
    y = (x[:, 0] > 0).astype(int)
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y)
    net = keras.Sequential([keras.Input((6,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(1, "sigmoid")])
    net.compile("adam", "binary_crossentropy")
    net.fit(x, y, epochs=30, verbose=0)
    net.save(tmp_path / "mine.keras")
    (tmp_path / "job.yaml").write_text("task: classification\ndata: mine.npz\nmodel: mine.keras\n")
    resolved = yaml.safe_load(write_plan(tmp_path / "job.yaml", tmp_path / "plan").read_text())
    for stage in resolved["stages"]:
        stage.update({"epochs": 1} if "epochs" in stage else {})
    wanted = ("prune", "distil", "quantize")
    resolved["stages"] = [stage for stage in resolved["stages"] if stage["stage"] in wanted]
    resolved["stages"][0].update(sparsity=0.5, epochs=4)
    lines = run(resolved, tmp_path)
    assert any(line.startswith("CAUTION: x_val and x_test were drawn from x_train") for line in lines)
    assert "If mine.keras was trained on these" in (tmp_path / "out" / "report.html").read_text()
    row = files.row_of(tmp_path / "out", "bench")
    assert files.row_of(tmp_path / "out", "distil")["score"] > 0.9 and row["test"] > 0.9
    assert measure.run(tmp_path / "out" / "model.tflite", x)[0].shape == (600, 1)
    tried = files.row_of(tmp_path / "out", "quantize")["tried"]
    assert set(tried) == {"calibrated", "trained"} and min(tried.values()) > 0.9


def test_a_number_is_met_by_as_many_filters_as_it_asks_for(tmp_path):
    resolved = plan.resolve(spec.Job("regression", "auto_mpg", target=2.5), tasks.load("regression", "auto_mpg"))
    resolved["train"]["epochs"], resolved["drop"] = 20, 0.9
    for stage in resolved["stages"]:
        stage.update({"epochs": 20 if stage["stage"] == "prune" else 3} if "epochs" in stage else {})
    lines = run(resolved, tmp_path)
    row = files.row_of(tmp_path / "out", "bench")
    assert row["met"] and row["bytes"] <= row["control_bytes"] / 2.5 and "; target met" in lines[-1]
    assert row["bytes"] > row["control_bytes"] / 4       # no more than it asks for
    assert 'class="pick"' in (tmp_path / "out" / "report.html").read_text()      # not "pick missed"


def test_a_stage_that_fails_is_passed_over(tmp_path, monkeypatch):
    """A net whose pruning diverges: the job ends with what it has."""
    resolved = short(drop=0.5)
    resolved["stages"] = [stage for stage in resolved["stages"] if stage["stage"] in ("prune", "quantize")]
    resolved["stages"][0].update(sparsity=0.5, learning_rate=1e30, epochs=2)
    run(resolved, tmp_path)
    rows = {row["stage"]: row for row in files.rows_of(tmp_path / "out").read()}
    assert not rows["prune_50"]["kept"] and "NaN" in rows["prune_50"]["why"] and rows["convert"]["kept"]
    assert not list((tmp_path / "out").glob("backup_*.npz"))


def test_times_of_fast_are_ratios_to_the_control(tmp_path):
    resolved = short(drop=0.9)
    resolved["job"]["target"], resolved["stages"] = "fast", resolved["stages"][-1:]
    resolved["stages"][0]["how"] = "calibrated"
    run(resolved, tmp_path)
    rows = {row["stage"]: row for row in files.rows_of(tmp_path / "out").read()}
    assert 0 < rows["quantize"]["cost"] != rows["control"]["cost"] > 0
    assert f"{rows['quantize']['cost'] / rows['control']['cost']:.0%}" in rows["quantize"]["why"]


def test_only_exact_zeros_are_kept_in_quantization_aware_training():
    """Not those that eight bits round to zero; the head's, too."""
    net = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu", name="one"), keras.layers.Dense(4)])
    for layer in net.layers:
        kernel = np.random.default_rng(0).normal(size=layer.kernel.shape)
        kernel[:, 0], kernel[0] = 0.0, 1e-5
        layer.kernel.assign(kernel)
    aware = quantize_aware(net, weights=KeepZeros())
    masks = [variable.numpy() for variable in aware.variables if variable.path.endswith("mask")]
    assert len(masks) == 2
    for mask, layer in zip(masks, net.layers, strict=True):
        np.testing.assert_array_equal(mask, layer.kernel.numpy() != 0)


def test_a_plan_that_was_edited_is_not_thrown_away(tmp_path):
    (tmp_path / "job.yaml").write_text("task: regression\ndata: auto_mpg\n")
    edited = yaml.safe_load(write_plan(tmp_path / "job.yaml", tmp_path / "out").read_text()) | {"drop": 0.1}
    plan.write(edited, tmp_path / "out" / "resolved.yaml")
    with pytest.raises(ValueError, match="holds another plan, edited perhaps"):
        run_job(tmp_path / "job.yaml", tmp_path / "out")


def test_a_model_that_does_not_fit_is_refused_before_training(tmp_path):
    net = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(7)])
    net.save(tmp_path / "seven.keras")
    (tmp_path / "job.yaml").write_text("task: classification\ndata: digits\nmodel: seven.keras\n")
    with pytest.raises(ValueError, match="takes one output with 10 columns"):
        run_job(tmp_path / "job.yaml", tmp_path / "out")
    (tmp_path / "job.yaml").write_text("task: regression\ndata: auto_mpg\nmodel: seven.keras\n")
    with pytest.raises(ValueError, match=r"does not take the examples of .auto_mpg., \(7,\)"):
        run_job(tmp_path / "job.yaml", tmp_path / "out")


def test_a_search_takes_the_cheapest_trial_that_keeps_the_score(tmp_path):
    resolved = short(drop=0.9)
    resolved["job"]["search"], resolved["stages"] = 2, resolved["stages"][-1:]
    run(resolved, tmp_path, workers=2)
    out = tmp_path / "out"
    trials = [yaml.safe_load(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    assert [trial["number"] for trial in trials] == [0, 1]
    best = min((trial for trial in trials if trial["loss"] <= 0.9), key=lambda trial: trial["cost"])
    assert sha256(tmp_path) == hashlib.sha256((out / "search" / f"{best['number']:03}.tflite").read_bytes()).hexdigest()
    assert "Trials" in (out / "report.html").read_text()


def test_a_killed_command_goes_on_to_the_same_bytes(done, tmp_path):
    """kill -9, in the middle of a training, of the command itself."""
    resolved = yaml.safe_load((done[0] / "out" / "resolved.yaml").read_text())
    plan.write(resolved, tmp_path / "job.yaml")
    command = [sys.executable, "-m", "tfcompress.cli", "run", str(tmp_path / "job.yaml"), "-o", str(tmp_path / "out")]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    backup, end = tmp_path / "out" / "backup_control.npz", time.monotonic() + 120
    while not backup.exists() and child.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL and backup.exists()
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert sha256(tmp_path) == sha256(done[0])
    assert re.search(r"SHA-256 " + sha256(tmp_path), found.stdout) and not found.stderr


def test_one_line_for_a_bad_job(tmp_path):
    (tmp_path / "job.yaml").write_text("task: ocr\nepochs: 3\n")
    found = subprocess.run([sys.executable, "-m", "tfcompress.cli", "run", str(tmp_path / "job.yaml")],
                           capture_output=True, text=True)  # fmt: skip
    assert found.returncode == 2 and found.stderr.startswith("error: ") and len(found.stderr.splitlines()) == 1
