"""Each rule: the row that calls for it, the words that it must say, and silence on a row that does not."""

import dataclasses

import numpy as np
import pytest
from bench_rows import GALAXY, PIXEL, make_rows
from power_traces import Phone, played

from android_bench.energy import power
from android_bench.report.advice import SEVERITIES, advise
from android_bench.result import Result

RUNS = [{"p50_us": 40.0}, {"p50_us": 40.5}, {"p50_us": 41.0}]
CLUSTERS = [{"cpus": [0, 1, 2, 3], "max_khz": 1803000}, {"cpus": [4, 5, 6, 7], "max_khz": 2850000}]


def row(id="Q8", device="Pixel 7", **fields):
    """A row with nothing to complain about."""
    facts = {"repetitions": RUNS, "screen": "on", "fixed_performance": True} | fields.pop("facts", {})
    fields = dict(device_kind="android", accuracy=0.9, latency_p50_us=40.5, delegate="xnnpack", threads=2) | fields
    return Result(id=id, recipe="", device=device, facts=facts, **fields)


def test_a_clean_row_gets_no_advice():
    assert advise([row()]) == []
    assert advise([]) == []
    assert advise([row(device="this computer", device_kind="host", facts={"screen": "off"})]) == []


@pytest.mark.parametrize(
    ("bad", "severity", "words"),
    [
        ({"error": "exit code 137: killed"}, "problem", ["Q8 failed (exit code 137: killed)", "memory"]),
        ({"error": "exit code 126: wrong ABI"}, "problem", ["--benchmark-binary"]),
        ({"error": "exit code 139: SIGSEGV", "delegate": "gpu"}, "problem", ["try --delegate cpu or another"]),
        ({"error": "exit code 139: SIGSEGV"}, "problem", ["run this file this way: try another precision"]),
        ({"error": "op CONV_2D can't be prepared: try another delegate"}, "problem", ["Run again with --retry-failed"]),
        ({"error": "the model has no such signature"}, "problem", ["Run again with --retry-failed"]),
        ({"error": "illegal instruction (exit code 132)"}, "problem", ["--benchmark-binary"]),
        ({"error": "the link was lost"}, "problem", ["finished jobs are kept"]),
        ({"error": "quite another thing"}, "problem", ["Run again with --retry-failed"]),
        ({"error": "quite another thing", "facts": {"failed_jobs": [
          {"kind": "latency", "error": "", "log": "logs/q8.txt"}]}}, "problem",
         ["Read what the tool said: logs/q8.txt"]),
        ({"error": "2A11: no end within 360 s; it was killed."}, "problem", ["The model hangs or is too slow"]),
        ({"error": "it ran into the time limit: give it more time, or fewer runs (exit code 124)"}, "problem",
         ["The model hangs or is too slow"]),
        ({"error": "CANNOT LINK EXECUTABLE: odd"}, "problem", ["Run again with --retry-failed"]),
        ({"facts": {"failures": ["the link dropped"] * 5, "failed_jobs": [
            {"kind": kind, "error": "killed (exit code 137)", "log": None}
            for kind in ("latency", "latency", "sustain")]}},
         "warning", ["2 latency and 1 sustain jobs of Q8 failed (killed (exit code 137))", "--retry-failed"]),
        ({"facts": {"failures": ["the link dropped"]}}, "note", ["1 attempt failed and was made again for Q8"]),
        ({"facts": {"memory_note": "killed (exit code 137)"}}, "note", ["no peak memory for Q8: killed"]),
        ({"facts": {"repetitions": [RUNS[0], RUNS[1] | {"throttled": "thermal status 2"}, RUNS[2]]}, "threads": 4},
         "warning", ["throttled in 1 of 3 runs (thermal status 2)", "Start cooler: a lower --cool-down",
                     "or lower --threads (was 4)"]),
        ({"facts": {"repetitions": [{"p50_us": 40.0, "throttled": "hot", "cooled": "did not cool in 300 s: status 2"}]
                    * 2}}, "warning", ["in 2 of 2", "Raise --cool-down-wait (it ran out 2 times)"]),
        ({"facts": {"throttled_repetitions": 3}}, "warning", ["in 3 of 3"]),
        ({"facts": {"repetitions": [{"p50_us": 40.0, "throttled": "hot", "cooled": "did not wait: skin 44 °C"}] * 2}},
         "warning", ["It was hot from the start: let it cool"]),
        ({"facts": {"settings_refused": ["screen_off_timeout"]}}, "warning", ["the phone kept screen_off_timeout"]),
        ({"facts": {"cores_note": "asked for cores 4-7, the kernel allowed 0-3"}}, "warning",
         ["asked for cores 4-7, the kernel allowed 0-3 for Q8"]),
        ({"facts": {"energy": {"refused": "no meter: the phone tells neither", "minutes_needed": None}}}, "warning",
         ["an external meter"]),
        ({"facts": {"delegate_asked": "cpu", "delegate_note": "XNNPACK took 7 of 9 nodes"}}, "note",
         ["The rest ran on the plain kernels"]),
        ({"facts": {"energy": {"refused": "charging over USB", "minutes_needed": 11.2}}}, "warning",
         ["no energy for Q8: charging over USB", "wireless adb", "--energy-minutes 12"]),
        ({"facts": {"energy": {"refused": "UPDATES STOPPED", "minutes_needed": None}}}, "warning", ["battery reset"]),
        ({"facts": {"energy": {"refused": "3 steps of the counter, 5 wanted", "minutes_needed": 31.0}}}, "warning",
         ["Measure for longer", "--energy-minutes 31 or more"]),
        ({"delegate": "gpu", "facts": {"delegate_asked": "gpu", "delegate_note": "GPU took 294 of 318 nodes"}},
         "warning", ["gpu for Q8: GPU took 294 of 318 nodes", "not the accelerator's alone"]),
        ({"delegate": "gpu", "facts": {"delegate_asked": "gpu", "delegate_note": "fell back to OpenGL"}}, "warning",
         ["gpu for Q8: fell back to OpenGL. The GPU ran, but slower than through OpenCL"]),
        ({"delegate": "xnnpack", "facts": {"delegate_asked": "gpu", "delegate_note": "GPU took nothing of the "
          "graph"}}, "warning", ["These are not the times of what was asked for"]),
        ({"facts": {"delegate_asked": "cpu", "delegate_note": "error, but it went on: odd"}}, "note",
         ["cpu for Q8: error, but it went on: odd."]),
        ({"delegate": "nnapi", "facts": {"delegate_asked": "nnapi", "eval_ran_on": "xnnpack"}}, "warning",
         ["accuracy of Q8 comes from xnnpack, the times from nnapi"]),
        ({"facts": {"delegate_asked": "nnapi"}}, "warning", ["nnapi was asked for, xnnpack ran"]),
        ({"facts": {"unconsumed_flags": ["--result_file_path"]}}, "warning", ["--result_file_path", "older build"]),
        ({"facts": {"repetitions": [{"p50_us": 40.0}, {"p50_us": 46.0}], "fixed_performance": False}}, "warning",
         ["up to 14 %", "--repetitions 4", "or --fixed-performance"]),
        ({"facts": {"repetitions": [{"p50_us": 6.0}, {"p50_us": 8.0}]}}, "warning", ["up to 29 %", "--repetitions 4"]),
        ({"facts": {"repetitions": RUNS[:1]}}, "note", ["one repetition", "--repetitions 5"]),
        ({"facts": {"outlier_repetitions": 1}}, "note", ["1 of 3 repetitions"]),
        ({"facts": {"screen": "off"}}, "warning", ["the screen was off"]),
        ({"facts": {"battery": {"percent": 9}}}, "warning", ["at 9 %", "charge"]),
        ({"facts": {"clusters": CLUSTERS}}, "note", ["1.80 to 2.85 GHz", "--cores f0"]),
        ({"threads": 3, "facts": {"clusters": [*CLUSTERS, {"cpus": [8], "max_khz": 3200000}]}}, "note",
         ["--cores 1f0"]),
        ({"latency_p50_us": 0.0}, "note", ["Read the mean"]),
        ({"latency_p50_us": 16.0}, "note", ["Q8 takes 16 µs", "1 µs is up to 6 %"]),
        ({"facts": {"clusters": [{"cpus": [0, 1, 2, 3], "max_khz": 2000000}], "system_cpu_percent": 70.0},
          "cpu_percent": 100.0}, "warning", ["up to 45 % of all cores"]),
        ({"facts": {"host_agreement": 0.95}, "delegate": "gpu"}, "warning", ["Q8 on gpu", "95.0 %", "float16"]),
        ({"facts": {"host_agreement": 0.0}}, "warning", ["for only 0.0 %"]),
        ({"accuracy": None, "facts": {"accuracy_note": "LiteRT 2.x tool"}}, "note", ["(LiteRT 2.x tool)"]),
        ({"accuracy": None}, "note", ["no accuracy for Q8. Give samples with --eval"]),
        ({"accuracy": None, "facts": {"accuracy_note": "the data has no labels (y)"}}, "note", ["Add y"]),
        ({"accuracy": None, "facts": {"accuracy_note": "crashed (exit code 139)", "failed_jobs": [
            {"kind": "accuracy", "error": "crashed", "log": None}]}},
         "warning", ["(crashed (exit code 139)). The runtime can't run this file this way"]),
        ({"facts": {"emulated": True}}, "warning", ["emulated", "say nothing about a phone"]),
    ],
)  # fmt: skip
def test_each_rule_names_the_cause_and_the_next_step(bad, severity, words):
    found = advise([row(**bad)])
    mine = [advice for advice in found if all(word in advice.text for word in words)]
    assert len(mine) == 1, [advice.text for advice in found]
    assert mine[0].severity == severity and mine[0].rows == ("Q8 on Pixel 7",)
    assert "Pixel 7" in mine[0].text
    assert len(found) == 1, [advice.text for advice in found]


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        ({"step": 40_000.0, "current": 0.0}, ["below resolution", "Measure for longer", "with --energy-minutes"]),
        ({"step": 0.0, "current": 0.0}, ["constant", "Measure for longer"]),
        ({"capacity": 90_000_000.0, "current": 0.0}, ["nonsense", "This phone can't tell"]),
        ({"load_watts": 0.0, "current": 0.0, "step": 100.0}, ["not above idle", "Measure for longer"]),
    ],
)  # fmt: skip
def test_refusals_as_the_meters_word_them_lead_to_the_right_step(planted, words):
    trace, _ = played(Phone(load_seconds=120, idle_seconds=120, **planted), np.random.default_rng(0))
    refused = power.energy(trace, 1000)
    assert isinstance(refused, power.Refusal) and words[0] in refused.reason
    (found,) = advise([row(facts={"energy": {"refused": refused.reason, "minutes_needed": refused.minutes_needed}})])
    assert all(word in found.text for word in words) and "Unplug" not in found.text, found.text


def test_a_trace_taken_while_charging_says_unplug():
    trace, _ = played(Phone(load_seconds=60, idle_seconds=60), np.random.default_rng(0))
    plugged = [dataclasses.replace(s, battery=dataclasses.replace(s.battery, status=2)) if s.battery else s
               for s in trace.samples]  # fmt: skip
    refused = power.energy(dataclasses.replace(trace, samples=tuple(plugged)), 1000)
    (found,) = advise([row(facts={"energy": {"refused": refused.reason, "minutes_needed": None}})])
    assert "charging at the start" in found.text and "Unplug the phone" in found.text


def test_accuracy_that_is_not_this_computers_is_a_problem():
    host = row(device="this computer", device_kind="host", accuracy=0.9, model_sha256="ab")
    found = advise([host, row(accuracy=0.88, model_sha256="ab", delegate="gpu")])
    assert [advice.severity for advice in found] == ["problem"] and "-2.00 points (gpu)" in found[0].text
    assert advise([host, row(accuracy=0.88, model_sha256="cd")]) == []  # another file
    assert advise([host, row(accuracy=0.897, model_sha256="ab")]) == []


def test_one_sentence_for_many_models_and_for_phones_with_the_same_trouble():
    rows = [row(id=f"M{k}", device=device, facts={"screen": "off"}) for device in ("A", "B") for k in range(9)]
    (found,) = advise(rows)
    assert found.text.startswith("A, B: the screen was off") and len(found.rows) == 18
    rows = [row(device=device, facts={"battery": {"percent": level}}) for device, level in (("A", 9), ("B", 12))]
    assert [advice.text[:26] for advice in advise(rows)] == ["A: the battery was at 9 %.", "B: the battery was at 12 %"]
    failed = [row(id=f"M{k}", error="exit code 137: killed") for k in range(9)]
    assert "M0, M1, M2, M3 and 5 more failed" in advise(failed)[0].text


def test_what_others_used_of_an_emulated_phone_is_not_its_own():
    clusters = [{"cpus": [0, 1, 2, 3], "max_khz": 2000000}]
    busy = row(facts={"clusters": clusters, "system_cpu_percent": 90.0, "emulated": True}, device_kind="emulated")
    assert [advice.text[:19] for advice in advise([busy])] == ["Pixel 7: emulated. "]


def test_neighbouring_whole_microseconds_are_no_spread():
    assert advise([row(facts={"repetitions": [{"p50_us": 26.0}, {"p50_us": 27.0}]}, latency_p50_us=26.5)]) == []
    assert advise([row(facts={"repetitions": [{"p50_us": 6.0}, {"p50_us": 7.0}]}, latency_p50_us=26.5)]) == []
    assert len(advise([row(facts={"repetitions": [{"p50_us": 6.1}, {"p50_us": 7.1}]}, latency_p50_us=26.5)])) == 1


def test_masked_rows_need_no_advice_on_cores():
    assert advise([row(facts={"clusters": CLUSTERS, "core_mask": "f0"})]) == []
    assert advise([row(threads=8, facts={"clusters": CLUSTERS})]) == []


def test_a_whole_run_problems_first():
    found = advise(make_rows([PIXEL, GALAXY]))
    ranks = [SEVERITIES.index(advice.severity) for advice in found]
    assert ranks == sorted(ranks) and set(ranks) == {0, 1, 2}
    text = "\n".join(advice.text for advice in found)
    assert "Galaxy A54: throttled in 4 of 30 runs" in text and "charging over USB" in text


def test_rows_that_say_nothing_are_no_trouble():
    bare = Result(id="x", recipe="", device="Pixel 7", device_kind="android")
    assert [advice.severity for advice in advise([bare, bare.replace(id="y", facts={})])] == ["note"]  # no accuracy
