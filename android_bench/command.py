"""The arguments of benchmark_model for what we want to know. Pure: settings in, a list of words out."""

import dataclasses
import re

DELEGATES = {
    "cpu": ("--use_xnnpack=true",),
    "builtin": ("--use_xnnpack=false",),
    "gpu": ("--use_gpu=true",),
    "gpu32": ("--use_gpu=true", "--gpu_precision_loss_allowed=false"),
    "nnapi": ("--use_nnapi=true",),
    "hexagon": ("--use_hexagon=true",),
}
LITERT2 = {
    "cpu": ("--use_cpu=true",),
    "gpu": ("--use_gpu=true", "--use_cpu=false"),
    "npu": ("--use_npu=true", "--use_cpu=false"),
}
ONE_RUN = ("--num_runs=1", "--min_secs=0", "--warmup_runs=0", "--warmup_min_secs=0")


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long a latency run goes on: until both `runs` and `min_seconds` are reached, but not beyond `max_seconds`."""

    runs: int = 50
    min_seconds: float = 1.0
    max_seconds: float = 150.0
    warmup_runs: int = 1
    warmup_seconds: float = 0.5

    def __post_init__(self):
        seconds = (self.min_seconds, self.max_seconds, self.warmup_seconds)
        if self.runs < 1 or self.warmup_runs < 0 or not all(0 <= value < float("inf") for value in seconds):
            raise ValueError(f"Expected runs >= 1, and warm-up and seconds >= 0. Received: {self}")
        if self.min_seconds > self.max_seconds:
            raise ValueError(f"Expected --min-seconds of at most --max-seconds. Received: {self.min_seconds:g} and "
                             f"{self.max_seconds:g}.")  # fmt: skip

    def flags(self) -> list[str]:
        return [
            f"--num_runs={self.runs}", f"--min_secs={self.min_seconds:g}", f"--max_secs={self.max_seconds:g}",
            f"--warmup_runs={self.warmup_runs}", f"--warmup_min_secs={self.warmup_seconds:g}",
        ]  # fmt: skip


def delegate_flags(delegate: str, tool: str = "tflite") -> list[str]:
    """The flags of a delegate: cpu (XNNPACK), builtin (plain kernels), gpu (float16 inside), gpu32, nnapi,
    nnapi:ACCELERATOR, hexagon, hexagon:/folder/on/the/phone (of its libraries),
    external:/path/on/the/phone.so[;key:value...]; of LiteRT 2's tool: cpu, gpu, npu.

    >>> delegate_flags("builtin")
    ['--use_xnnpack=false']
    >>> delegate_flags("nnapi:google-edgetpu")
    ['--use_nnapi=true', '--nnapi_accelerator_name=google-edgetpu']

    Raises:
        ValueError: an unknown delegate; the message lists the known ones.
    """
    known = LITERT2 if tool == "litert2" else DELEGATES
    if delegate in known:
        return list(known[delegate])
    kind, _, rest = delegate.partition(":")
    if tool == "tflite" and rest and kind == "nnapi":
        return ["--use_nnapi=true", f"--nnapi_accelerator_name={rest}"]
    if tool == "tflite" and rest and kind == "hexagon":
        return ["--use_hexagon=true", f"--hexagon_lib_path={rest}"]
    if tool == "tflite" and rest and kind == "external":
        path, _, options = rest.partition(";")
        return [f"--external_delegate_path={path}"] + ([f"--external_delegate_options={options}"] if options else [])
    more = "" if tool == "litert2" else ", nnapi:ACCELERATOR, external:/path.so"
    raise ValueError(f"Unknown delegate: {delegate!r}. Known: {', '.join(known)}{more}.")


def latency(binary: str, model: str, threads: int, delegate: str, timing: Timing, tool: str = "tflite") -> list[str]:
    """One timed run."""
    return [*_start(binary, model, threads, delegate, tool), *timing.flags()]


def memory(binary: str, model: str, threads: int, delegate: str, tool: str = "tflite") -> list[str]:
    """Three runs, few enough that the tool's own list of times weighs nothing."""
    few = Timing(runs=3, min_seconds=0, warmup_runs=1, warmup_seconds=0)
    return [*_start(binary, model, threads, delegate, tool), *few.flags(), "--report_peak_memory_footprint=true",
            "--memory_footprint_check_interval_ms=5"]  # fmt: skip


def outputs(
    binary: str, model: str, threads: int, delegate: str, inputs: list[tuple[str, tuple[int, ...]]]
) -> list[str]:
    """One run on the files x0, x1, ... of the folder it is started in, outputs in the file y; `inputs`: name, shape."""
    names = _layers([name for name, _ in inputs])
    return [
        *_start(binary, model, threads, delegate, "tflite"), *ONE_RUN,
        "--input_layer=" + ",".join(names),
        "--input_layer_shape=" + ":".join(",".join(map(str, shape)) for _, shape in inputs),
        "--input_layer_value_files=" + ",".join(f"{_escaped(name)}:x{k}" for k, name in enumerate(names)),
        "--output_filepath=y",
    ]  # fmt: skip


def _layers(names: list[str]) -> list[str]:
    """The layers' names, or stand-ins where the tool would split one: names are not checked, their order counts."""
    usable = len(set(names)) == len(names) and all(re.fullmatch(r"[\w./;-]+(:[0-9]+)?", name) for name in names)
    return names if usable else [f"input{index}" for index in range(len(names))]


def _escaped(name: str) -> str:
    return name.replace(":", "::")


def _start(binary: str, model: str, threads: int, delegate: str, tool: str) -> list[str]:
    return [binary, f"--graph={model}", f"--num_threads={threads}", *delegate_flags(delegate, tool)]
