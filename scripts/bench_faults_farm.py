"""Four emulated phones behind the real adb for bench_faults.py, and the harness that measures on them.

    python scripts/bench_faults_farm.py FOLDER PORT     # the harness, in a process of its own that can be killed
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from android_bench import bench, measure  # noqa: E402
from android_bench.command import Timing  # noqa: E402
from android_bench.settings import Wanted  # noqa: E402

MODELS = ("float32", "float16", "int8")
JOBS = 3 * len(MODELS)  # of a phone
LONGEST = 150  # seconds that a harness may take


def harness(folder: str, port: int) -> int:
    """Measure everything in `folder` on all phones, as `android-bench run` does."""
    request = bench.Request(
        tuple(f"{folder}/{name}.tflite" for name in MODELS), output=f"{folder}/out", device=("all",),
        adb_server=(f"127.0.0.1:{port}",), benchmark_binary=(f"{folder}/bm64", f"{folder}/bm32"), repetitions=2,
        eval=f"{folder}/eval.npz", wait=5, wanted=Wanted(True, 40, fixed_performance=True),
        wishes=measure.Wishes(Timing(5, 0.2, 2, 1, 0), measure.Cooling(None, 0), grace_seconds=4),
    )  # fmt: skip
    try:
        bench.run(request)
    except (bench.Incomplete, RuntimeError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


class Farm:
    """Four fresh phones behind a fresh adb server, and a folder for the harness."""

    def __init__(self, stack: contextlib.ExitStack, shelf: Path):
        from emulated_phone import personalities
        from emulated_phone.phone import EmulatedPhone
        from emulated_phone.server import AdbServer

        self.place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        self.server = stack.enter_context(AdbServer())
        for path in shelf.iterdir():
            os.link(path, self.place / path.name)
        kinds = personalities.PIXEL, personalities.SAMSUNG, personalities.XIAOMI, personalities.TABLET
        self.phones = [stack.enter_context(EmulatedPhone(kind, self.place / kind.name)) for kind in kinds]
        self.before = self.settings()
        self.heal()

    def heal(self) -> int:
        """Remove the faults that are left, get every phone back; how many faults there were."""
        planted = [path for phone in self.phones for path in (phone.root / "state/faults").iterdir()]
        for path in planted:
            path.unlink()
        for phone in self.phones:
            phone.fault("gone", seconds=0)
        time.sleep(0.3)
        for phone in self.phones:
            self.server.run("disconnect", phone.address)
            if not self.server.connect(phone.address).startswith("connected"):
                raise RuntimeError(f"{phone.serial} can't be connected")
        return len(planted)

    def start(self) -> subprocess.Popen:
        command = [sys.executable, __file__, str(self.place), str(self.server.port)]
        with open(self.place / "log", "ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                    env=os.environ | {"ANDROID_BENCH_CACHE": f"{self.place}/cache"})  # fmt: skip

    def lines(self) -> dict[str, list[dict]]:
        """What jobs.jsonl holds, by the phones' serials; a kill may leave a torn last line."""
        path, found = self.place / "out/jobs.jsonl", {phone.serial: [] for phone in self.phones}
        for line in path.read_text().split("\n")[:-1] if path.exists() else ():
            found[json.loads(line)["serial"]].append(json.loads(line))
        return found

    def settings(self) -> list[dict]:
        found = [phone.settings() for phone in self.phones]
        return [each | {"fixed_performance": each["fixed_performance"] or "false"} for each in found]

    def wrong(self, gone: set[int] = frozenset()) -> list[str]:
        """What should not be when a harness has ended; nothing is asked of phones that are gone."""
        found, now = [], self.settings()
        for number, phone in enumerate(self.phones):
            if number not in gone and now[number] != self.before[number]:
                found.append(f"{phone.serial}: settings changed: {now[number]}")
            if number not in gone and any(phone.leftovers()):
                found.append(f"{phone.serial}: left: {phone.leftovers()}")
            keys = [(line["id"], line["kind"], line["repetition"]) for line in self.lines()[phone.serial]]
            found += [f"{phone.serial}: doubled"] if len(keys) > len(set(keys)) else []
        return found + (["locks left"] if list(self.place.rglob("cache/locks/*")) else [])

    def go_on(self) -> list[str]:
        """The same command again, undisturbed; what should not be."""
        old, code = self.lines(), end(self.start())
        found = [] if code is not None else ["the second run did not end"]
        for serial, lines in self.lines().items():
            found += [f"{serial}: {len(lines)} of {JOBS} jobs in the end"] if len(lines) != JOBS else []
            found += [f"{serial}: lines were lost"] if any(line not in lines for line in old[serial]) else []
        return found + self.wrong()


def end(process: subprocess.Popen) -> int | None:
    """The exit code; None if it had to be killed."""
    try:
        return process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def make_shelf(shelf: Path) -> None:
    """Models, data and programs."""
    import numpy as np
    import small_files
    from emulated_phone.binary import make_binary

    for name in MODELS:
        (shelf / f"{name}.tflite").write_bytes(small_files.tflite(name))
    np.savez(shelf / "eval.npz", x=small_files.X, y=np.arange(len(small_files.X)) % 4)
    make_binary(shelf / "bm64")
    make_binary(shelf / "bm32", machine=40)


if __name__ == "__main__":
    sys.exit(harness(sys.argv[1], int(sys.argv[2])))
