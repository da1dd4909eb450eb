"""Kills the tiny study with SIGKILL at random moments, and compares its rows with those of a run in peace.

    python scripts/crash_study.py [--kills 10] [--seed 0] [--ids C0,P70,...]   (default: all 18 cells)
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
run_study(StudyConfig.from_dict(json.loads(sys.argv[1])), sys.argv[2], workers=2)
"""


def start(config: dict, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CODE, json.dumps(config), str(folder)],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def rows(folder: Path) -> list[tuple]:
    """(id, sha256 of the file, bytes, accuracy, macro-F1) of each row, as they lie in the file, sorted."""
    found = map(json.loads, (folder / "rows.jsonl").read_text().splitlines())
    return sorted((r["id"], r["model_sha256"], r["raw_bytes"], r["accuracy"], r["macro_f1"]) for r in found)


def compare(config: dict, kills: int, seed: int, work: Path) -> bool:
    began = time.monotonic()
    if start(config, work / "peace").wait():
        raise SystemExit("the run in peace failed")
    took, killed, rng = time.monotonic() - began, 0, random.Random(seed)
    print(f"in peace: {took:.0f} s, {len(rows(work / 'peace'))} rows", flush=True)
    while True:
        study = start(config, work / "killed")
        # importing takes some seconds; then kills fall anywhere: training, converting, appending, measuring
        pause = rng.uniform(5, 5 + 2 * took / max(1, kills)) if killed < kills else None
        try:
            code = study.wait(pause)
            print(f"ended with code {code} after {killed} kills", flush=True)
            break
        except subprocess.TimeoutExpired:
            os.kill(study.pid, signal.SIGKILL)
            study.wait()
            killed += 1
            lines = {name: (work / "killed" / name) for name in ("variants.jsonl", "rows.jsonl")}
            counts = {name: len(p.read_bytes().splitlines()) if p.exists() else 0 for name, p in lines.items()}
            print(f"kill {killed} after {pause:.1f} s: {counts}", flush=True)
    same = rows(work / "peace") == rows(work / "killed")
    print(f"{'the same' if same else 'DIFFERENT'} {len(rows(work / 'killed'))} rows after {killed} kills")
    return same and code == 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ids", default="", help="cells to make, by comma; default: all")
    options = parser.parse_args()
    from tfcompress.study.presets import PRESETS

    tiny = PRESETS["tiny"].to_dict() | {"only": [id for id in options.ids.split(",") if id]}
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        sys.exit(not compare(tiny, options.kills, options.seed, Path(folder)))
