"""This computer as a device: time a `.tflite` file with LiteRT in a child process, so that a crash harms nobody."""

import dataclasses
import hashlib
import importlib.metadata
import os
import platform
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from android_bench import child
from android_bench.result import Result
from android_bench.stats import outliers, summary


@dataclasses.dataclass(frozen=True)
class HostMeasurement:
    """What one file did on this computer; every field but `times_us` has the name it has in a `Result` row."""

    model_sha256: str
    latency_p5_us: float
    latency_p50_us: float
    latency_p95_us: float
    latency_mean_us: float
    latency_std_us: float
    latency_min_us: float
    latency_max_us: float
    first_run_us: float
    init_us: float
    runs: int
    threads: int
    delegate: str
    cpu_percent: float
    peak_memory_bytes: int
    facts: dict[str, Any]
    versions: dict[str, str]
    times_us: tuple[float, ...] = dataclasses.field(repr=False)

    def into(self, row: Result) -> Result:
        """The row with these numbers in it; the row's own facts and versions are kept beside the new ones."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["times_us"]
        for name in ("facts", "versions"):
            fields[name] = (getattr(row, name) or {}) | fields[name]
        return row.replace(**fields)


def measure(
    path, *, threads: int = 1, runs: int = 50, min_seconds: float = 1.0, warmup: int = 5,
    warmup_seconds: float = 0.0, max_seconds: float = 30.0, xnnpack: bool = True, inputs=None,
    stop: threading.Event | None = None,
) -> HostMeasurement:  # fmt: skip
    """Time single runs of a `.tflite` file.

    As in LiteRT's benchmark_model: runs go on until there are `runs` of them and `min_seconds` have passed, but not
    beyond `max_seconds`; so does the warm-up before them, by `warmup` and `warmup_seconds`. Only the run itself is
    timed (no input copy); Python adds about 1 us to each. CPU percent is process CPU time / wall time, 100 = one core.
    Peak memory is that of the child process, some 60 MB of it Python; `facts["memory_before_load_bytes"]` tells how
    much.

    Args:
        path: the `.tflite` file.
        threads: threads that LiteRT may use.
        xnnpack: False takes the plain built-in kernels.
        inputs: arrays of one run, batch axis included: one, a list in the file's order, or a dict by name. By default
            random numbers in a batch of one: 0..1 for floats, the whole range for int8, 0 for indices.
        stop: once it is set, the child is killed and `Stopped` raised.

    Raises:
        ValueError: no such file, not a `.tflite`, inputs that don't fit.
        RuntimeError: LiteRT refuses the file, the child was killed by a signal, or took far longer than allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"Expected a .tflite file. Received: {path}, which is not a file; check the path.")
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise ValueError(f"Expected a .tflite file (TFL3 at byte 4). Received: {path}, {len(content)} bytes.")
    if threads < 1 or runs < 1 or min(warmup, warmup_seconds) < 0 or not 0 <= min_seconds <= max_seconds:
        raise ValueError(
            "Expected threads >= 1, runs >= 1, warm-up >= 0 and 0 <= min_seconds <= max_seconds. Received: "
            f"{threads=}, {runs=}, {warmup=}, {warmup_seconds=}, {min_seconds=}, {max_seconds=}"
        )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    job = dict(path=str(path.resolve()), threads=threads, runs=runs, min_seconds=min_seconds, warmup=warmup,
               warmup_seconds=warmup_seconds, max_seconds=max_seconds, xnnpack=xnnpack)  # fmt: skip
    found = child.in_child("host", job, named(inputs), timeout=120 + 4 * max_seconds, stop=stop)[0]
    times = np.array(found.pop("times_ns")) / 1e3
    numbers = {f"latency_{name}_us": value for name, value in summary(times).items()}
    facts = computer() | {"load_average": load, "outlier_runs": int(outliers(times).sum())} | found.pop("facts")
    sha256 = hashlib.sha256(content).hexdigest()
    return HostMeasurement(
        **numbers, **found, model_sha256=sha256, runs=len(times), threads=threads, facts=facts, times_us=tuple(times)
    )


def named(inputs) -> dict[str, np.ndarray]:
    """Arrays by name; a position in the file's order is a name of digits."""
    if inputs is None:
        return {}
    if not isinstance(inputs, dict):
        inputs = {str(k): a for k, a in enumerate(inputs if isinstance(inputs, list | tuple) else [inputs])}
    return {str(name): np.asarray(array) for name, array in inputs.items()}


def computer() -> dict[str, Any]:
    """The processor's name, the cores this process may use, the frequency governor: what a reader must know."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith(("model name", "Hardware"))]
        name = lines[0].partition(":")[2].strip() if lines else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cpu": name, "cores": cores, "system": platform.platform(terse=True),
        "governor": governor.read_text().strip() if governor.is_file() else None,
    }  # fmt: skip


def work(folder: str) -> None:
    """The child's part of `measure`."""
    child.serve(folder, _timed)


def _timed(job: dict, arrays: dict[str, np.ndarray]) -> dict:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    before = _memory("VmRSS")
    kernels = OpResolverType.AUTO if job["xnnpack"] else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    start = time.perf_counter_ns()
    interpreter = Interpreter(job["path"], num_threads=job["threads"], experimental_op_resolver_type=kernels)
    details = interpreter.get_input_details()
    feeds = feeds_for(details, arrays)
    for detail, feed in zip(details, feeds, strict=True):
        if tuple(detail["shape"]) != feed.shape:
            interpreter.resize_tensor_input(detail["index"], feed.shape)
    interpreter.allocate_tensors()
    init = time.perf_counter_ns() - start
    for detail, feed in zip(details, feeds, strict=True):
        interpreter.set_tensor(detail["index"], feed)
    clock, invoke = time.perf_counter_ns, interpreter.invoke
    deadline = clock() + job["max_seconds"] * 1e9
    start = clock()
    invoke()
    first = clock() - start
    warmed, warm = 0, clock() + job["warmup_seconds"] * 1e9
    while clock() < deadline and (warmed < job["warmup"] or clock() < warm):
        invoke()
        warmed += 1
    memory = _memory("VmHWM")  # before the list of times grows
    times = []
    cpu, begin = time.process_time_ns(), clock()
    enough = begin + job["min_seconds"] * 1e9
    while not times or (clock() < deadline and (len(times) < job["runs"] or clock() < enough)):
        start = clock()
        invoke()
        times.append(clock() - start)
    wall = clock() - begin
    cpu = time.process_time_ns() - cpu
    partitions = sum(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())
    return {
        "times_ns": times, "first_run_us": first / 1e3, "init_us": init / 1e3, "cpu_percent": 100 * cpu / wall,
        "peak_memory_bytes": memory, "delegate": "xnnpack" if partitions else "builtin",
        "facts": {"memory_before_load_bytes": before, "delegate_partitions": partitions, "warmup_runs": warmed},
        "versions": {name: importlib.metadata.version(name) for name in ("ai-edge-litert", "numpy")},
    }  # fmt: skip


def feeds_for(details, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """One array for each input, in its dtype."""
    if not arrays:
        return [_random(detail) for detail in details]
    feeds = []
    for index, detail in enumerate(details):
        name = detail["name"]
        keys = [key for key in arrays if key in (str(index), name) or name.endswith((f"_{key}:0", f"_{key}"))]
        if len(keys) != 1 or len(arrays) != len(details):
            names = [detail["name"] for detail in details]
            raise child.WrongInput(f"Expected one array for each input: {names}. Received: {sorted(arrays)}")
        array, shape = arrays[keys[0]], detail["shape_signature"]
        if array.ndim != len(shape) or any(w not in (-1, g) for w, g in zip(shape, array.shape, strict=True)):
            raise child.WrongInput(f"Input {name!r} takes {tuple(map(int, shape))} (-1: any). Received: {array.shape}")
        scale, zero = detail["quantization"]
        if scale and array.dtype != detail["dtype"]:
            limits = np.iinfo(detail["dtype"])
            array = np.clip(np.round(array / scale) + zero, limits.min, limits.max)
        feeds.append(np.ascontiguousarray(array, detail["dtype"]))
    return feeds


def _random(detail) -> np.ndarray:
    """A batch of one of random numbers that no kernel refuses."""
    shape, dtype = [int(n) for n in detail["shape"]], np.dtype(detail["dtype"])
    if any(n == -1 for n in detail["shape_signature"][1:]):
        raise child.WrongInput(
            f"Input {detail['name']!r} has the shape {detail['shape_signature'].tolist()}: -1 after the batch is a "
            "size that only you know. Give `inputs`, an array of the size that the device will see."
        )
    random = np.random.default_rng(0)
    if dtype.kind == "f":
        return random.random(shape).astype(dtype)
    if dtype.kind in "iu" and detail["quantization"][0]:
        limits = np.iinfo(dtype)
        return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    if dtype.kind in "iub":
        return np.zeros(shape, dtype)
    raise child.WrongInput(f"Input {detail['name']!r} takes {dtype}, which can't be made up. Give `inputs`.")


def _memory(field: str) -> int:
    """VmRSS or VmHWM of this process in bytes. (ru_maxrss starts at the parent's size on Linux.)"""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith(field + ":"))
        return int(line.split()[1]) * 1024
    import resource

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024
