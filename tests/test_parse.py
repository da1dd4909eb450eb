"""Every real output of benchmark_model parses to what a person reads from it."""

import dataclasses
import re
from pathlib import Path

import pytest

from android_bench.logs.delegates import Delegation
from android_bench.logs.log_lines import LogError
from android_bench.logs.parse import Runs, parse_log
from android_bench.logs.run_eval import RunEval, parse_run_eval
from android_bench.logs.saved_files import parse_op_profile, parse_op_profile_proto, parse_result_file

GOLDEN = Path(__file__).parent / "golden"
TOOL, PHONES = GOLDEN / "benchmark_model", GOLDEN / "phones"
BELOW_CLOCK = "below the clock's resolution"

# Read from the files by eye, all exit 0:
# file: (timed runs, median µs, mean µs, init µs, first µs, memory after init MB, overall MB)
NUMBERS = {
    "bad_float": (4134794, 0, 0.149849, 817, 10, 3.16797, 83.1875),
    "bool_no_value": (1, 23, 23, 786, None, 3.12891, 3.25391),
    "default_dynamic_range": (14111, 68, 70.4273, 4355, 110, 3.41016, 4.3125),
    "default_f16": (7031, 137, 141.272, 1501, 151, 3.76562, 4.12109),
    "default_f32": (6622, 139, 150.25, 1030, 150, 3.74609, 4.09766),
    "default_fixed1": (6858, 140, 145.186, 1891, 159, 3.62109, 4.08984),
    "default_int8_floatio": (12560, 82, 79.0591, 1466, 276, 3.75, 4.49219),
    "default_int8_io": (8035, 123, 124.761, 479, 614, 2.53906, 3.03516),
    "external_delegate_missing": (1, 16, 16, 941, None, 3.31641, 3.44141),
    "flag_twice": (2, 15, 8, 979, 16, 3.25, 32.6211),
    "int_as_float": (3864013, 0, 0.1634, 888, 17, 3.25391, 93.4062),
    "invoke_value_range": (3, 0, 0, 735, 3, 2.75391, 2.75391),
    "io_batch1_on_fixed1": (1, 179, 179, 1385, None, 3.67578, 3.94141),
    "io_batch8_cnn_dr": (1, 684, 684, 1537, None, 4.03516, 4.45312),
    "io_batch8_cnn_f16": (1, 1321, 1321, 2328, None, 4.34375, 4.69922),
    "io_batch8_cnn_f32": (1, 1282, 1282, 1794, None, 4.21484, 4.59766),
    "io_batch8_cnn_int8_floatio": (1, 676, 676, 1365, None, 3.65625, 4.19922),
    "io_batch8_int8_io": (1, 2001, 2001, 883, None, 2.59375, 3.58203),
    "io_batch8_on_fixed1": (1, 1176, 1176, 1542, None, 4.09766, 4.69141),
    "io_batch8_savedmodel": (1, 1238, 1238, 1713, None, 4.16016, 4.64062),
    "io_proto_out": (1, 1287, 1287, 1799, None, 4.22266, 4.70312),
    "io_two_inputs": (1, 24, 24, 978, None, 3.06641, 3.19141),
    "io_two_inputs_swapped": (1, 18, 18, 961, None, 3.12891, 3.25391),
    "io_unwritable_output": (1, 1227, 1227, 1771, None, 4.27344, 4.75391),
    "io_wrong_layer_name_everywhere": (1, 1041, 1041, 1367, None, 4.28516, 4.76562),
    "max_secs_0": (1, 0, 0, 902, 16, 3.17188, 3.29688),
    "op_profile_csv_file": (5165, 180, 189.69, 3334, 179, 3.94531, 4.30078),
    "op_profile_csv_stdout": (5306, 178, 185.539, 1452, 157, 3.80859, 4.21094),
    "op_profile_old_csv_flag": (5057, 183, 193.917, 1720, 173, 3.89453, 4.25),
    "op_profile_proto": (5242, 181, 187.918, 1559, 169, 3.87109, 4.34766),
    "op_profile_stdout": (5735, 160, 172.031, 1304, 160, 3.88672, 4.26172),
    "peak_mem": (6750, 139, 147.595, 2200, 175, 3.64844, 4.03516),
    "peak_mem_slow": (5, 44091, 43928.6, 18565, 44447, 24.6211, 25.9766),
    "peak_mem_started_by_python_vfork": (1691, 569, 590.642, 438, 1375, None, None),
    "preinvoke_state": (1, 15, 15, 897, None, 3.23438, 3.35938),
    "result_file": (6937, 138, 143.262, 1332, 166, 3.65625, 4.05859),
    "result_file_unwritable": (1, 10, 10, 2858, None, 3.25391, 3.37891),
    "run_delay": (5, 18, 18.6, 896, 13, 3.12891, 3.25391),
    "run_frequency": (20, 16, 15.85, 900, 15, 3.03906, 3.16406),
    "sci_xnn": (2, 1333164, 1327340.0, 206496, 1315685, 309.184, 346.102),
    "signature": (1, 165, 165, 1408, None, 3.66016, 3.94922),
    "slow_batch_sci": (2, 663194, 656714, 102641, 665080, 162.496, 181.039),
    "slow_max_secs": (25, 40491, 40761.2, 12793, 40259, 24.5586, 25.8164),
    "slow_sci": (3, 40624, 40648.3, 13749, 39859, 24.4648, 25.8086),
    "threads0": (2, 1, 0.5, 644, 13, 3.12891, 3.25391),
    "threads1": (7227, 135, 137.857, 1446, 167, 3.67969, 4.07422),
    "threads4": (7219, 127, 138.01, 1054, 150, 3.64844, 4.05078),
    "tiny_2_runs": (2, 15, 8, 953, None, 3.25391, 3.25391),
    "tiny_5s": (20361986, 0, 0.14889, 912, 15, 3.19141, 342.66),
    "tiny_fast": (3754948, 0, 0.168029, 881, 13, 3.12891, 90.8125),
    "tiny_one_run": (1, 15, 15, 886, None, 3.06641, 3.19141),
    "unknown_flag": (1, 13, 13, 728, None, 3.17188, 3.29688),
    "verbose": (6416, 138, 155.172, 1080, 152, 3.53516, 3.95312),
    "verbose_default_f32": (3, 135, 134.667, 1446, 161, 3.38672, 3.66016),
    "verbose_ext_missing": (3, 0, 0, 1380, 12, 3.07422, 3.19922),
    "verbose_mobilenet_int8_default": (3, 11627, 11631.7, 8470, 11710, 14.7266, 16.1641),
    "verbose_partial": (3, 500, 549.667, 1719, 682, 3.47266, 4.03516),
    "verbose_xnn_true": (3, 134, 135, 1279, 162, 3.78516, 4.05078),
    "warmup0_both": (6817, 139, 146.202, 1023, None, 3.59766, 3.91797),
    "warmup0_runs_only": (6716, 142, 148.031, 1402, 225, 3.71875, 4.13281),
    "xnn_false": (1785, 498, 559.76, 370, 1214, 2.49609, 3.60938),
    "xnn_fixed8": (1, 1162, 1162, 1801, None, 4.16016, 4.76172),
    "xnn_force_fp16": (10913, 83, 91.3074, 1514, 124, 3.53516, 3.95312),
    "xnn_int8_true": (13460, 77, 73.9831, 993, 98, 3.84766, 4.51172),
    "xnn_profile": (5396, 178, 182.381, 1724, 178, 3.76172, 4.14844),
    "xnn_require_full": (1, 170, 170, 1497, None, 3.78516, 4.01562),
    "xnn_true": (7003, 139, 142.258, 1432, 180, 3.66016, 4.13672),
    "xnn_true_w_crnn_f32": (5, 536, 549.6, 2219, 704, 3.75, 4.17578),
    "xnn_true_w_mobilenet_dynamic_wi4_afp32": (5, 36193, 36132.4, 6963, 49155, 4.625, 18.3125),
    "xnn_true_w_mobilenet_f16": (5, 13016, 13042.8, 49838, 12917, 37.9609, 38.3164),
    "xnn_true_w_mobilenet_f32": (5, 12801, 12857.2, 45895, 13024, 41.6445, 43.0938),
    "xnn_true_w_mobilenet_int8": (5, 12436, 12375.6, 20830, 13111, 14.8789, 16.1914),
    "xnn_true_w_mobilenet_weight_only_wi8_afp32": (5, 13080, 13195.2, 52124, 13078, 45.9336, 47.3516),
    "xnn_true_w_vggish_f32": (5, 765968, 772339, 1760858, 790120, 1093.57, 1095.05),
}
BUILTIN = ("default_int8_io", "io_batch8_int8_io", "peak_mem_started_by_python_vfork", "xnn_false")  # others: XNNPACK
PEAK_MB = {
    "peak_mem": 10.6758, "peak_mem_slow": 32.5078, "peak_mem_started_by_python_vfork": 27.4453, "result_file": 10.6016,
}  # fmt: skip
UNCONSUMED = {
    "bool_no_value": ("--verbose",),
    "flag_twice": ("--num_runs=3",),
    "unknown_flag": ("--no_such_flag=1", "--use_gpu=true"),
}
NOTES = {
    "bad_float": BELOW_CLOCK, "int_as_float": BELOW_CLOCK, "tiny_5s": BELOW_CLOCK, "tiny_fast": BELOW_CLOCK,
    "invoke_value_range": BELOW_CLOCK, "max_secs_0": BELOW_CLOCK, "threads0": BELOW_CLOCK,
    "external_delegate_missing": "external delegate was never applied (asked for: /nope.so): ran on xnnpack",
    "verbose_ext_missing": "external delegate was never applied (asked for: /nope.so): ran on xnnpack",
    "io_two_inputs_swapped": "check the inputs' order: Tensor # 0 is named a but flags call it b",
    "io_wrong_layer_name_everywhere": "Tensor # 0 is named image but flags call it img",
    "result_file_unwritable": "it went on: Failed to save benchmark result to: /nonexistent/res.pb",
    "unknown_flag": "this benchmark_model has no GPU delegate: ran on xnnpack",
    "verbose_mobilenet_int8_default": "XNNPACK took 32 of 33 nodes",
    "verbose_partial": "XNNPACK took 61 of 88 nodes",
    "xnn_int8_true": "XNNPACK took only a part of the graph",
    "xnn_true_w_crnn_f32": "XNNPACK took only a part of the graph",
    "xnn_true_w_mobilenet_dynamic_wi4_afp32": "XNNPACK took only a part of the graph",
    "xnn_true_w_mobilenet_int8": "XNNPACK took only a part of the graph",
}  # fmt: skip
# Those that say what XNNPACK took; all others only say that it was there, or don't have it.
DELEGATIONS = {
    "streams_xnn_unknownflag": Delegation("xnnpack", "all"),
    "verbose_default_f32": Delegation("xnnpack", "all", 9, 9, 1),
    "verbose_ext_missing": Delegation("xnnpack", "all", 1, 1, 1),
    "verbose_mobilenet_int8_default": Delegation("xnnpack", "part", 32, 33, 3),
    "verbose_partial": Delegation("xnnpack", "part", 9 + 17 + 17 + 18, 15 + 26 + 26 + 21, 7 + 3 + 3 + 2),
    "verbose_xnn_true": Delegation("xnnpack", "all", 9, 9, 1),
    "xnn_fixed8": Delegation("xnnpack", "all"),
    "xnn_force_fp16": Delegation("xnnpack", "all"),
    "xnn_int8_true": Delegation("xnnpack", "part"),
    "xnn_profile": Delegation("xnnpack", "all"),
    "xnn_require_full": Delegation("xnnpack", "all"),
    "xnn_true": Delegation("xnnpack", "all"),
    "xnn_true_w_crnn_f32": Delegation("xnnpack", "part"),
    "xnn_true_w_mobilenet_dynamic_wi4_afp32": Delegation("xnnpack", "part"),
    "xnn_true_w_mobilenet_f16": Delegation("xnnpack", "all"),
    "xnn_true_w_mobilenet_f32": Delegation("xnnpack", "all"),
    "xnn_true_w_mobilenet_int8": Delegation("xnnpack", "part"),
    "xnn_true_w_mobilenet_weight_only_wi8_afp32": Delegation("xnnpack", "all"),
    "xnn_true_w_vggish_f32": Delegation("xnnpack", "all"),
}
# file: (exit code, what the failure says)
FAILURES = {
    "bad_bool": (1, "can't read --verbose=yes"),
    "bad_int": (1, "can't read --num_runs=abc"),
    "corrupt_empty": (1, "model file is empty"),
    "corrupt_flipped": (1, "damaged or no .tflite"),
    "corrupt_garbage": (1, "damaged or no .tflite"),
    "corrupt_truncated": (1, "damaged or no .tflite"),
    "custom_op": (1, "unresolved custom op MatrixDeterminant"),
    "flex_op": (1, "_plus_flex binary"),
    "graph_is_dir": (1, "not a folder"),
    "help": (1, "only printed its help"),
    "help_true": (1, "only printed its help"),
    "invoke_fails": (1, "op GATHER (node 0) failed while running (gather index out of bounds)"),
    "invoke_fails_no_warmup": (1, "op GATHER (node 0) failed while running (gather index out of bounds)"),
    "io_batch8_on_fixed1_reshape": (1, "refuses this input shape or batch"),
    "io_files_without_layer": (134, "names image, which --input_layer does not"),
    "io_layer_without_shape": (1, "each --input_layer needs one --input_layer_shape"),
    "io_missing_value_file": (134, "input file nofile.bin is not on the device"),
    "io_one_of_two_inputs": (134, "1 input was given but the model has 2"),
    "io_shape_garbage": (1, "input 0 must have 4 dimensions"),
    "io_shape_minus1": (1, "-1 in --input_layer_shape"),
    "io_unescaped_colon": (1, "write it '::'"),
    "io_wrong_dims": (1, "refuses this input shape or batch"),
    "io_wrong_file_size": (134, "x7.bin has 86016 bytes but the model takes 98304"),
    "io_wrong_name_in_value_files": (134, "names img, which --input_layer does not"),
    "io_wrong_rank": (1, "input 0 must have 4 dimensions"),
    "list_signatures": (1, "only listed the model's signatures"),
    "missing_file": (1, "model nope.tflite is not on the device"),
    "no_args": (1, "write --graph=FILE"),
    "positional": (1, "write --graph=FILE"),
    "require_full_delegation": (1, "doesn't take the whole graph"),
    "signature_wrong": (1, "ask for one of its own, as serving_default"),
    "single_dash": (1, "write --graph=FILE"),
    "space_syntax": (1, "write --graph=FILE"),
    "threads_neg5": (1, "num_threads must be -1, 0 or more"),
    "xnn_partial_require_full": (1, "doesn't take the whole graph"),
}
OTHERS = {"dry_run", "README", "compare_bytes_plain_build", "compare_bytes_xnnpack_build"} | {
    f"streams_{name}.{stream}" for name in ("default", "fatal", "missing", "xnn_unknownflag")
    for stream in ("stdout", "stderr")
} | {"op_profile_op.csv", "op_profile_op_old.csv", "op_profile_op.pb", "op_profile_op.pb.decoded"} | {
    "result_file.pb", "result_file.pb.decoded",
}  # fmt: skip


def _read(name):
    text = (TOOL / f"{name}.txt").read_text()
    found = re.search(r"^# exit: (\d+)", text, re.M)
    return text, int(found[1]) if found else None


def test_every_real_output_has_a_row():
    files = {path.name.removesuffix(".txt") for path in TOOL.iterdir()}
    assert files == set(NUMBERS) | set(FAILURES) | OTHERS
    assert {path.name for path in PHONES.glob("bm_*")} == set(PHONE_LOGS) | {"bm_fail_other.txt"}
    assert {path.name for path in PHONES.glob("run_eval_*")} == set(EVALS)
    assert set(BUILTIN) | set(PEAK_MB) | set(UNCONSUMED) | set(NOTES) <= set(NUMBERS)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_good_run(name):
    text, exit_code = _read(name)
    log = parse_log(text, exit_code)
    count, median, mean, init, first, memory_init, memory_overall = NUMBERS[name]
    assert (log.tool, log.failure, exit_code) == ("tflite", None, 0)
    assert (log.timed.count, log.timed.median_us, log.timed.mean_us) == (count, median, mean)
    assert (log.init_us, log.first_us) == (init, first)
    assert (log.memory_init_mb, log.memory_overall_mb) == (memory_init, memory_overall)
    assert log.peak_memory_mb == PEAK_MB.get(name)
    assert log.unconsumed == UNCONSUMED.get(name, ())
    assert log.ran_on == ("builtin" if name in BUILTIN else "xnnpack")
    xnnpack = DELEGATIONS.get(name, Delegation("xnnpack", None))
    assert log.delegates == (() if name in BUILTIN else (xnnpack,))
    assert NOTES[name] in log.note if name in NOTES else log.note is None
    assert log.echoed["Graph"].endswith(".tflite") and (log.warmup is None) == (first is None)


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_run(name):
    text, exit_code = _read(name)
    log = parse_log(text, exit_code)
    assert (exit_code, FAILURES[name][1] in log.failure) == (FAILURES[name][0], True), log.failure
    assert log.failure.endswith(f"(exit code {exit_code})")
    assert (log.tool, log.ran_on, log.first_us, log.warmup, log.timed) == ("tflite", None, None, None, None)


def test_all_fields_of_one_log():
    log = parse_log(*_read("xnn_true"))
    assert log.warmup == Runs(3408, 180, 126, 1866, 146.244, 53, 129, 140, 174)
    assert log.timed == Runs(7003, 141, 126, 4321, 142.258, 60, 128, 139, 154)
    assert (log.model_mb, log.echoed["Use xnnpack"], log.echoed["Signature to run"]) == (0.10108, "1", "")


def test_a_dry_run_measured_nothing():
    log = parse_log(*_read("dry_run"))
    assert (log.timed, log.warmup, log.first_us, log.failure) == (None, None, None, None)
    assert (log.init_us, log.memory_overall_mb, log.note) == (1291, 3.53516, "dry run: nothing was run")


@pytest.mark.parametrize("name", ["README", "compare_bytes_plain_build", "compare_bytes_xnnpack_build"])
def test_what_is_no_log_is_called_so(name):
    log = parse_log(*_read(name))
    assert (log.tool, log.timed, log.failure, log.note) == (None, None, None, "no line of benchmark_model in the log")


# The two streams apart, then as one text: stdout, stderr, both -> (exit code, ran on, failure, timed mean)
@pytest.mark.parametrize("name, exit_code, ran_on, failure, mean", [
    ("default", 0, "xnnpack", None, 145.929),
    ("xnn_unknownflag", 0, "xnnpack", None, 0),
    ("fatal", 134, None, "x7.bin has 86016 bytes but the model takes 98304", None),
    ("missing", 1, None, "model nope.tflite is not on the device", None),
])  # fmt: skip
def test_streams(name, exit_code, ran_on, failure, mean):
    out, err = (_read(f"streams_{name}.{stream}")[0] for stream in ("stdout", "stderr"))
    both = parse_log(out + err, exit_code)
    assert both.ran_on == ran_on and (both.timed and both.timed.mean_us) == mean
    assert failure in both.failure if failure else both.failure is None
    assert both.unconsumed == (("--zzz=1",) if name == "xnn_unknownflag" else ())
    assert failure in parse_log(err).failure if failure else parse_log(err).failure is None
    assert parse_log(err).timed is None and parse_log(out).failure is None
    assert (parse_log(out).timed is None) == (mean is None)


EVALS = {
    "run_eval_imagenet.txt": RunEval(
        300, 76578.4, 600, None, 13772.5,
        {1: 0.733333, 2: 0.826667, 3: 0.856667, 4: 0.87, 5: 0.89,
         6: 0.903333, 7: 0.906667, 8: 0.913333, 9: 0.92, 10: 0.923333}, (),
    ),
    "run_eval_inference_diff.txt": RunEval(50, 7281.64, 2089, 84364.2, None, {}, (1.96277e-05,)),
}  # fmt: skip


@pytest.mark.parametrize("file", EVALS)
def test_run_eval(file):
    text = (PHONES / file).read_text()
    assert parse_run_eval(text) == EVALS[file]
    assert parse_log(text).tool is None


# file: fields of the log as a person reads them, the words to find in `note` and in `failure`
PHONE_LOGS = {
    "bm_apk_logcat.txt": (dict(  # the timed block is cut out: only the summary has its mean
        tool="tflite", init_us=312764, first_us=235158, ran_on=None, memory_init_mb=54.2852, memory_overall_mb=73.4102,
        warmup=Runs(3, 235158, 178201, 235158, 198012, 26300, 178201, 180677, 235158), timed=Runs(mean_us=181533),
    ), None, None),
    "bm_fail_batch_resize.txt": ({}, None, "input shape or batch (8000 != 1000)"),
    "bm_fail_builtin_version.txt": ({}, None, "older than the model: it lacks CONV_2D version 5"),
    "bm_fail_custom_op.txt": ({}, None, "unresolved custom op odml.update_kv_cache"),
    "bm_fail_gpu_delegate.txt": (
        dict(delegates=(Delegation("gpu", "all", 2, None, 1),)), None, "GPU delegate refuses the model (FULLY_CONNECTED"
    ),
    "bm_fail_no_opencl.txt": ({}, None, "no GPU that OpenCL can use"),
    "bm_fail_xnnpack_int8_batchmatmul.txt": (
        dict(delegates=(Delegation("xnnpack", "part", 2136, 2168, 65),), ran_on=None, timed=None), None,
        "op BATCH_MATMUL (node 57) can't be prepared (tensorflow/lite/kernels/batch_matmul.cc:353",
    ),
    "bm_litert2_benchmark_model.txt": (dict(
        tool="litert2", init_us=5757, first_us=2125, ran_on="xnnpack", model_mb=0.229746, echoed={
            "Log parameter values verbosely": "0", "Num threads": "4"},
        warmup=Runs(526, 2125, 910, 2125, 949.861, 68, 915, 939, 990),
        timed=Runs(1054, 1015, 910, 1102, 947.132, 23, 915, 942, 991),
        memory_init_mb=4.06, memory_overall_mb=7.07, peak_memory_mb=None,
    ), None, None),
    "bm_peak_memory_tail.txt": (dict(peak_memory_mb=208.699, ran_on=None, timed=None), "no timed runs", None),
    "bm_soft_gpu_not_used.txt": (dict(
        ran_on="xnnpack", delegates=(Delegation("gpu", "none"), Delegation("xnnpack", None)),
    ), "GPU took nothing of the graph: ran on xnnpack", None),
    "bm_soft_gpu_opengl_fallback.txt": (dict(
        ran_on="gpu", delegates=(Delegation("gpu", "all", 4, 4, 1),)
    ), "GPU fell back to OpenGL (No selector for floor_mod)", None),
    "bm_soft_gpu_partial.txt": (dict(
        ran_on="gpu", delegates=(Delegation("gpu", "part", 294, 318, 3),)
    ), "GPU took 294 of 318 nodes", None),
    "bm_tf1.14.txt": (dict(
        tool="tflite", init_us=9933, first_us=127425, ran_on="builtin", memory_overall_mb=None, model_mb=None,
        warmup=Runs(7, 127425, 66709, 127425, 76605.9, 20944), timed=Runs(15, 66753, 66699, 66838, 66767.6, 39),
    ), None, None),
    "bm_tf2.15_nnapi_synaptics.txt": (dict(
        init_us=66002, first_us=637079, ran_on="nnapi", delegates=(Delegation("nnapi", "all", 31, 31, 1),),
        warmup=Runs(1, *[637079] * 4, 0, *[637079] * 3), timed=Runs(520, 2531, 1171, 9925, 1885.74, 870),
    ), None, None),
    "bm_tf2.17_slow_scientific.txt": (dict(
        init_us=1251200, first_us=2090305, ran_on="builtin", model_mb=88.1234, memory_init_mb=310.25,
        timed=Runs(20, 2204662, 2074572, 2556951, 2200290, 135651, 2074714, 2142188, 2556951), memory_overall_mb=402.5,
    ), None, None),
    "bm_tf2.18_android_aarch64.txt": (dict(
        init_us=119515, first_us=87112, ran_on="xnnpack", delegates=(Delegation("xnnpack", "all", 2168, 2168, 1),),
        timed=Runs(1000, 52162, 49088, 686105, 63743.2, 60716, 49620, 51891, 68628), memory_overall_mb=55.4961,
    ), None, None),
    "bm_tf2.4.txt": (dict(
        init_us=16242, first_us=360262, ran_on="builtin", memory_init_mb=4.92969, memory_overall_mb=138.809,
        timed=Runs(50, 249042, 247067, 254474, 249684, 1442), model_mb=13.9744,
    ), None, None),
    "bm_tf2.7_sd865_resnet50.txt": (dict(
        init_us=98471, first_us=104448, ran_on="xnnpack", delegates=(Delegation("xnnpack", "all", 75, None, 1),),
        timed=Runs(50, 87163, 86939, 93704, 88199.2, 1353), memory_init_mb=134.562, memory_overall_mb=208.699,
    ), None, None),
}  # fmt: skip


@pytest.mark.parametrize("file", PHONE_LOGS)
def test_a_phones_log(file):
    log = parse_log((PHONES / file).read_text())
    values, note, failure = PHONE_LOGS[file]
    assert {name: getattr(log, name) for name in values} == values
    assert note in log.note if note else log.note is None
    assert failure in log.failure if failure else log.failure is None


BLOCKS = (PHONES / "bm_fail_other.txt").read_text().split("\n## ")[1:]
BLOCK_FAILURES = [  # in the order of the file: (exit code, what the failure says)
    (126, "wrong ABI: this device can't run the binary (64-bit ELF file)"),
    (126, "folder without exec rights"),
    (127, "not on the device: push it again"),
    (1, "not position independent"),
    (134, "shared library libLiteRt.so is missing"),
    (134, "/data/local/tmp/x.bin has 602112 bytes but the model takes 4816896"),
    (0, None),
    (1, "can't read --num_runs=ten"),
    (1, "model /data/local/tmp/no.tflite is not on the device"),
    (137, "killed, most likely out of memory"),
    (134, "out of memory (std::bad_alloc)"),
    (135, "bus error"),
    (139, "segmentation fault"),
]


@pytest.mark.parametrize("block, row", list(zip(BLOCKS, BLOCK_FAILURES, strict=True)))
def test_a_failure_block(block, row):
    head, text = block.split("\n", 1)
    exit_code, words = row
    assert str(exit_code) in head.split(" | ")[0]
    log = parse_log(text, exit_code)
    if words is None:  # an unknown flag only warns
        assert (log.failure, log.unconsumed) == (None, ("--op_profiling_outptu_file=x",))
    else:
        assert words in log.failure and log.timed is None
        assert words in parse_log(text).failure  # the exit code lost


@pytest.mark.parametrize("exit_code, words", [
    (1, "last line: INFO"), (126, "wrong ABI"), (127, "push it again"), (-9, "out of memory"), (-11, "crashed"),
    (255, "connection"), (77, "last line"),
])  # fmt: skip
def test_a_bad_exit_code_is_a_failure_whatever_is_printed(exit_code, words):
    log = parse_log(_read("default_f32")[0], exit_code)
    assert log.failure and log.timed is None and log.ran_on is None
    assert words.replace("last line: INFO", "last line: ") in log.failure
    assert parse_log("", exit_code).failure


LOOKS = {  # the same log through other pipes
    "crlf": lambda text: text.replace("\n", "\r\n"),
    "crcrlf": lambda text: text.replace("\n", "\r\r\n"),
    "colours": lambda text: "".join(f"\x1b[1;32m{line}\x1b[0m\n" for line in text.splitlines()),
    "no level words": lambda text: re.sub(r"^(INFO|VERBOSE): ", "", text, flags=re.M),
    "logcat threadtime": lambda text: re.sub("^", "07-14 13:14:52.859 22838 22838 I tflite  : ", text, flags=re.M),
    "logcat brief": lambda text: re.sub("^", "I/tflite  (22838): ", text, flags=re.M),
    "driver lines": lambda text: text.replace("\n", "\nW/Adreno: loading libOpenCL [1]\n"),
    "driver text before": lambda text: text.replace("INFO: count=", "type 54 str SoftmaxAxis0INFO: count="),
    "an earlier run before it": lambda text: _read("threads4")[0] + text,
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", ["verbose_partial", "default_f32", "external_delegate_missing", "signature"])
def test_looks_of_the_same_log(look, name):
    text, _ = _read(name)
    text = text[text.index("INFO: STARTING!") :]
    seen, plain = parse_log(LOOKS[look](text), 0), parse_log(text, 0)
    seen = dataclasses.replace(seen, echoed={key: seen.echoed.get(key) for key in plain.echoed})
    assert seen == plain


@pytest.mark.parametrize("text, ran_on, note", [
    ("Use Hexagon: [1]\nLoaded model m\ncount=1 curr=9\ncount=1 curr=9", "builtin",
     "Hexagon delegate was never applied"),
    ("Explicitly applied EXTERNAL delegate, and the model graph will be partially executed by the delegate w/ 2 "
     "delegate kernels.\nReplacing 7 out of 9 node(s) with delegate (VX Delegate) node, yielding 3 partitions.",
     "external", "external took 7 of 9 nodes"),
    ("Applied GPU delegate, and the model graph will be completely executed w/ the delegate.", "gpu", "no timed runs"),
    ("Replacing 5 out of 9 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 2 partitions.\n"
     "Replacing 4 out of 5 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 partitions.",
     "gpu", "GPU took 5 of 9 nodes; XNNPACK took 4 of 5 nodes"),
])  # fmt: skip
def test_what_really_ran(text, ran_on, note):
    log = parse_log(text, 0)
    assert (log.ran_on, log.failure) == (ran_on, None) and note in log.note


def test_a_lost_head_leaves_the_timed_block():
    summary = "Inference timings in us: Init: 5, First inference: 9, Warmup (avg): 9.5, Inference (avg): 4.25"
    log = parse_log(f"count=4 first=4 curr=5 min=4 max=5 avg=4.25 std=0\n{summary}")
    assert log.warmup is None and log.timed == Runs(4, 4, 4, 5, 4.25, 0) and log.first_us == 9


@pytest.mark.parametrize("line", [
    "count=3 first=9 curr=9 min=9 max=2 avg=8 std=1", "count=3 first=9 curr=9 min=1 max=9 avg=80 std=1",
    "count=3 first=9 curr=9 min=1 max=9 avg=5 std=1 p5=3 median=2 p95=8",
])  # fmt: skip
def test_times_that_contradict_each_other(line):
    assert "the log is damaged" in parse_log(f"count=1 curr=1\n{line}", 0).failure


@pytest.mark.parametrize("call", [
    lambda: parse_log(b"count=1"), lambda: parse_log("", "0"), lambda: parse_op_profile("nothing here"),
    lambda: parse_op_profile(None), lambda: parse_op_profile_proto(b""), lambda: parse_result_file(b"\x08\x01"),
    lambda: parse_result_file(b"\xff" * 20), lambda: parse_result_file(b"\x12\x7f"), lambda: parse_run_eval("hello"),
    lambda: parse_result_file(b"\x10\x01"), lambda: parse_result_file(b"\x0b"),
])  # fmt: skip
def test_what_cannot_be_read_is_a_log_error(call):
    with pytest.raises(LogError, match="Received|ends early"):
        call()
