"""What benchmark_model saves when it is asked to: its result (`--result_file_path`) and its profile of the ops."""

from android_bench.logs import wire
from android_bench.logs.log_lines import LONGEST_LOG, LogError, number, printable
from android_bench.logs.parse import BenchmarkLog, Runs

_REGULAR_RUNS = "Operator-wise Profiling Info"
_TABLE = " Run Order ="


def parse_result_file(data: bytes) -> BenchmarkLog:
    """Read a BenchmarkResult protobuf: the log's numbers with more digits; where it ran is only in the log.

    >>> parse_result_file(bytes.fromhex("1205 0d0000803f 2202 1003".replace(" ", ""))).timed.mean_us
    1000.0

    Raises:
        LogError: no such message, or a cut one.
    """
    result = wire.fields(data)
    latency, memory, misc = (wire.message(result, field) for field in (2, 3, 4))
    count, warmups = _whole(misc, 2), _whole(misc, 3)
    if not latency:
        raise LogError(f"Expected a BenchmarkResult with latencies. Received: {len(data)} bytes without them")
    mean, least, most, std, median, p5, p95, init, first, warmup_mean = (_us(latency, field) for field in range(1, 11))
    return BenchmarkLog(
        tool="tflite",
        init_us=init,
        first_us=first if warmups else None,
        warmup=Runs(warmups, mean_us=warmup_mean) if warmups else None,
        timed=Runs(count, None, least, most, mean, std, p5, median, p95) if count else None,
        memory_init_mb=_megabytes(memory, 1),
        memory_overall_mb=_megabytes(memory, 2),
        peak_memory_mb=_float(memory, 3),
        model_mb=_float(misc, 1),
    )


def parse_op_profile(text: str) -> dict[str, float]:
    """Op -> mean milliseconds a run, from a profile as CSV or as the table on stdout; in the order they run.

    Only the regular runs count, not the initialization. One op of several subgraphs is added up. Profiling slows the
    runs down: never take a latency from here.

    Raises:
        LogError: no str, or no op in it.
    """
    if not isinstance(text, str):
        raise LogError(f"A profile is a str. Received: {type(text).__name__}")
    milliseconds, inside, regular = {}, False, False
    for line in text[:LONGEST_LOG].split("\n"):
        line = line.rstrip()
        if _REGULAR_RUNS in line:
            regular = True
        elif line.startswith("=") or not line:
            inside = regular and _TABLE in line
        elif inside:
            # From the right: the type (1st column) has commas of its own; the name (last) has TABs in their place.
            columns = line.split("\t")[1:] if line.startswith("\t") else line.rsplit(", ", 7)
            value = number(columns[-6].strip()) if len(columns) == 8 else None
            if value is not None:
                name = printable(columns[-1].replace("\t", ","))
                milliseconds[name] = milliseconds.get(name, 0.0) + value
    if not milliseconds:
        raise LogError(f"Expected '{_REGULAR_RUNS} for Regular Benchmark Runs' and rows. Received: {text[:80]!r}")
    return milliseconds


def parse_op_profile_proto(data: bytes) -> dict[str, float]:
    """As `parse_op_profile`, from a file of `--op_profiling_output_mode=proto`.

    Raises:
        LogError: no such message, a cut one, or one without ops.
    """
    milliseconds = {}
    runtime = wire.message(wire.fields(data), 3)
    for subgraph in runtime.get(1, []):
        for op in wire.message({1: [subgraph]}, 1).get(3, []):
            op = wire.message({1: [op]}, 1)
            name, times = op.get(5, [b""])[-1], wire.message(op, 2)
            total, count = _whole(times, 8), _whole(times, 9)
            if isinstance(name, bytes) and total is not None and count:
                name = printable(name.decode(errors="replace"))
                milliseconds[name] = milliseconds.get(name, 0.0) + total / count / 1000
    if not milliseconds:
        raise LogError(f"Expected a profile of ops. Received: {len(data)} bytes without them")
    return milliseconds


def _whole(message: dict[int, list], field: int) -> int | None:
    value = message.get(field, [None])[-1]
    return value if isinstance(value, int) and value < 2**53 else None


def _float(message: dict[int, list], field: int) -> float | None:
    value = message.get(field, [None])[-1]
    return value if isinstance(value, float) and 0 <= value < 1e30 else None


def _us(message: dict[int, list], field: int) -> float | None:
    value = _float(message, field)
    return None if value is None else value * 1000


def _megabytes(message: dict[int, list], field: int) -> float | None:
    value = _whole(message, field)
    return value / 1024 if value else None
