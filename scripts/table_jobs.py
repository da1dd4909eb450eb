"""Job files of five lines, each run, then again from its resolved.yaml: what came of it, and are the bytes equal?

    nice -n 5 python scripts/table_jobs.py [--folder runs/jobs] [JOB ...]       resumes; JOB: a name in scripts/jobs

Rows go to scripts/results/jobs.jsonl, the table to jobs.md beside it and into the README.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import yaml
from readme_tables import into_readme

from android_bench.store import Store, write_file
from tfcompress import tasks
from tfcompress.job.folder import in_words, row_of, rows_of

JOBS = Path(__file__).parent / "jobs"
RESULTS = Path(__file__).parent / "results"
COLUMNS = ("job file", "metric, test data", "control", "what ships", "kB control", "kB file", "kB packed", "µs control",
           "µs", "stages that stayed", "minutes", "again: same bytes")  # fmt: skip


def made(name, folder):
    """The row of one job file."""
    for source, out in ((JOBS / f"{name}.yaml", folder / name),
                        (folder / name / "resolved.yaml", folder / f"{name}_again")):  # fmt: skip
        subprocess.run([sys.executable, "-m", "tfcompress.cli", "run", str(source), "-o", str(out)], check=True)
    job = yaml.safe_load((folder / name / "resolved.yaml").read_text())
    bench, again = (row_of(folder / one, "bench") for one in (name, f"{name}_again"))
    rows = rows_of(folder / name).read()
    kept = [row["stage"] for row in rows if row["kept"] and row["stage"] not in ("control", "convert", "bench")]
    return bench | {"job": name, "asked": (JOBS / f"{name}.yaml").read_text(), "task": job["job"]["task"], "kept": kept,
            "ships": row_of(folder / name, "convert")["why"], "versions": job["versions"],
            "seconds": round(sum(row.get("seconds", 0) for row in rows)), "again_sha256": again["sha256"]}


def table(rows):
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        same = "yes" if row["again_sha256"] == row["sha256"] else "**no**"
        cells = [f"`scripts/jobs/{row['job']}.yaml`", tasks.TASKS[row["task"]].metric, f"{row['control_test']:.4f}",
                 f"{row['test']:.4f}", *(f"{row[key] / 1e3:.1f}" for key in ("control_bytes", "bytes", "packed_bytes")),
                 f"{row['control_us']:.1f}", f"{row['us']:.1f}", ", ".join(map(in_words, row["kept"])),
                 f"{row['seconds'] / 60:.1f}", same]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", default=[path.stem for path in sorted(JOBS.glob("*.yaml"))])
    parser.add_argument("--folder", default="runs/jobs")
    options = parser.parse_args()
    store = Store(RESULTS / "jobs.jsonl", key=("job",))
    for name in options.jobs:
        if (name,) not in store:
            store.append(made(name, Path(options.folder)))
        write_file(RESULTS / "jobs.md", table(store.read()).encode())
        into_readme("jobs", table(store.read()))
    print(table(store.read()))
