"""From the lines of single jobs to rows, in numbers that one can check by eye."""

import pytest

from android_bench.job import Configuration, Job, Model
from android_bench.result import Result
from android_bench.rows import make_row
from android_bench.runner import Results

CONFIGURATION = Configuration(Model("/C0.tflite", "f" * 64, "C0"), 2, "gpu", "f0")
DEVICE = {"label": "Pixel 7", "kind": "android", "facts": {"soc": "Tensor G2"}, "versions": {"benchmark_model": "abc"}}


def run(p50=100.0, **changes):
    """What one latency job finds."""
    return {
        "p5_us": p50 - 10, "p50_us": p50, "p95_us": p50 + 20, "mean_us": p50 + 1, "std_us": 5.0, "min_us": p50 - 20,
        "max_us": p50 + 50, "count": 50, "init_us": 10 * p50, "first_us": 2 * p50, "cpu_percent": 95.0,
        "system_percent": 30.0, "throttled": None, "ran_on": "gpu", "note": None, "unconsumed": [], "tool": "tflite",
        "peak_memory_bytes": None,
    } | changes  # fmt: skip


def line(found=None, kind="latency", repetition=0, error=None, failures=(), **more):
    return {"kind": kind, "repetition": repetition, "found": found, "error": error, "seed": 7, "order": repetition,
            "failures": list(failures), "attempts": 1 + len(failures) - bool(error)} | more  # fmt: skip


def row(*lines):
    found = make_row(CONFIGURATION, DEVICE, list(lines))
    assert Result.from_json(found.to_json()) == found
    return found


def test_a_row_has_the_median_over_the_repetitions_and_the_edges_of_all():
    found = row(line(run(100.0, peak_memory_bytes=5_000_000)), line(run(130.0), repetition=1),
                line(run(110.0), repetition=2))  # fmt: skip
    assert (found.latency_p5_us, found.latency_p50_us, found.latency_p95_us) == (100, 110, 130)
    assert found.latency_mean_us == 111
    assert (found.latency_min_us, found.latency_max_us) == (80, 180)
    assert (found.init_us, found.first_run_us, found.runs, found.peak_memory_bytes) == (1100, 220, 150, 5_000_000)
    assert (found.id, found.device, found.device_kind, found.threads, found.delegate) == (
        "C0", "Pixel 7", "android", 2, "gpu")  # fmt: skip
    assert (found.error, found.accuracy, found.energy_joules) == (None, None, None)
    facts = found.facts
    assert (facts["soc"], facts["delegate_asked"], facts["core_mask"]) == ("Tensor G2", "gpu", "f0")
    assert facts["job_seed"] == 7
    assert [repetition["p50_us"] for repetition in facts["repetitions"]] == [100, 130, 110]
    assert (facts["outlier_repetitions"], facts["throttled_repetitions"], facts["attempts"]) == (0, 0, 3)
    assert "failures" not in facts and "delegate_note" not in facts and "unconsumed_flags" not in facts


def test_an_outlier_among_the_repetitions_is_flagged_and_kept():
    found = row(*(line(run(p50), repetition=k) for k, p50 in enumerate([100.0, 101.0, 99.0, 100.0, 500.0])))
    assert [repetition["outlier"] for repetition in found.facts["repetitions"]] == [False] * 4 + [True]
    assert found.facts["outlier_repetitions"] == 1 and found.latency_p50_us == 100


def test_two_repetitions_are_too_few_for_outliers():
    assert row(line(run(100.0)), line(run(900.0), repetition=1)).facts["outlier_repetitions"] == 0


def test_a_repetition_that_failed_is_told_and_the_others_count():
    found = row(line(run(100.0)), line(error="was killed", failures=["was killed"] * 3, repetition=1),
                line(run(120.0), repetition=2))  # fmt: skip
    assert (found.error, found.latency_p50_us, found.runs) == (None, 110, 100)
    assert found.facts["failures"] == ["was killed"] * 3 and found.facts["attempts"] == 5
    assert found.facts["failed_jobs"] == [{"kind": "latency", "error": "was killed", "log": None}]
    assert len(found.facts["repetitions"]) == 2


def test_a_job_that_worked_in_the_end_tells_of_its_failures():
    found = row(line(run(100.0), failures=["the link dropped"]))
    assert found.error is None and found.facts["failures"] == ["the link dropped"] and found.facts["attempts"] == 2


def test_without_one_good_repetition_the_row_is_there_with_the_reason():
    found = row(line(error="no GPU here", failures=["no GPU here"]),
                line(error="second", failures=["second"], repetition=1))  # fmt: skip
    assert found.error == "no GPU here" and found.latency_p50_us is None and found.delegate is None
    assert found.runs is None and "repetitions" not in found.facts
    assert row(line({"accuracy": 0.5}, kind="accuracy")).error == "not timed"


def test_what_an_old_tool_does_not_print_is_not_measured():
    old = run(p5_us=None, p50_us=None, p95_us=None, init_us=None, first_us=None, cpu_percent=None, system_percent=None,
              mean_us=101.0) | {"count": None}  # fmt: skip
    found = row(line(old))
    assert (found.latency_p50_us, found.latency_p5_us, found.init_us, found.cpu_percent, found.runs) == (None,) * 5
    assert found.latency_mean_us == 101 and found.peak_memory_bytes is None
    assert "system_cpu_percent" not in found.facts


def test_the_median_is_that_of_the_repetitions_that_have_the_number():
    found = row(line(run(cpu_percent=None)), line(run(cpu_percent=50.0), repetition=1))
    assert found.cpu_percent == 50


def test_zero_is_a_number_and_not_nothing():
    found = row(line(run(20.0, min_us=0.0, cpu_percent=0.0, std_us=0.0)))
    assert (found.latency_min_us, found.cpu_percent, found.latency_std_us) == (0, 0, 0)


def test_what_the_tool_said_of_delegates_is_told_once():
    part = "GPU took 294 of 318 nodes"
    found = row(line(run(note=part)), line(run(note=part), repetition=1))
    assert found.facts["delegate_note"] == part
    found = row(line(run(note=part)), line(run(ran_on="xnnpack"), repetition=1))
    assert found.facts["delegate_note"] == f"{part}; not the same in each repetition: gpu, xnnpack"
    assert found.delegate == "gpu"


def test_flags_the_tool_did_not_know_and_throttling_are_counted():
    found = row(line(run(unconsumed=["--use_gpu=true"], throttled="status 3")),
                line(run(unconsumed=["--use_gpu=true"]), repetition=1))  # fmt: skip
    assert found.facts["unconsumed_flags"] == ["--use_gpu=true"] and found.facts["throttled_repetitions"] == 1


@pytest.mark.parametrize("each, wanted", [([True, True], True), ([True, False], None), ([False], None)])
def test_fixed_performance_is_said_only_where_the_phone_really_had_it(each, wanted):
    lines = [line(run(fixed_performance=value), repetition=k) for k, value in enumerate(each)]
    assert row(*lines).facts.get("fixed_performance") is wanted


def test_accuracy_sustain_and_energy_go_into_the_same_row():
    found = row(
        line(run()),
        line({"accuracy": 0.9, "macro_f1": 0.8, "recalls": {"0": 0.9}, "facts": {"host_agreement": 1.0}}, "accuracy"),
        line({"sustain": [{"minute": 1.0}]}, "sustain"),
        line({"energy": {"joules": 0.25, "source": "odpm", "low": 0.2, "high": 0.3}}, "energy"),
    )
    assert (found.accuracy, found.macro_f1, found.recalls) == (0.9, 0.8, {"0": 0.9})
    assert (found.energy_joules, found.energy_source) == (0.25, "odpm")
    assert found.facts["host_agreement"] == 1 and found.facts["sustain"] == [{"minute": 1.0}]


def test_why_accuracy_or_energy_are_missing():
    found = row(line(run()), line(kind="accuracy", error="no outputs", failures=["no outputs"]),
                line(kind="energy", error="lost", failures=["lost"]), line(kind="sustain", error="hot"))  # fmt: skip
    assert found.error is None and found.accuracy is None and found.energy_joules is None
    assert found.facts["accuracy_note"] == "no outputs" and found.facts["sustain_note"] == "hot"
    assert found.facts["energy"] == {"refused": "lost", "minutes_needed": None}
    refused = row(line(run()), line({"energy": {"refused": "charging", "minutes_needed": 3.0}}, "energy"))
    assert refused.energy_joules is None and refused.facts["energy"]["refused"] == "charging"


def test_an_energy_within_noise_of_nothing_is_no_negative_one():
    energy = {"joules": -0.001, "source": "level", "low": -0.01, "high": 0.008}
    found = row(line(run()), line({"energy": energy}, "energy"))
    assert found.energy_joules == 0 and found.facts["energy"]["joules"] == -0.001


def test_logs_of_two_phones_and_models_lie_in_files_of_their_own(tmp_path):
    results = Results(tmp_path, [])
    delegate = "external:/vendor/lib64/libQnnTFLiteDelegate.so;backend_type:htp;htp_performance_mode:2"
    jobs = [Job(Configuration(Model("m", sha, "m"), 1, delegate, ""), "latency") for sha in ("a" * 64, "b" * 64)]
    names = {results.keep("said", serial, job) for serial in ("SERIAL1", "SERIAL2") for job in jobs}
    assert len(names) == 4 and all((tmp_path / name).read_text() == "said" for name in names)
