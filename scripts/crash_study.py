"""Kills the tiny study with SIGKILL at random moments, and compares its rows with those of a run in peace.

    python scripts/crash_study.py [--kills 10] [--seed 0] [--ray] [--ids C0,P70,...]   (default: all 18 cells)

The run in peace has one worker, the killed one two; `--ray` adds a run of two Ray workers.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CODE = """
import json, sys
from tfcompress.study.presets import StudyConfig
from tfcompress.study.run import run_study
run_study(StudyConfig.from_dict(json.loads(sys.argv[1])), sys.argv[2], **json.loads(sys.argv[3]))
"""


def start(config: dict, folder: Path, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CODE, json.dumps(config), str(folder), json.dumps(options)],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def rows(folder: Path) -> list[tuple]:
    """(id, sha256 of the file, bytes, accuracy, macro-F1) of each row, as they lie in the file, sorted."""
    found = map(json.loads, (folder / "rows.jsonl").read_text().splitlines())
    return sorted((r["id"], r["model_sha256"], r["raw_bytes"], r["accuracy"], r["macro_f1"]) for r in found)


def lines(folder: Path) -> int:
    """Lines on the disk: variants made and rows measured."""
    files = [folder / name for name in ("variants.jsonl", "rows.jsonl") if (folder / name).exists()]
    return sum(len(path.read_bytes().splitlines()) for path in files)


def kill_at(study: subprocess.Popen, folder: Path, more: int, pause: float) -> bool:
    """SIGKILL the study once it has written `more` lines and `pause` seconds have passed; False: it ended first."""
    goal = lines(folder) + more
    while study.poll() is None and lines(folder) < goal:
        time.sleep(0.05)
    try:
        study.wait(pause)
        return False
    except subprocess.TimeoutExpired:
        os.kill(study.pid, signal.SIGKILL)
        study.wait()
        return True


def compare(config: dict, kills: int, seed: int, ray: bool, work: Path) -> bool:
    if start(config, work / "peace", workers=1).wait():
        raise SystemExit("the run in peace failed")
    print(f"in peace, one worker: {len(rows(work / 'peace'))} rows", flush=True)
    kill(config, kills, seed, work)
    ends = [("the last start", "killed", start(config, work / "killed", workers=2).wait())]
    if ray:
        ends.append(("two Ray workers", "ray", start(config, work / "ray", workers=2, ray="local").wait()))
    fine = True
    for name, folder, code in ends:
        found = rows(work / folder)
        same = rows(work / "peace") == found
        print(f"{name} ended with {code}: {'the same' if same else 'DIFFERENT'} {len(found)} rows")
        fine = fine and same and code == 0
    return fine


def kill(config: dict, kills: int, seed: int, work: Path) -> None:
    """Start the study and kill it, again and again."""
    rng, total = random.Random(seed), 2 * len(rows(work / "peace"))
    for number in range(1, kills + 1):
        left = total - lines(work / "killed")
        more = rng.randint(0, max(0, min(left - 1, 2 * left // (kills - number + 2))))
        pause = rng.uniform(0, min(8, left / 2))
        if not kill_at(start(config, work / "killed", workers=2), work / "killed", more, pause):
            raise SystemExit(f"the study ended before kill {number}: try another --seed")
        print(f"kill {number}, {pause:.1f} s after line {lines(work / 'killed')} of {total}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ids", default="", help="cells to make, by comma; default: all")
    parser.add_argument("--ray", action="store_true", help="also with two Ray workers")
    options = parser.parse_args()
    from tfcompress.study.presets import PRESETS

    tiny = PRESETS["tiny"].to_dict() | {"only": [id for id in options.ids.split(",") if id]}
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        sys.exit(not compare(tiny, options.kills, options.seed, options.ray, Path(folder)))
