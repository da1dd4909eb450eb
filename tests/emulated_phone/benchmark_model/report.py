"""The tool's last lines, and its result file."""

import os
import resource
import struct

from emulated_phone.benchmark_model import profile
from emulated_phone.benchmark_model.log import error, info, runtime

NOTE = ("Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual "
        "memory footprint of the model at runtime. Take the information at your discretion.")  # fmt: skip
PLACE = "./litert/tools/benchmark_litert_model.h"



def finish(flags, tool, init_us, warm_up, timed, init_kb, overall_kb, interpreter) -> None:
    if tool == "litert2":
        return _litert2(flags, init_us, warm_up, timed, init_kb, overall_kb)
    first = warm_up.times[0] if warm_up.count else 0
    info(f"Inference timings in us: Init: {init_us}, First inference: {first}, Warmup (avg): {warm_up.mean:g}, "
         f"Inference (avg): {timed.mean:g}")  # fmt: skip
    info(NOTE)
    info(f"Memory footprint delta from the start of the tool (MB): init={init_kb / 1024:g} "
         f"overall={overall_kb / 1024:g}")  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if flags["report_peak_memory_footprint"]:
        _peak(peak)
    if flags["enable_op_profiling"]:
        profile.show(flags, interpreter, timed)
    if flags["result_file_path"]:
        peak = peak if flags["report_peak_memory_footprint"] else 0.0
        _save(flags, init_us, first, warm_up, timed, init_kb, overall_kb, peak)


def _peak(megabytes: float) -> None:
    info(f"Overall peak memory footprint (MB) via periodic monitoring: {megabytes:g}")
    with open("/proc/self/status") as file:
        kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in file)
                     if rest.endswith("kB\n")}  # fmt: skip
    info("Memory status at the end of exeution:")
    info(f"- VmRSS              : {kilobytes['VmRSS'] // 1024} MB")
    info(f"+ RssAnnon           : {kilobytes['RssAnon'] // 1024} MB")
    info(f"+ RssFile + RssShmem : {(kilobytes['RssFile'] + kilobytes['RssShmem']) // 1024} MB")


def _save(flags, init_us, first, warm_up, timed, init_kb, overall_kb, peak_mb) -> None:
    """A BenchmarkResult message: latency 2, memory 3, misc 4."""
    path, size = flags["result_file_path"], os.path.getsize(flags["graph"]) / 1e6
    us = (timed.mean, timed.ordered[0], timed.ordered[-1], timed.std, timed.percentile(50), timed.percentile(5),
          timed.percentile(95), init_us, first, warm_up.mean) if timed.count else (0.0,) * 10  # fmt: skip
    latency = b"".join(_float(number, value / 1e3) for number, value in enumerate(us, 1))
    memory = _varint(1, max(0, init_kb)) + _varint(2, max(0, overall_kb)) + _float(3, peak_mb)
    speed = size / (timed.mean / 1e6) if timed.mean else 0.0
    misc = _float(1, size) + _varint(2, timed.count) + _varint(3, warm_up.count) + _float(4, speed)
    content = b"".join(bytes((number << 3 | 2, len(part))) + part
                       for number, part in ((2, latency), (3, memory), (4, misc)))  # fmt: skip
    try:
        with open(path, "wb") as file:
            info(f"Saving benchmark result to: {path}")
            file.write(content)
        info(f"Saved benchmark result to: {path}")
    except OSError:
        error(f"Failed to save benchmark result to: {path}")


def _float(number: int, value: float) -> bytes:
    return bytes((number << 3 | 5,)) + struct.pack("<f", value)


def _varint(number: int, value: int) -> bytes:
    found = bytearray((number << 3,))
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes(found) + bytes((value,))


def litert2_start(graph: str) -> None:
    """What LiteRT 2 says while it loads."""
    info(f"[litert/tools/benchmark_litert_model.cc:137] Loading model from: {graph}")
    runtime("[litert/core/environment.cc:29] Creating LiteRT environment with options")
    runtime("[litert/runtime/accelerators/auto_registration.cc:46] NPU accelerator could not be loaded and registered: "
            "kLiteRtStatusErrorInvalidArgument.", "WARNING")  # fmt: skip
    runtime("[litert/runtime/accelerators/auto_registration.cc:109] CPU accelerator registered.")
    runtime("[litert/runtime/compiled_model.cc:229] Applying compiler plugins...")


def _litert2(flags, init_us, warm_up, timed, init_kb, overall_kb) -> None:
    first = warm_up.times[0] if warm_up.count else 0
    info(f"[{PLACE}:72] \n========== BENCHMARK RESULTS ==========")
    size = os.path.getsize(flags["graph"]) / 1e6
    rows = [
        (73, "Model initialization:", f"{init_us / 1e3:.2f} ms"),
        (75, "Warmup (first):      ", f"{first / 1e3:.2f} ms"),
        (77, "Warmup (avg):        ", f"{warm_up.mean / 1e3:.2f} ms ({warm_up.count} runs)"),
        (79, "Inference (avg):     ", f"{timed.mean / 1e3:.2f} ms ({timed.count} runs)"),
        (83, "Inference (min):     ", f"{min(timed.times, default=0) / 1e3:.2f} ms"),
        (85, "Inference (max):     ", f"{max(timed.times, default=0) / 1e3:.2f} ms"),
        (87, "Inference (std):     ", f"{timed.std / 1e3:.2f}"),
        (94, "Throughput:          ", f"{size / (timed.mean / 1e6) if timed.mean else 0:.2f} MB/s"),
    ]
    for line, words, value in rows:
        info(f"[{PLACE}:{line}] {words} {value}")
    info(f"[{PLACE}:103] \nMemory Usage:")
    info(f"[{PLACE}:105] Init footprint:       {init_kb / 1024:.2f} MB")
    info(f"[{PLACE}:107] Overall footprint:    {overall_kb / 1024:.2f} MB")
    info(f"[{PLACE}:114] Peak memory usage not available. (peak_mem_mb <= 0)")
    info(f"[{PLACE}:117] ======================================\n")
