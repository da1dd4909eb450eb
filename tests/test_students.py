"""Students by depth and by width: one real tiny study, one that is stopped, and what the report may say."""

import json
from dataclasses import replace

import pytest

from tfcompress import cli, training
from tfcompress.study.students import page, run, summary
from tfcompress.study.students.config import PRESETS, StudentsConfig, plans, preset
from tfcompress.study.students.run import report, run_students

TINY = PRESETS["tiny"]
SHAPE, CLASSES = (28, 28, 1), 10


def made_up(gains, alone=0.9, samples=10_000, **more):
    """Rows with these gains: ``{scaling: (one for each seed)}``."""
    teacher = dict(block="basic", params=100, bytes=400, macs=1000, accuracy=0.95, macro_f1=0.95, latency_us=90.0)
    shared = dict(block="basic", depth=1.0, width=0.3, blocks=[2], channels=[8], params=10, budget=10, macs=10, bytes=9,
                  within_budget=True, latency_us=9.0, test_samples=samples, teacher=teacher)  # fmt: skip
    return [shared | dict(seed=seed, scaling=scaling, gain=gain, accuracy_alone=alone, accuracy_taught=alone + gain)
            | more for scaling, values in gains.items() for seed, gain in enumerate(values)]  # fmt: skip


def html(rows, tmp_path):
    facts = {"data": "toy", "licence": "none", "cpu": "x", "cores": 1, "system": "y"}
    return page.write_report(rows, tmp_path / "report.html", TINY.remembered(), facts).read_text()


def read(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


# ---- what the report may say ----
APART = {"depth": (0.020, 0.021, 0.022), "width": (0.001, 0.002, 0.003)}
TOGETHER = {"depth": (0.006, 0.008, 0.010), "width": (0.000, 0.003, 0.006)}


def test_no_winner_where_intervals_overlap(tmp_path):
    found = summary.groups(made_up(TOGETHER))
    assert summary.separated(found) == []
    assert summary.verdict(found) == (
        "gain depth-only 0.8 ± 0.5 points, width-only 0.3 ± 0.7: not separated at 3 seeds"
    )
    text = html(made_up(TOGETHER), tmp_path)
    assert "<h2>Not separated at 3 seeds</h2>" in text and "gains more than" not in text


def test_a_winner_where_intervals_are_apart(tmp_path):
    found = summary.groups(made_up(APART))
    assert [(more.scaling, less.scaling) for more, less in summary.separated(found)] == [("depth", "width")]
    assert summary.verdict(found).endswith("separated at 3 seeds: depth-only above width-only")
    assert "<h2>Depth-only gains more than width-only</h2>" in html(made_up(APART), tmp_path)


def test_some_apart_and_some_not():
    found = summary.groups(made_up(APART | {"balanced": (0.000, 0.020, 0.040)}))
    assert summary.verdict(found).endswith("separated at 3 seeds: depth-only above width-only; the others are not")
    two = found + [replace(group, block="inverted") for group in summary.groups(made_up(TOGETHER))]
    assert page.headline(two) == "Depth-only gains more than width-only (basic blocks)"


def test_one_seed_and_equal_values_separate_nothing(tmp_path):
    one = made_up({"depth": (0.5,), "width": (0.0,)})
    assert "one seed has no interval" in summary.verdict(summary.groups(one))
    assert "Not separated at 1 seed<" in html(one, tmp_path)
    same = made_up({"depth": (0.01, 0.01, 0.01), "width": (0.0, 0.0, 0.0)}, samples=100)  # one sample is one point
    assert "not separated" in summary.verdict(summary.groups(same))


def test_interval_is_student_t():
    found = summary.interval([1.0, 2.0, 3.0])
    assert (found.mean, found.half) == (2.0, pytest.approx(4.302653 / 3**0.5, rel=1e-6))


def test_a_missed_budget_is_said(tmp_path):
    text = html(made_up(APART, params=12, within_budget=False), tmp_path)
    assert "miss the budget by more than 5 %" in text and "+20 %" in text
    assert "miss the budget" not in html(made_up(APART), tmp_path)


def test_time_is_told_as_a_ratio_to_the_teacher_in_the_same_turns():
    slow = made_up({"depth": (0.0,) * 3})
    slow[1] = slow[1] | {"latency_us": 18.0, "teacher": slow[1]["teacher"] | {"latency_us": 180.0}}
    (group,) = summary.groups(slow)
    assert page.times([group]) == []
    other = replace(group, scaling="width", ratio=0.2, latency_us=18.0)
    assert page.times([group, replace(other, ratio=0.103)]) == ["Basic blocks: all take about 18 µs."]
    assert page.times([group, other]) == [
        "Basic blocks: width-only (2 blocks) takes 18 µs, 2.0 times as long as depth-only (2 blocks)."
    ]
    assert group.ratio == pytest.approx(0.1) and group.latency_us == pytest.approx(9.0)


# ---- which students ----
@pytest.mark.parametrize(("name", "shape", "classes"), [("digits", SHAPE, 10), ("ecg", (187, 4), 4)])
def test_presets_meet_the_budget_by_every_scaling_of_the_teachers_block(name, shape, classes):
    found = plans(PRESETS[name], shape, classes)
    assert len(found) == 9 and all(plan.within for plan in found if plan.block == "basic")
    assert all(abs(plan.params / plan.budget - 1) < 0.2 for plan in found)


def test_the_nearest_is_taken_and_a_budget_that_is_far_is_refused():
    coarse = replace(TINY, stage_blocks=(1, 4), stage_channels=(8, 16), scalings=("depth",), budget=0.22)
    (plan,) = plans(coarse, SHAPE, CLASSES)
    assert plan.blocks == (1, 1) and not plan.within and plan.params > plan.budget
    with pytest.raises(ValueError, match=r"No student of basic blocks scaled by depth is near the budget. Received: "
                       r"budget=0.01, \d+ parameters \(the teacher has [\d,]+\). Nearest: [\d,]+, which is 0.\d+ of"):
        plans(replace(coarse, budget=0.01), SHAPE, CLASSES)


@pytest.mark.parametrize(("changes", "said"), [
    (dict(scalings=("height",)), "Expected scalings of width, depth, balanced, each once. Received: height."),
    (dict(scalings=()), "Expected scalings"),
    (dict(blocks=("basic", "basic")), "Expected blocks of basic, bottleneck, inverted, each once. Received: basic, "),
    (dict(seeds=()), "Expected seeds"),
    (dict(seeds=(-1,)), "Expected seeds"),
    (dict(budget=0.0), "A budget is positive"),
])  # fmt: skip
def test_configurations_that_make_no_sense(changes, said):
    with pytest.raises(ValueError, match=said):
        replace(TINY, **changes)


@pytest.mark.parametrize(("argv", "said"), [
    (["cats"], "Unknown preset 'cats'. Known: digits, ecg, tiny."),
    (["tiny", "--scalings", "height"], "Expected scalings of width, depth, balanced"),
    (["tiny", "--blocks", "round"], "Expected blocks of basic, bottleneck, inverted"),
    (["tiny", "--seeds", "0,one"], "--seeds are whole numbers, such as 0,1,2. Received: 0,one."),
    (["tiny", "--budget", "0.001"], "is near the budget"),
])  # fmt: skip
def test_bad_input_is_one_line_and_makes_no_folder(argv, said, tmp_path, capsys):
    assert cli.main(["students", *argv, "--folder", str(tmp_path / "new")]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and not (tmp_path / "new").exists()


def test_presets_and_configurations_go_both_ways():
    assert preset("digits") is PRESETS["digits"] and preset(TINY) is TINY
    assert isinstance(TINY, StudentsConfig)
    with pytest.raises(ValueError, match="which has no config.json"):
        report("/nowhere")


# ---- whole studies ----
@pytest.mark.slow
def test_a_tiny_study_from_end_to_end(tmp_path, capsys):
    assert cli.main(["students", "tiny", "--scalings", "depth", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith(f"Report: {tmp_path / 'report.html'}\n")
    (row,) = read(tmp_path, "rows.jsonl")
    assert (row["seed"], row["scaling"], row["block"]) == (0, "depth", "basic")
    assert row["blocks"] == [1] and row["channels"] == [24] and row["latency_us"] > 0 < row["macs"]
    (size,) = {path.stat().st_size for path in (tmp_path / "models").glob("*-depth-*.tflite")}
    assert row["bytes"] == size and row["gain"] == row["accuracy_taught"] - row["accuracy_alone"]
    assert row["params"] == plans(TINY, SHAPE, CLASSES)[1].params < row["teacher"]["params"]
    assert sorted(path.suffix for path in (tmp_path / "models").iterdir()) == [".keras"] + 3 * [".tflite"]
    text = (tmp_path / "report.html").read_text()
    assert "basic, depth-only" in text and "one seed has no interval" in text and "<script src=" not in text


@pytest.fixture
def trainings(monkeypatch):
    """Trainings and timings that cost nothing; lists who was trained. Ctrl-C stops the third one, and a second seed.

    Weights move by the seed, and by whether there is a teacher.
    """
    done, calls = [], []

    def fit(model, splits, recipe, *, seed):
        calls.append(1)
        if len(calls) == 3 or seed:
            raise KeyboardInterrupt
        taught = hasattr(model, "student")
        net = model.student if taught else model
        net.set_weights([weight * (1 + 0.3 * taught) for weight in net.get_weights()])
        done.append((seed, net.count_params(), taught))

    monkeypatch.setattr(training, "fit", fit)
    monkeypatch.setattr(run.side_by_side, "latencies", lambda paths, turns: [9.0 for _ in paths])
    return done


@pytest.mark.slow
def test_stopped_it_goes_on_and_trains_nothing_twice(tmp_path, trainings):
    config = replace(TINY, scalings=("depth",))
    with pytest.raises(KeyboardInterrupt):
        run_students(config, tmp_path / "stopped")
    assert len(trainings) == 2 and len(read(tmp_path / "stopped", "trained.jsonl")) == 2
    run_students(config, tmp_path / "stopped")
    assert len(trainings) == len(set(trainings)) == 3
    run_students(config, tmp_path / "stopped")  # all is there
    assert len(trainings) == 3
    run_students(config, tmp_path / "whole")
    for name in ("trained.jsonl", "rows.jsonl"):
        stopped, whole = ([row | {"seconds": 0} for row in read(tmp_path / folder, name)]
                          for folder in ("stopped", "whole"))  # fmt: skip
        assert stopped == whole
    assert len({row["sha256"] for row in read(tmp_path / "whole", "trained.jsonl")}) == 3
    with pytest.raises(KeyboardInterrupt):  # the same folder takes another seed, which is trained, not another budget
        run_students(replace(config, seeds=(0, 1)), tmp_path / "whole")
    assert len(trainings) == 6
    with pytest.raises(ValueError, match="budget: 0.5 -> 0.6"):
        run_students(replace(config, budget=0.6), tmp_path / "whole")
    file = tmp_path / "whole" / "models" / "seed0-basic-depth-taught.tflite"
    file.write_bytes(file.read_bytes()[:-1])
    (tmp_path / "whole" / "rows.jsonl").unlink()
    with pytest.raises(ValueError, match="not the file that was recorded"):
        run_students(config, tmp_path / "whole")
