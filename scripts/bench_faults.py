"""Does android_bench survive what goes wrong with phones? Random faults on 4 emulated phones, and kills of the harness.

    .venv/bin/python scripts/bench_faults.py --mixes 50 --kills 10     # resumes; prints what it found

A mix is 1 to 4 random faults on random phones at random times, while 3 models are measured (latency and accuracy, 36
jobs) by a harness in a process of its own; then the faults are healed and the same command goes on. A kill is a SIGKILL
of the harness at a random time, and again the same command. Rows: scripts/results/bench_faults.jsonl; `wrong` lists
what should not be: the harness did not end; a job is doubled, is missing and nobody said so, or is missing in the
end; a phone without faults is not complete; processes, files, locks or settings are left behind.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from android_bench import bench, measure  # noqa: E402
from android_bench.command import Timing  # noqa: E402
from android_bench.settings import Wanted  # noqa: E402
from android_bench.store import Store  # noqa: E402

ROWS = ROOT / "scripts/results/bench_faults.jsonl"
MODELS = ("float32", "float16", "int8")
JOBS = 3 * len(MODELS)  # of a phone: latency twice, accuracy
LONGEST = 150  # seconds that a harness may take
HARNESS_SECONDS = 8  # about what an undisturbed one takes; faults and kills fall into them
KINDS = ("drop_push", "drop_shell", "gone", "gone_for_good", "unauthorized", "storage_full", "killed", "crash",
         "wrong_abi", "hang_benchmark", "no_output_file", "thermal_trip", "battery_garbage", "hang", "noise")


def harness(folder: str, port: int) -> int:
    """Measure everything in `folder` on all phones; what `android-bench run` does."""
    request = bench.Request(
        tuple(f"{folder}/{name}.tflite" for name in MODELS), output=f"{folder}/out", device=("all",),
        adb_server=(f"127.0.0.1:{port}",), benchmark_binary=(f"{folder}/bm64", f"{folder}/bm32"), repetitions=2,
        eval=f"{folder}/eval.npz", wait=5, wanted=Wanted(True, 40, fixed_performance=True),
        wishes=measure.Wishes(Timing(5, 0.2, 2, 1, 0), measure.Cooling(None, 0), grace_seconds=4),
    )  # fmt: skip
    try:
        bench.run(request, quiet=True)
    except (bench.Incomplete, RuntimeError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def draw(dice: random.Random) -> list[dict]:
    """The faults of a mix: on which phone, when, what and how."""
    options = {
        "drop_push": lambda: {"match": dice.choice(["", "bin/", "models/", "data/", "scripts/"])},
        "drop_shell": lambda: {"after": dice.choice([0, 0.05, 0.2]), "match": dice.choice(["", "nohup", "restore.sh"])},
        "gone": lambda: {"seconds": round(dice.uniform(0.3, 4), 1)},
        "gone_for_good": lambda: {"seconds": 10_000},
        "storage_full": lambda: dice.choice([{}, {"match": "nohup"}, {"match": "restore.sh"}]),
        "thermal_trip": lambda: {"status": dice.choice([2, 3, 4])},
        "hang": lambda: {"match": dice.choice(["", "nohup", "sha256sum", "dumpsys"])},
        "noise": lambda: {"megabytes": dice.choice([1, 20]), "match": dice.choice(["nohup", "dumpsys"])},
    }
    found = []
    for _ in range(dice.randint(1, 4)):
        kind = dice.choice(KINDS)
        found.append({"phone": dice.randrange(4), "seconds": round(dice.uniform(0, HARNESS_SECONDS), 1), "kind": kind,
                      "options": options.get(kind, dict)()})  # fmt: skip
    return found


@contextlib.contextmanager
def farm(shelf: Path):
    """Four fresh phones that a fresh adb server has connected to: (port, phones, function that connects them)."""
    from emulated_phone import personalities
    from emulated_phone.phone import EmulatedPhone
    from emulated_phone.server import AdbServer

    with tempfile.TemporaryDirectory(prefix="faults-") as place, AdbServer() as server, contextlib.ExitStack() as stack:
        for path in shelf.iterdir():
            os.link(path, Path(place, path.name))
        kinds = personalities.PIXEL, personalities.SAMSUNG, personalities.XIAOMI, personalities.TABLET
        phones = [stack.enter_context(EmulatedPhone(kind, Path(place, kind.name))) for kind in kinds]

        def connect():
            for phone in phones:
                phone.fault("gone", seconds=0)  # it is back
                for fault in (phone.root / "state/faults").iterdir():
                    fault.unlink()
            time.sleep(0.5)
            for phone in phones:
                server.run("disconnect", phone.address)
                if not server.connect(phone.address).startswith("connected"):
                    raise RuntimeError(f"{phone.serial} can't be connected")

        connect()
        yield place, server.port, phones, connect


def start(place: str, port: int) -> subprocess.Popen:
    log = open(Path(place, "log"), "ab")
    return subprocess.Popen(
        [sys.executable, __file__, "--harness", place, "--port", str(port)], stdin=subprocess.DEVNULL, stdout=log,
        stderr=log, env=os.environ | {"ANDROID_BENCH_CACHE": f"{place}/cache"},
    )  # fmt: skip


def end(process: subprocess.Popen, wrong: list[str]) -> int | None:
    try:
        return process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        wrong.append(f"did not end within {LONGEST} s")
        process.kill()
        process.wait()
        return None


def lines(place: str) -> dict[str, list[dict]]:
    """What jobs.jsonl holds, by the phones' serials."""
    path, found = Path(place, "out/jobs.jsonl"), collections.defaultdict(list)
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):  # torn by a kill
            found[json.loads(line)["serial"]].append(json.loads(line))
    return found


def settings(phones) -> list[dict]:
    return [phone.settings() | {"fixed_performance": phone.settings()["fixed_performance"] or "false"}
            for phone in phones]  # fmt: skip


def after(place: str, phones, before: list[dict], gone: set[int] = frozenset()) -> list[str]:
    """What should not be, at the end of a harness; of phones that are not gone."""
    wrong = []
    for number, (phone, old, new) in enumerate(zip(phones, before, settings(phones), strict=True)):
        if number not in gone:
            changed = sorted(name for name in old if old[name] != new[name])
            wrong += [f"{phone.serial}: settings changed: {changed}"] if changed else []
            wrong += [f"{phone.serial}: left: {phone.leftovers()}"] if any(phone.leftovers()) else []
        keys = [(line["id"], line["kind"], line["repetition"]) for line in lines(place)[phone.serial]]
        wrong += [f"{phone.serial}: doubled"] if len(keys) > len(set(keys)) else []
    wrong += ["locks left"] if list(Path(place, "cache").rglob("*.lock")) else []
    return wrong


def mix(shelf: Path, number: int, seed: int) -> dict:
    faults = draw(random.Random(f"{seed} mix {number}"))
    wrong, begin = [], time.monotonic()
    with farm(shelf) as (place, port, phones, connect):
        before = settings(phones)
        process = start(place, port)
        timers = [threading.Timer(f["seconds"], phones[f["phone"]].fault,
                                  [f["kind"].removesuffix("_for_good")], f["options"]) for f in faults]  # fmt: skip
        for timer in timers:
            timer.daemon = True
            timer.start()
        code = end(process, wrong)
        seconds = time.monotonic() - begin
        for timer in timers:
            timer.cancel()
            timer.join()
        gone = {f["phone"] for f in faults if f["kind"] == "gone_for_good"}
        waiting = sum(len(list((phone.root / "state/faults").iterdir())) for phone in phones)
        wrong += after(place, phones, before, gone)
        found = lines(place)
        left = sum(JOBS - len(found[phone.serial]) for phone in phones)
        failed = sum(bool(line["error"]) for phone in found.values() for line in phone)
        if left + failed and code == 0:
            wrong.append(f"{left} jobs left and {failed} failed, but the exit code is 0")
        for index in set(range(4)) - {f["phone"] for f in faults}:
            if [line["error"] for line in found[phones[index].serial]] != [None] * JOBS:
                wrong.append(f"{phones[index].serial}: no fault, but not complete")
        connect()
        wrong += resume(place, port, phones, before)
        again = [f for phone in lines(place).values() for line in phone for f in line["failures"]]
        log = Path(place, "log").read_text()[-2000:]
    return {"kind": "mix", "number": number, "faults": faults, "not_taken": waiting, "exit": code, "left": left,
            "failed": failed, "failures": again, "seconds": round(seconds, 1), "wrong": wrong,
            "log": log if wrong else None}  # fmt: skip


def kill(shelf: Path, number: int, seed: int) -> dict:
    wrong, wait = [], random.Random(f"{seed} kill {number}").uniform(1, HARNESS_SECONDS)
    with farm(shelf) as (place, port, phones, connect):
        before = settings(phones)
        process = start(place, port)
        time.sleep(wait)
        running = process.poll() is None
        process.kill()
        process.wait()
        done = sum(map(len, lines(place).values()))
        changed = settings(phones) != before
        wrong += resume(place, port, phones, before)
        log = Path(place, "log").read_text()[-2000:]
    return {"kind": "kill", "number": number, "seconds": round(wait, 1), "running": running, "done": done,
            "settings_changed": changed, "wrong": wrong, "log": log if wrong else None}  # fmt: skip


def resume(place: str, port: int, phones, before: list[dict]) -> list[str]:
    """The same command again; what should not be."""
    wrong, old = [], lines(place)
    end(start(place, port), wrong)
    new = lines(place)
    for phone in phones:
        if len(new[phone.serial]) != JOBS:
            wrong.append(f"{phone.serial}: {len(new[phone.serial])} of {JOBS} jobs after resuming")
        if any(line not in new[phone.serial] for line in old[phone.serial]):
            wrong.append(f"{phone.serial}: lines were lost")
    return wrong + after(place, phones, before)


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


def summary(rows: list[dict]) -> str:
    mixes, kills = ([row for row in rows if row["kind"] == kind] for kind in ("mix", "kill"))
    planted = collections.Counter(fault["kind"] for row in mixes for fault in row["faults"])
    bad = [row for row in rows if row["wrong"]]
    return "\n".join([
        f"{len(mixes)} mixes of {sum(planted.values())} faults ({sum(row['not_taken'] for row in mixes)} found nothing "
        f"to spoil) over 4 phones and {4 * JOBS * len(mixes)} jobs:",
        f"  {sum(len(row['failures']) for row in mixes)} attempts failed, {sum(row['failed'] for row in mixes)} jobs "
        f"were recorded as failed, {sum(row['left'] for row in mixes)} left to the next run; longest run "
        f"{max((row['seconds'] for row in mixes), default=0)} s",
        f"  {', '.join(f'{kind} {count}' for kind, count in planted.most_common())}",
        f"{len(kills)} kills of the harness, {sum(row['running'] for row in kills)} while it ran, "
        f"{sum(row['settings_changed'] for row in kills)} with changed settings, after "
        f"{sorted(row['done'] for row in kills)} of {4 * JOBS} jobs",
        f"wrong: {len(bad)} of {len(rows)}",
        *(f"  {row['kind']} {row['number']}: {'; '.join(row['wrong'])}" for row in bad),
    ])  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixes", type=int, default=50)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--harness", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.harness:
        return harness(given.harness, given.port)
    store = Store(given.rows, ("kind", "number"))
    todo = [("mix", mix, number) for number in range(given.mixes)] + [("kill", kill, n) for n in range(given.kills)]
    with tempfile.TemporaryDirectory(prefix="faults-shelf-") as shelf:
        make_shelf(Path(shelf))
        for kind, run, number in todo:
            if (kind, number) not in store:
                row = run(Path(shelf), number, given.seed)
                store.append(row)
                print(kind, number, "; ".join(row["wrong"]) or "ok", flush=True)
    rows = store.read()
    print(summary(rows))
    return int(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
