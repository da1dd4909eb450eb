"""Emulated phones behind an adb server of their own, with programs for them and a cache folder of their own."""

import contextlib
import dataclasses
import os
from pathlib import Path

from emulated_phone.binary import make_binary
from emulated_phone.personalities import ARM32
from emulated_phone.phone import EmulatedPhone
from emulated_phone.server import AdbServer

from android_bench.bench import Request, run
from android_bench.command import Timing
from android_bench.measure import Cooling, Wishes
from android_bench.result import read_rows

QUICK = Wishes(Timing(runs=5, min_seconds=0, max_seconds=5, warmup_runs=1, warmup_seconds=0), Cooling(None, 0))


@dataclasses.dataclass(frozen=True)
class Farm:
    root: Path
    server: AdbServer
    phones: tuple[EmulatedPhone, ...]
    binaries: tuple[str, ...]  # for 64-bit ARM, for 32-bit ARM

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def request(self, paths, output, **options) -> Request:
        """One quick repetition on all phones, unless told otherwise."""
        options = {"device": ("all",), "repetitions": 1, "wait": 5, "wishes": QUICK,
                   "benchmark_binary": self.binaries} | options  # fmt: skip
        return Request(tuple(map(str, paths)), output=str(output), adb_server=(self.address,), **options)

    def measure(self, paths, output, **options) -> list:
        """The rows of such a request."""
        run(self.request(paths, output, **options), quiet=True)
        return read_rows(output)


@contextlib.contextmanager
def farm(root: Path, *kinds, **options):
    """Phones of these kinds, connected; `options` are EmulatedPhone's."""
    before = os.environ.get("ANDROID_BENCH_CACHE")
    os.environ["ANDROID_BENCH_CACHE"] = str(root / "cache")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(AdbServer())
        phones = tuple(stack.enter_context(EmulatedPhone(kind, root / f"phone{number}", **options))
                       for number, kind in enumerate(kinds))  # fmt: skip
        for phone in phones:
            server.connect(phone.address)
        programs = make_binary(root / "benchmark_model"), make_binary(root / "benchmark_model_arm", ARM32)
        try:
            yield Farm(root, server, phones, tuple(map(str, programs)))
        finally:
            os.environ.pop("ANDROID_BENCH_CACHE")
            if before is not None:
                os.environ["ANDROID_BENCH_CACHE"] = before
