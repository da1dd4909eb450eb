"""What the harness adds: 18 files on four emulated phones whose benchmark_model sleeps instead of computing.

    python scripts/bench_harness.py [--pace 1.5] [--files 18]

Prints (and appends to scripts/results/bench_harness.jsonl) the seconds of all phones in parallel relative to the
longest phone's own, and the harness's seconds per job. A phone's own time is what its processes sleep: a job is a run
of two processes (times, then memory) of `pace` seconds each; 1.5 is what benchmark_model's own defaults take. The ratio
to what the longest phone takes alone, harness included, is given too. Files are pushed before the clock starts; setting
the phones up and the report are in.
"""

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests"))

from emulated_phone.binary import make_binary  # noqa: E402
from emulated_phone.personalities import ARM32, PIXEL, SAMSUNG, TABLET, XIAOMI  # noqa: E402
from emulated_phone.phone import EmulatedPhone  # noqa: E402
from emulated_phone.server import AdbServer  # noqa: E402

from android_bench import bench, measure  # noqa: E402
from android_bench.command import Timing  # noqa: E402

PROCESSES = 2  # of a job: the timed one, and the one for memory
RESULTS = TOP / "scripts" / "results" / "bench_harness.jsonl"


def seconds(request: bench.Request, folder: Path, device: str) -> float:
    """Wall time of all jobs on `device`."""
    started = time.perf_counter()
    bench.run(dataclasses.replace(request, output=str(folder), device=(device,)), quiet=True)
    return time.perf_counter() - started


def measure_harness(pace: float, files: int, work: Path) -> dict:
    models = [work / f"m{number}.tflite" for number in range(files)]
    for number, path in enumerate(models):
        path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(1000) + str(number).encode())  # nothing will compute it
    with AdbServer() as server:
        phones = [EmulatedPhone(kind, work / kind.name, pace=pace) for kind in (PIXEL, SAMSUNG, XIAOMI, TABLET)]
        try:
            for phone in phones:
                phone.start()
                server.connect(phone.address)
            binaries = make_binary(work / "arm64"), make_binary(work / "arm", ARM32)
            request = bench.Request(
                tuple(map(str, models)), adb_server=(f"127.0.0.1:{server.port}",), repetitions=1,
                benchmark_binary=tuple(map(str, binaries)),
                wishes=measure.Wishes(Timing(runs=5, min_seconds=0, max_seconds=60), measure.Cooling(None, 0)),
            )  # fmt: skip
            push = dataclasses.replace(request, wishes=measure.Wishes(Timing(1, 0, 1), measure.Cooling(None, 0)))
            for phone in phones:
                phone.pace = 0.0
            seconds(push, work / "push", "all")
            for phone in phones:
                phone.pace = pace
            alone = {phone.personality.model: seconds(request, work / phone.serial, phone.address) for phone in phones}
            together = seconds(request, work / "all", "all")
        finally:
            for phone in phones:
                phone.stop()
    own = PROCESSES * pace * files
    return {
        "pace_seconds": pace, "jobs": files * len(phones), "alone_seconds": {k: round(v, 2) for k, v in alone.items()},
        "together_seconds": round(together, 2), "together_to_own": round(together / own, 3),
        "together_to_longest_alone": round(together / max(alone.values()), 3),
        "harness_seconds_per_job": round(max((v / files - PROCESSES * pace) for v in alone.values()), 3),
        "harness_seconds_per_job_together": round(together / files - PROCESSES * pace, 3),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pace", type=float, default=1.5, help="seconds that each process sleeps")
    parser.add_argument("--files", type=int, default=18)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        os.environ["ANDROID_BENCH_CACHE"] = str(Path(folder, "cache"))
        found = measure_harness(options.pace, options.files, Path(folder))
    with open(RESULTS, "a") as file:
        file.write(json.dumps(found) + "\n")
    print(json.dumps(found, indent=1))
    print(f"\nfour phones in parallel / what their processes sleep: {found['together_to_own']} (bar: 1.2); "
          f"/ the longest alone: {found['together_to_longest_alone']}")  # fmt: skip
    print(f"harness per job, push skipped: {found['harness_seconds_per_job']} s alone, "
          f"{found['harness_seconds_per_job_together']} s with four phones at once (bar: 1 s)")  # fmt: skip
