"""The emulated phones' benchmark_model, held against the real one's outputs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import ai_edge_litert
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from emulated_phone import binary, models

GOLDEN = Path(__file__).parent / "golden/benchmark_model"
LEFT_OUT = {  # begin of the name: why
    "README": "no output",
    "xnn_true_w_": "large models", "verbose_mobilenet": "large model", "slow": "large model", "sci_xnn": "large model",
    "xnn_partial": "a model with LSTMs", "verbose_partial": "a model with LSTMs",
    "op_profile": "XNNPACK's own table", "xnn_profile": "XNNPACK's own table", "result_file.pb": "a decoded proto",
    "preinvoke_state": "the interpreter's memory", "compare_bytes": "not the tool's output",
    "peak_mem_": "another build", "streams_": "in a test of their own",
    "default_int8_io": "this wheel gives int8 I/O to XNNPACK", "io_batch8_int8_io": "the same",
}  # fmt: skip
OUTPUTS = [path for path in sorted(GOLDEN.glob("*.txt")) if not path.name.startswith(tuple(LEFT_OUT))]
STREAMS = {
    "default": "--graph=cnn_f32.tflite",
    "missing": "--graph=nope.tflite",
    "fatal": "--graph=cnn_f32.tflite --input_layer=image --input_layer_shape=8,32,32,3 "
             "--input_layer_value_files=image:x7.bin",
    "xnn_unknownflag": "--graph=tiny.tflite --zzz=1 --num_runs=1 --min_secs=0 --warmup_min_secs=0 --use_xnnpack=true",
}  # fmt: skip
ONCE = "--num_runs=1 --min_secs=0 --warmup_runs=0 --warmup_min_secs=0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models and a benchmark_model, as on a phone."""
    folder = tmp_path_factory.mktemp("models")
    models.write(folder)
    binary.store(binary.make_binary(folder / "benchmark_model"), folder / "programs")
    return folder


def run(folder, command):
    """A command by sh, outside of a phone: the tool as built for Linux."""
    environment = {"PATH": os.environ["PATH"], "EMULATED_HURRY": "100"}
    return subprocess.run(["sh", "-c", f"{command}; exit $?"], cwd=folder, env=environment, text=True,
                          capture_output=True)  # fmt: skip


@pytest.fixture(scope="module")
def logs(folder):
    """Exit code and output of the stand-in for the command of every real output, by the file's name."""
    commands = [re.search("^# argv: (.*)$", path.read_text(), re.M)[1].split() for path in OUTPUTS]
    jobs = [dict(command=command, environment={"EMULATED_VERBOSE": str(int(path.name.startswith("verbose_")))})
            for command, path in zip(commands, OUTPUTS, strict=True)]  # fmt: skip
    packages = Path(ai_edge_litert.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-S", "-E", binary.STAND_IN.with_name("many.py"), packages], cwd=folder, check=True, text=True,
        env={"PATH": os.environ["PATH"], "EMULATED_HURRY": "100"}, input=json.dumps(jobs), stdout=subprocess.PIPE,
    )  # fmt: skip
    return dict(zip([path.name for path in OUTPUTS], json.loads(done.stdout), strict=True))


def shape(log: str) -> list[str]:
    """A log's lines without our header, each number a #, a block of run times a word."""
    log = "\n".join(line for line in log.splitlines() if not line.startswith("# "))
    log = re.sub(r"count=[1-9]\d*( first=.*? std=\S+| curr=\d+(\(all same\))?)", "count=N TIMES", log)
    return re.sub(r"(?<=[\s=(:{-])-?\d+(\.\d+)?(e[+-]\d+)?", "#", log).strip().splitlines()


@pytest.mark.parametrize("path", OUTPUTS, ids=lambda path: path.stem)
def test_stand_in_prints_what_the_real_tool_printed(path, logs):
    real = path.read_text()
    code, log = logs[path.name]
    assert code == int(re.search(r"^# exit: (\d+)", real, re.M)[1])
    assert shape(log) == shape(real.removesuffix("Aborted\n"))  # the shell's word


@pytest.mark.parametrize("name", STREAMS)
def test_stand_in_uses_the_same_streams(name, folder):
    done = run(folder, f"./benchmark_model {STREAMS[name]}")
    assert shape(done.stdout) == shape((GOLDEN / f"streams_{name}.stdout.txt").read_text())
    error = done.stderr.removesuffix("Aborted\n")  # of the shell
    assert shape(error) == shape((GOLDEN / f"streams_{name}.stderr.txt").read_text())


@pytest.mark.parametrize("plain", [False, True], ids=["xnnpack", "builtin"])
@pytest.mark.parametrize("name, data", [("cnn_f32", "x8"), ("cnn_int8_floatio", "x8"), ("cnn_int8_io", "x8_i8")])
def test_output_file_holds_the_interpreters_bytes(name, data, plain, folder):
    flag = "--use_xnnpack=false" if plain else ""
    run(folder, f"./benchmark_model --graph={name}.tflite --input_layer=image --input_layer_shape=8,32,32,3 {flag} "
                f"--input_layer_value_files=image:{data}.bin --output_filepath=y.bin {ONCE}")  # fmt: skip
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if plain else OpResolverType.AUTO
    host = Interpreter(str(folder / f"{name}.tflite"), experimental_op_resolver_type=resolver)
    entry = host.get_input_details()[0]
    host.resize_tensor_input(entry["index"], (8, 32, 32, 3))
    host.allocate_tensors()
    content = np.fromfile(folder / f"{data}.bin", entry["dtype"]).reshape(8, 32, 32, 3)
    host.set_tensor(entry["index"], content)
    host.invoke()
    output = host.get_tensor(host.get_output_details()[0]["index"])
    assert len(np.unique(output)) > 3
    assert (folder / "y.bin").read_bytes() == output.tobytes()


def test_litert2_prints_no_timings_line_and_takes_no_input_files(folder):
    other = binary.make_binary(folder / "litert2", tool="litert2")
    binary.store(other, folder / "programs")
    log = run(folder, "./litert2 --graph=tiny.tflite --input_layer=image --num_runs=3 --min_secs=0").stdout
    assert "WARN: Unconsumed cmdline flags: --input_layer=image" in log and "BENCHMARK RESULTS" in log
    assert log.count("count=") == 2 and "Inference timings" not in log
