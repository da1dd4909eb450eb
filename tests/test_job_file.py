"""Job files: what is read, what is refused, what a plan derives."""

import dataclasses

import keras
import numpy as np
import pytest
import yaml

from android_bench.store import remember_config
from tfcompress import tasks
from tfcompress.convert import convert
from tfcompress.job import goal, judge, plan, run, search, spec
from tfcompress.job.run import default_folder, write_plan


@pytest.fixture(scope="module")
def cars():
    return tasks.load("regression", "auto_mpg")


@pytest.fixture
def resolved(cars):
    return plan.resolve(spec.Job("regression", "auto_mpg"), cars)


def written(tmp_path, text, name="job.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file(tmp_path):
    job = spec.read(written(tmp_path, "task: classification\ndata: mine.npz\nmodel: nets/mine.keras\ntarget: 8\n"))
    assert job.data == str(tmp_path / "mine.npz") and job.model == str(tmp_path / "nets" / "mine.keras")
    assert job.target == 8 and job.search == 0


@pytest.mark.parametrize("text, words", [
    ("task: cats", "Unknown task 'cats'. Known: classification"),
    ("data: ecg", "`task` is missing"),
    ("task: ocr\nepochs: 3", "no field epochs. Fields: task, data, model, target, search"),
    ("task: ocr\ntarget: tiny", "`target` is 'small', 'fast'"),
    ("task: ocr\ntarget: 0.5", "Received: target: 0.5"),
    ("task: ocr\ntarget: true", "Received: target: True"),
    ("task: ocr\nsearch: -1", "0 or more. Received: search: -1"),
    ("task: ocr\nmodel: 3", "`model` is a name or a path. Received: model: 3"),
    ("task: [ocr]", "`task` is a name"),
    ("task: [ocr", "is no YAML at line 1, column 11"),
    ("", "holds no fields"),
    ("- ocr", "holds no fields"),
    ("!!python/object/apply:os.system ['true']", "is no YAML"),
])  # fmt: skip
def test_what_is_wrong_is_told(tmp_path, text, words):
    with pytest.raises(ValueError, match=words.replace("[", r"\[").replace("(", r"\(")):
        spec.read(written(tmp_path, text))


def test_a_missing_file_shows_what_a_job_looks_like(tmp_path):
    with pytest.raises(FileNotFoundError, match="task: classification") as told:
        spec.read(tmp_path / "job.yaml")
    assert len(str(told.value).splitlines()) == 1


def test_a_missing_model_is_named_once(tmp_path, cars):
    with pytest.raises(FileNotFoundError, match="^No model at 'nets/mine.keras'. Expected a .keras file.$"):
        plan.resolve(spec.Job("regression", "auto_mpg", "nets/mine.keras"), cars)


def test_all_that_a_job_leaves_open_is_written_down(tmp_path, cars):
    path = write_plan(written(tmp_path, "task: regression\ndata: auto_mpg\n"), tmp_path / "out")
    found = yaml.safe_load(path.read_text())
    assert found == plan.resolve(spec.Job("regression", "auto_mpg"), cars)
    assert plan.check(found) == spec.Job("regression", "auto_mpg")
    assert [stage["stage"] for stage in found["stages"]] == list(plan.SETTINGS)
    assert found["train"]["epochs"] == 100               # small data: as many steps as the recipe's own set gets


@pytest.mark.parametrize("change, words", [
    (lambda r: r.pop("drop"), "Missing or unknown: drop"),
    (lambda r: r.update(drop=1.5), "0 to 1. Received: drop: 1.5"),
    (lambda r: r.update(extra=1), "Missing or unknown: extra"),
    (lambda r: r["tune"].update(speed=1), "as it was written"),
    (lambda r: r["stages"][0].update(keep=1.0), "keep lies between 0 and 1. Received: keep: 1.0"),
    (lambda r: r["stages"][0].update(keep="all"), "Received: keep: 'all'"),
    (lambda r: r["stages"][1].update(sparsity=[0.9, 1.0]), "sparsity lies between 0 and 1"),
    (lambda r: r["stages"][1].update(sparsity=[]), "sparsity lies between 0 and 1"),
    (lambda r: r.update(tune=None), "as it was written"),
    (lambda r: r.update(train=None), "as it was written"),
    (lambda r: r.update(stages=None), "`stages` is a list"),
    (lambda r: r.update(stages=[["prune"]]), "Unknown stage"),
    (lambda r: r.update(seed="abc"), "whole number >= 0"),
    (lambda r: r["stages"][0].update(epochs=2.5), "epochs is a whole number"),
    (lambda r: r["stages"][4].update(bits=4, how="calibrated"), "how is one of"),
    (lambda r: r["stages"][0].update(kept="yes"), "kept is one of"),
    (lambda r: r["stages"][0].pop("epochs"), "Missing or unknown: epochs"),
    (lambda r: r["stages"][1].update(by="rows"), "by is one of"),
    (lambda r: r["stages"][4].update(bits=7), "Received: bits: 7"),
    (lambda r: r["stages"][2].update(stage="melt"), "Unknown stage 'melt'"),
    (lambda r: r["stages"].reverse(), "Stages come once each, in the order factorize"),
])  # fmt: skip
def test_a_resolved_job_that_was_spoilt_is_refused(resolved, change, words):
    change(resolved)
    with pytest.raises(ValueError, match=words):
        plan.check(resolved)


def test_data_that_changed_are_refused(tmp_path, resolved):
    resolved["data_sha256"] = "0" * 64
    plan.write(resolved, tmp_path / "resolved.yaml")
    with pytest.raises(ValueError, match="is not what it was when this job was resolved"):
        write_plan(tmp_path / "resolved.yaml", tmp_path / "out")


@pytest.mark.parametrize("target, names", [
    (1.5, ["quantize"]),                                 # int8 alone is enough
    (2.3, ["prune", "shrink", "distil", "quantize"]),
    (20, ["factorize", "prune", "shrink", "distil", "quantize"]),
])  # fmt: skip
def test_a_ratio_asks_for_the_stages_that_it_needs(cars, target, names):
    stages = plan.resolve(spec.Job("regression", "auto_mpg", target=target), cars)["stages"]
    assert [stage["stage"] for stage in stages] == names
    assert all(stage["by"] == "filters" for stage in stages if stage["stage"] == "prune")


def test_bytes_and_the_same_ratio_make_one_plan(cars):
    net = tasks.TASKS["regression"].model(cars, 0)
    net.set_weights([weight + np.random.default_rng(0).random(weight.shape) for weight in net.get_weights()])
    whole = convert(net).size                            # with weights that differ, as of a trained net
    one, other = (plan.resolve(spec.Job("regression", "auto_mpg", target=target), cars)["stages"]
                  for target in (whole / 2.3, 2.3))
    assert whole / 2.3 > 1000 and one == other and one[0]["stage"] == "prune"


def test_a_net_that_no_int8_file_runs_of_gets_a_plan_too():
    inputs = keras.Input((9,))
    x = keras.layers.Dense(16, activation="relu")(inputs)
    x = keras.layers.Dense(16)(x / (keras.ops.abs(x) + 1e-9))        # in int8 a division by zero
    net = keras.Model(inputs, x)
    with pytest.warns(UserWarning, match="prunes no filters: The int8 file does not run"):
        assert goal.sparsity(net, np.random.default_rng(0).normal(size=(100, 9)).astype("float32"), 8) == 0


def test_a_job_that_goes_on_does_not_count_its_filters_again(tmp_path, cars, monkeypatch):
    begun = plan.resolve(spec.Job("regression", "auto_mpg", target=2.3), cars)
    remember_config(tmp_path, begun)
    counted = []
    monkeypatch.setattr(goal, "sparsity", lambda *_: counted.append(1) or 0.0)
    for target, times in ((2.3, 0), (2.5, 1)):           # the same job, another one
        path = written(tmp_path, f"task: regression\ndata: auto_mpg\ntarget: {target}\n")
        found, _ = run._asked(path, tmp_path)
        assert len(counted) == times and (found == begun) == (times == 0)


@pytest.mark.parametrize("name, stage, costs, losses, kept", [
    ("factorize", {}, (100, 97), (0, 0.001), True),
    ("factorize", {}, (100, 99), (0, 0.0), False),       # less than 2 %
    ("factorize", {}, (100, 50), (0, 0.02), False),      # loses too much
    ("prune", {"by": "filters"}, (100, 100), (0, 0.0), True),
    ("prune", {"by": "weights"}, (100, 100), (0, 0.0), False),
    ("distil", {}, (100, 100), (0.004, 0.003), True),
    ("distil", {}, (100, 100), (0.004, 0.004), False),
])  # fmt: skip
def test_a_stage_stays_where_it_pays(name, stage, costs, losses, kept):
    before, after = (judge.Hop(0.9, 1, 1, 10, cost) for cost in costs)
    assert judge.verdict(name, stage, before, after, losses, 0.01)[0] is kept


def test_shrink_stays_where_multiplications_go():
    before, after = judge.Hop(0.9, 1, 1, 10, 5), judge.Hop(0.9, 1, 1, 9, 5)
    assert judge.verdict("shrink", {}, before, after, (0, 0), 0.01) == (True, "10.0% of the multiplications gone")
    assert not judge.verdict("shrink", {}, before, before, (0, 0), 0.01)[0]


def rows_of(resolved, count):
    """Trials as a search leaves them, with a cost that is least at keep = 0.5."""
    rows = []
    for number in range(count):
        [(_, settings)] = search.suggest(rows, [number], resolved).items()
        cost = 10 + 100 * abs(settings["keep"] - 0.5)
        rows.append({"number": number, "settings": settings, "loss": 0.0, "cost": cost, "stages": []})
    return rows


def test_a_search_suggests_the_same_again_and_begins_with_the_plan(resolved):
    rows = rows_of(resolved, 8)
    resolved["stages"][1]["sparsity"] = 0.9              # which the plan tries first
    assert search.applied(resolved["stages"], rows[0]["settings"]) == resolved["stages"]
    assert search.suggest(rows[:5], [5, 6], resolved) == search.suggest(rows[:5], [5, 6], resolved)
    assert rows_of(resolved, 8) == rows
    assert len({str(row["settings"]) for row in rows}) == 8
    for row in rows:
        plan.check(resolved | {"stages": search.applied(resolved["stages"], row["settings"])})


@pytest.mark.parametrize("target", [12, 15, 20, 23])
def test_a_search_takes_what_the_plan_has_beyond_its_ranges(cars, target):
    own = plan.resolve(spec.Job("regression", "auto_mpg", target=target), cars)
    assert len({str(row["settings"]) for row in rows_of(own, 3)}) == 3
    search.suggest([], [0], own | {"stages": own["stages"][:2]})         # without the stage quantize


def test_a_search_comes_nearer_to_the_least_cost_than_chance(resolved):
    costs = [row["cost"] for row in rows_of(resolved, 40)]
    assert np.mean(costs[25:]) < np.mean(costs[1:6]) and min(costs) < 12


def test_a_trial_that_failed_is_passed_over_and_all_failed_is_an_error():
    rows = [{"number": 0, "error": "ValueError: no"}, {"number": 1, "loss": 0.0, "cost": 2.0}]
    assert search.winner(rows, 0.01)["number"] == 1
    with pytest.raises(RuntimeError, match="All 1 trials failed. The first said: ValueError: no"):
        search.winner(rows[:1], 0.01)


def test_default_folders(tmp_path):
    assert default_folder("a/b.yaml").as_posix() == "runs/b"
    assert default_folder(tmp_path / "x" / "resolved.yaml") == tmp_path / "x_again"


def test_a_job_is_five_fields():
    assert len(dataclasses.fields(spec.Job)) == 5
