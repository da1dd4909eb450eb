"""A job that is killed 100 times, at random, ends as one that never was: the same .tflite, to the last bit.

    nice -n 5 python scripts/bench_kills.py [--kills 100] [--seed 0] [--folder /tmp/kills]

The job (392 cars, all stages) is run once untouched. Then, again and again, it is started in another folder and its
process group gets SIGKILL after a random time, until so many kills have hit it; a job that ends before it is hit is
compared, and begun anew. Rows go to scripts/results/bench_kills.jsonl: where each kill hit, and how many whole runs
with the same bytes came before it. The same command goes on.
"""

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml

from android_bench.store import Store
from tfcompress import tasks
from tfcompress.job import plan, spec
from tfcompress.job.folder import rows_of

ROWS = Path(__file__).parent / "results" / "bench_kills.jsonl"
LEAST = 2.0  # seconds: Python has started


def main(options):
    place = Path(options.folder)
    place.mkdir(parents=True, exist_ok=True)
    store = Store(ROWS, key=("number",))
    if not (place / "job.yaml").exists():
        resolved = plan.resolve(spec.Job("regression", "auto_mpg"), tasks.load("regression", "auto_mpg"))
        plan.write(resolved, place / "job.yaml")
    started = time.monotonic()
    subprocess.run(command(place / "job.yaml", place / "whole"), check=True)
    whole, seconds = sha256(place / "whole"), time.monotonic() - started
    rng = np.random.default_rng(options.seed)
    times = rng.uniform(LEAST, max(options.longest, LEAST + 1), options.kills)
    for number in range(len(store.read()), options.kills):
        row = {"number": number, "after_seconds": round(float(times[number]), 2)}
        while not killed(place, row):
            row["whole_runs"] = row.get("whole_runs", 0) + 1
            if sha256(place / "killed") != whole:
                raise SystemExit(f"Kill {number}: {place / 'killed'} holds other bytes than {place / 'whole'}.")
            shutil.rmtree(place / "killed")
        store.append(row)
        print(row, flush=True)
    subprocess.run(command(place / "job.yaml", place / "killed"), check=True)
    same = sha256(place / "killed") == whole
    resolved = yaml.safe_load((place / "whole" / "resolved.yaml").read_text())
    runs = 1 + sum(row.get("whole_runs", 0) for row in store.read())
    kept = [stage["stage"] for stage in resolved["stages"] if stage["kept"]]
    print(f"{options.kills} kills, {runs} whole runs between them, all with SHA-256 {whole}: {same}; stages kept: "
          f"{', '.join(kept)}; untouched: {seconds:.0f} s")
    return 0 if same else 1


def killed(place, row):
    """Start the job, kill it after the row's seconds; False if it had ended by then. The row tells where it was."""
    child = subprocess.Popen(command(place / "job.yaml", place / "killed"), stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    try:
        code = child.wait(row["after_seconds"])
        if code:
            raise SystemExit(f"The job ended with exit code {code}. Run it by hand: {' '.join(child.args)}")
        return False
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    rows = rows_of(place / "killed").read()
    row["behind"] = rows[-1]["stage"] if rows else "nothing"
    row["in_training"] = any((place / "killed").glob("backup_*.npz"))
    return True


def command(job, out):
    return [sys.executable, "-m", "tfcompress.cli", "run", str(job), "-o", str(out)]


def sha256(folder):
    return hashlib.sha256((folder / "model.tflite").read_bytes()).hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--longest", type=float, default=30.0, help="seconds before a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="/tmp/kills")
    sys.exit(main(parser.parse_args()))
