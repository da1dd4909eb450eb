"""The words that benchmark_model is started with."""

import json
import re
from pathlib import Path

import pytest

from android_bench import command
from android_bench.binary import known_flags
from android_bench.command import Timing, delegate_flags, latency, memory, outputs

HELP = known_flags((Path(__file__).parent / "golden/benchmark_model/help.txt").read_text())
ANDROID_ONLY = {"use_gpu", "gpu_precision_loss_allowed", "use_nnapi", "nnapi_accelerator_name", "use_hexagon",
                "hexagon_lib_path"}  # fmt: skip


def names(words):
    return [re.fullmatch(r"--([a-z0-9_]+)=.*", word, re.DOTALL)[1] for word in words]


def test_a_latency_run():
    assert latency("/b", "/m", 4, "cpu", Timing(50, 1, 150, 1, 0.5)) == [
        "/b", "--graph=/m", "--num_threads=4", "--use_xnnpack=true", "--num_runs=50", "--min_secs=1", "--max_secs=150",
        "--warmup_runs=1", "--warmup_min_secs=0.5"]  # fmt: skip


def test_a_memory_run_is_short():
    words = memory("/b", "/m", 1, "builtin")
    assert "--num_runs=3" in words and "--min_secs=0" in words and "--report_peak_memory_footprint=true" in words


def test_an_outputs_run():
    assert outputs("/b", "/m", 1, "cpu", [("image:0", (2, 3)), ("state", (2,))]) == [
        "/b", "--graph=/m", "--num_threads=1", "--use_xnnpack=true", "--num_runs=1", "--min_secs=0", "--warmup_runs=0",
        "--warmup_min_secs=0", "--input_layer=image:0,state", "--input_layer_shape=2,3:2",
        "--input_layer_value_files=image::0:x0,state:x1", "--output_filepath=y"]  # fmt: skip


@pytest.mark.parametrize("odd", ["a b", "a,b", "a:", ":", "a:b", "", "$(x)", "a\nb", "'"])
def test_names_of_layers_that_the_tool_would_split_get_stand_ins(odd):
    words = outputs("/b", "/m", 1, "cpu", [("input1", (1,)), (odd, (1,))])
    assert "--input_layer=input0,input1" in words and "--input_layer_value_files=input0:x0,input1:x1" in words


def test_two_layers_of_one_name_get_stand_ins():
    assert "--input_layer=input0,input1" in outputs("/b", "/m", 1, "cpu", [("x", (1,)), ("x", (1,))])


@pytest.mark.parametrize("delegate, flags", [
    ("cpu", ["--use_xnnpack=true"]), ("builtin", ["--use_xnnpack=false"]), ("gpu", ["--use_gpu=true"]),
    ("gpu32", ["--use_gpu=true", "--gpu_precision_loss_allowed=false"]), ("nnapi", ["--use_nnapi=true"]),
    ("nnapi:google-edgetpu", ["--use_nnapi=true", "--nnapi_accelerator_name=google-edgetpu"]),
    ("hexagon", ["--use_hexagon=true"]), ("hexagon:/l", ["--use_hexagon=true", "--hexagon_lib_path=/l"]),
    ("external:/d.so", ["--external_delegate_path=/d.so"]),
    ("external:/d.so;a:1;b:2", ["--external_delegate_path=/d.so", "--external_delegate_options=a:1;b:2"]),
])  # fmt: skip
def test_delegates(delegate, flags):
    assert delegate_flags(delegate) == flags


@pytest.mark.parametrize("delegate, flags", [
    ("cpu", ["--use_cpu=true"]), ("gpu", ["--use_gpu=true", "--use_cpu=false"]),
    ("npu", ["--use_npu=true", "--use_cpu=false"]),
])  # fmt: skip
def test_delegates_of_litert_2(delegate, flags):
    assert delegate_flags(delegate, "litert2") == flags


@pytest.mark.parametrize("delegate, tool", [
    ("tpu", "tflite"), ("", "tflite"), ("GPU", "tflite"), ("npu", "tflite"), ("nnapi:", "tflite"), ("gpu:0", "tflite"),
    ("external:", "tflite"), ("external", "tflite"), ("builtin", "litert2"), ("nnapi", "litert2"),
    ("external:/d.so", "litert2"),
])  # fmt: skip
def test_an_unknown_delegate_lists_the_known_ones(delegate, tool):
    with pytest.raises(ValueError, match=re.escape(repr(delegate)) + r"\. Known: cpu, .*gpu"):
        delegate_flags(delegate, tool)


def test_the_real_tool_knows_every_flag():
    used = names(memory("", "", 1, "cpu")[1:] + outputs("", "", 1, "external:/d.so;a:1", [("x", (1,))])[1:])
    for flags in map(delegate_flags, command.DELEGATES):
        used += names(flags)
    assert set(used) - HELP <= ANDROID_ONLY and len(set(used) & HELP) > 12


@pytest.mark.parametrize("options", [
    dict(runs=0), dict(warmup_runs=-1), dict(min_seconds=-1), dict(max_seconds=-0.1), dict(warmup_seconds=-1),
    dict(min_seconds=float("nan")),
])  # fmt: skip
def test_times_that_are_none(options):
    with pytest.raises(ValueError, match="Expected runs >= 1"):
        Timing(**options)
    with pytest.raises(ValueError, match="Expected --min-seconds of at most --max-seconds. Received: 5 and 1"):
        Timing(min_seconds=5, max_seconds=1)


def test_times_are_what_a_results_folder_remembers():
    assert json.dumps(Timing().flags()).count("=") == 5 and Timing(1, 0.001).flags()[1] == "--min_secs=0.001"
