"""Does android_bench survive what goes wrong with phones? Random faults on 4 emulated phones, and kills of the harness.

    .venv/bin/python scripts/bench_faults.py --mixes 50 --kills 10     # resumes; prints what it found

A mix is 1 to 4 random faults on random phones at random times, while a harness in a process of its own measures 3
models (36 jobs: latency twice, accuracy); then the faults are healed and the same command goes on. A kill is a SIGKILL
of the harness at a random time, and the same command again. Rows: scripts/results/bench_faults.jsonl; `wrong` lists
what should not be: the harness does not end; a job is doubled, lost, missing with no word said, or still missing after
the second run; a phone without a fault is not complete; processes, files, locks or changed settings are left behind.
"""

import argparse
import collections
import contextlib
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench_faults_farm import JOBS, LONGEST, ROOT, Farm, end, make_shelf

from android_bench.store import Store

ROWS = ROOT / "scripts/results/bench_faults.jsonl"
SPAN = 8  # seconds, about what an undisturbed one takes; faults and kills fall into them
KINDS = ("drop_push", "drop_shell", "gone", "gone_for_good", "unauthorized", "storage_full", "killed", "crash",
         "wrong_abi", "hang_benchmark", "no_output_file", "thermal_trip", "battery_garbage", "hang", "noise")


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
    kinds = [dice.choice(KINDS) for _ in range(dice.randint(1, 4))]
    return [{"kind": kind, "phone": dice.randrange(4), "seconds": round(dice.uniform(0, SPAN), 1),
             "options": options.get(kind, dict)()} for kind in kinds]  # fmt: skip


def mix(farm: Farm, dice: random.Random) -> dict:
    faults, begin, process = draw(dice), time.monotonic(), farm.start()
    timers = []
    for fault in faults:
        plant, kind = farm.phones[fault["phone"]].fault, fault["kind"].removesuffix("_for_good")
        timers.append(threading.Timer(fault["seconds"], plant, [kind], fault["options"]))
        timers[-1].start()
    code, seconds = end(process), time.monotonic() - begin
    for timer in timers:
        timer.cancel()
        timer.join()
    wrong = [] if code is not None else [f"did not end within {LONGEST} s"]
    wrong += farm.wrong({fault["phone"] for fault in faults if fault["kind"] == "gone_for_good"})
    lines = farm.lines()
    errors = [line["error"] for phone in lines.values() for line in phone if line["error"]]
    left = 4 * JOBS - sum(map(len, lines.values()))
    said = (farm.place / "log").read_text()
    silent = [phone.serial for phone in farm.phones if len(lines[phone.serial]) < JOBS and phone.address not in said]
    wrong += [f"{len(errors)} failed, {silent} left, and no word said"] if code == 0 and (errors or silent) else []
    for number in set(range(4)) - {fault["phone"] for fault in faults}:
        if [line["error"] for line in lines[farm.phones[number].serial]] != [None] * JOBS:
            wrong.append(f"{farm.phones[number].serial}: had no fault, but is not complete")
    return {"faults": faults, "exit": code, "seconds": round(seconds, 1), "errors": errors, "left": left,
            "failures": [words for phone in lines.values() for line in phone for words in line["failures"]],
            "not_taken": farm.heal(), "wrong": wrong + farm.go_on()}  # fmt: skip


def kill(farm: Farm, dice: random.Random) -> dict:
    seconds, process = round(dice.uniform(1, SPAN), 1), farm.start()
    time.sleep(seconds)
    running = process.poll() is None
    process.kill()
    process.wait()
    return {"seconds": seconds, "running": running, "done": sum(map(len, farm.lines().values())),
            "settings_changed": farm.settings() != farm.before, "wrong": farm.go_on()}  # fmt: skip


def summary(rows: list[dict]) -> str:
    mixes, kills = ([row for row in rows if row["trial"] == trial] for trial in ("mix", "kill"))
    planted = collections.Counter(fault["kind"] for row in mixes for fault in row["faults"])
    bad = [row for row in rows if row["wrong"]]
    return "\n".join([
        f"{len(mixes)} mixes, {4 * JOBS * len(mixes)} jobs, {sum(planted.values())} faults "
        f"({sum(row['not_taken'] for row in mixes)} came too late):",
        f"  {', '.join(f'{kind} {count}' for kind, count in planted.most_common())}",
        f"  {sum(len(row['failures']) for row in mixes)} attempts failed; "
        f"{sum(len(row['errors']) for row in mixes)} jobs recorded as failed, "
        f"{sum(row['left'] for row in mixes)} left to the next run; longest run "
        f"{max((row['seconds'] for row in mixes), default=0)} s",
        f"{len(kills)} kills, {sum(row['running'] for row in kills)} of them while the harness ran, "
        f"{sum(row['settings_changed'] for row in kills)} with changed settings, after "
        f"{', '.join(str(row['done']) for row in kills)} of {4 * JOBS} jobs",
        f"wrong: {len(bad)} of {len(rows)}",
        *(f"  {row['trial']} {row['number']}: {'; '.join(row['wrong'])}" for row in bad),
    ])  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixes", type=int, default=50)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, default=ROWS)
    given = parser.parse_args()
    store = Store(given.rows, ("trial", "number"))
    todo = [(mix, number) for number in range(given.mixes)] + [(kill, number) for number in range(given.kills)]
    with tempfile.TemporaryDirectory(prefix="faults-shelf-") as shelf:
        make_shelf(Path(shelf))
        for trial, number in todo:
            name = trial.__name__
            if (name, number) in store:
                continue
            with contextlib.ExitStack() as stack:
                farm = Farm(stack, Path(shelf))
                row = {"trial": name, "number": number} | trial(farm, random.Random(f"{given.seed} {name} {number}"))
                row["log"] = (farm.place / "log").read_text()[-2000:] if row["wrong"] else None
            store.append(row)
            print(name, number, "; ".join(row["wrong"]) or "ok", flush=True)
    print(summary(store.read()))
    return int(any(row["wrong"] for row in store.read()))


if __name__ == "__main__":
    sys.exit(main())
