"""The files that benchmark_model saves, against protoc's reading of them and against the log of the same run."""

import re
from pathlib import Path

import pytest

from android_bench.logs.parse import parse_log
from android_bench.logs.saved_files import parse_op_profile, parse_op_profile_proto, parse_result_file

TOOL = Path(__file__).parent / "golden" / "benchmark_model"
OPS = [
    "Delegate/Convolution (NHWC, F32) IGEMM:0", "Delegate/Max Pooling (NHWC, F32):1",
    "Delegate/Convolution (NHWC, F32) IGEMM:2", "Delegate/Max Pooling (NHWC, F32):3",
    "Delegate/Convolution (NHWC, F32) IGEMM:4", "Delegate/Max Pooling (NHWC, F32):5", "Delegate/Mean (ND) Reduce2:6",
    "Delegate/Static Reshape (NC):7", "Delegate/Fully Connected (NC, F32) GEMM:8", "Delegate/Softmax (NC, F32):9",
]  # fmt: skip


@pytest.mark.parametrize("file, first, third, last", [
    ("op_profile_op.csv", 0.0227609, 0.0575249, 4.84027e-06),
    ("op_profile_op_old.csv", 0.0234121, 0.0581236, 4.7459e-06),
    ("op_profile_csv_stdout.txt", 0.0221879, 0.0563296, 2.63852e-06),
    ("xnn_profile.txt", 0.021, 0.056, 0),
])  # fmt: skip
def test_op_profile(file, first, third, last):
    profile = parse_op_profile((TOOL / file).read_text())
    assert list(profile) == OPS
    assert (profile[OPS[0]], profile[OPS[2]], profile[OPS[9]]) == (first, third, last)


def test_op_profile_proto_against_protoc():
    decoded = (TOOL / "op_profile_op.pb.decoded.txt").read_text().split("runtime_profile")[1]
    names = re.findall(r'^ {6}name: "(.*)"', decoded, re.M)
    sums = re.findall(r"inference_microseconds \{[^}]*sum: (\d+)[^}]*count: (\d+)", decoded)
    profile = parse_op_profile_proto((TOOL / "op_profile_op.pb").read_bytes())
    assert list(profile) == names == OPS
    assert list(profile.values()) == [int(total) / int(count) / 1000 for total, count in sums]
    assert profile[OPS[0]] == pytest.approx(0.0226, abs=1e-4)


def test_result_file_against_protoc_and_the_log():
    decoded = dict(re.findall(r"(\w+): ([\d.]+)", (TOOL / "result_file.pb.decoded.txt").read_text()))
    saved = parse_result_file((TOOL / "result_file.pb").read_bytes())
    log = parse_log((TOOL / "result_file.txt").read_text(), 0)
    assert saved.timed.mean_us == pytest.approx(float(decoded["avg_ms"]) * 1000) == pytest.approx(143.261924)
    assert (saved.timed.count, saved.warmup.count) == (6937, 3498)
    for name in ("init_us", "first_us", "memory_init_mb", "memory_overall_mb", "peak_memory_mb", "model_mb"):
        assert getattr(saved, name) == pytest.approx(getattr(log, name), rel=1e-4), name
    for name in ("min_us", "max_us", "mean_us", "std_us", "p5_us", "median_us", "p95_us"):
        assert getattr(saved.timed, name) == pytest.approx(getattr(log.timed, name), rel=1e-4), name
