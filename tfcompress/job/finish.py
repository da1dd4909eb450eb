"""The end of a job: the file that ships, packed and timed beside the control, its test score, and the report."""

import hashlib
import time

from android_bench import side_by_side
from android_bench.store import write_file
from tfcompress import measure, tasks
from tfcompress.convert import convert
from tfcompress.job import plan, report
from tfcompress.job.folder import CONTROL, FILE, attempts, in_words, judged, load, row_of, rows_of
from tfcompress.job.judge import lost
from tfcompress.pack import packing

BITS = {8: "int8 weights and activations", 4: "4-bit weights", 2: "ternary weights"}
PRECISIONS = {"dynamic": "int8 weights, activations quantized as the file runs", "float16": "float16 weights",
              "float32": "float32"}                      # tried in turn where no file of the stage quantize was kept


def finish(folder, resolved, data, rows, say):
    """Write model.tflite, model.tfcp, resolved.yaml and report.html; returns the path of the report."""
    found = shipped(folder, resolved, data, rows)
    content = (folder / found["file"]).read_bytes()
    write_file(folder / FILE, content)
    row = row_of(folder, "bench")
    if row is None:
        row = _benched(folder, resolved, data, found, content)
        rows_of(folder).append(row)
    elif "control_packed_bytes" not in row:              # of an earlier version
        row["control_packed_bytes"] = len(packing((folder / f"{CONTROL}.tflite").read_bytes()).content)
    resolved = resolved | {"job": resolved["job"] | {"search": 0}, "stages": decided(resolved, rows)}
    plan.write(resolved, folder / "resolved.yaml")
    say(f"ships: {found['why']}\n{told(row, tasks.find(resolved['job']['task']))}")
    return report.write_report(folder, resolved, data, [*rows, found], row)


def shipped(folder, resolved, data, rows):
    """The row of the file that ships: the quantized one, or the first of ``PRECISIONS`` that loses not too much."""
    row, last = row_of(folder, "convert"), [one for one in rows if one["kept"]][-1]
    if row is None:
        if last["stage"] == "quantize":
            [bits] = [stage["bits"] for stage in resolved["stages"] if stage["stage"] == "quantize"]
            why = f"{BITS[bits]}, {last['how']}, behind {_before(rows)}"
            row = last | {"stage": "convert", "file": "quantize.tflite", "why": why}
        else:
            row = _instead(folder, resolved, data, last, rows)
        rows_of(folder).append(row)
    return row


def decided(resolved, rows):
    """The stages with what the run found out."""
    known, found = {row["stage"]: row for row in rows}, []
    for stage in resolved["stages"]:
        tried = [(attempt, known[name]) for name, attempt in attempts(stage).items() if name in known]
        attempt, row = tried[-1]
        told = {name: row[name] for name in plan.FOUND if name in row}
        found.append((attempt if row["kept"] else stage) | told)
    return found


def met(target, row):
    """Whether the target's number is met; None where it has none.

    >>> met(4, {"bytes": 25, "control_bytes": 100}), met(2000, {"bytes": 2001, "control_bytes": 1}), met("fast", {})
    (True, False, None)
    """
    if isinstance(target, str):
        return None
    return row["bytes"] <= (row["control_bytes"] / target if target <= 1000 else target)


def told(row, task):
    """What came of it, in two lines."""
    ratio = row["us"] / row["control_us"]
    speed = f"{1 / ratio:.1f}x faster" if ratio <= 1 else f"{ratio:.1f}x slower"
    goal = {None: "", True: "; target met", False: "; TARGET NOT MET"}[row["met"]]
    return (f"{task.metric} on test data: {row['control_test']:.4f} -> {row['test']:.4f}; {row['control_bytes']:,} -> "
            f"{row['bytes']:,} bytes, packed {row['packed_bytes']:,}; {row['control_us']:.1f} -> {row['us']:.1f} us, "
            f"{speed}{goal}\nmodel.tflite SHA-256 {row['sha256']}")


def _before(rows):
    names = [in_words(row["stage"]) for row in rows if row["kept"] and row["stage"] not in (CONTROL, "quantize")]
    return ", ".join(names) or "the control"


def _instead(folder, resolved, data, last, rows):
    task, model = tasks.find(resolved["job"]["task"]), load(folder, last["stage"])
    for precision in PRECISIONS:
        file = convert(task.export(model), precision)
        row = judged(folder, f"as_{precision}", file, task, data, resolved["job"]["target"], last)
        row |= {"stage": "convert", "kept": True, "loss": lost(task, row["score"], rows[0]["score"]),
                "file": f"as_{precision}.tflite", "why": f"{PRECISIONS[precision]}, behind {_before(rows)}"}
        if row["loss"] <= resolved["drop"]:
            break
    return row


def _benched(folder, resolved, data, found, content):
    started, task = time.perf_counter(), tasks.find(resolved["job"]["task"])
    control = (folder / "control.tflite").read_bytes()
    packed, control_packed = (packing(one).content for one in (content, control))
    write_file(folder / "model.tfcp", packed)
    us = side_by_side.latencies([folder / "control.tflite", folder / FILE])
    scores = [task.score(measure.run(one, data.x_test), data.y_test) for one in (control, content)]
    row = {"stage": "bench", "kept": True, "why": "on this computer, one thread, in turns", "us": us[1],
           "control_us": us[0], "test": scores[1], "control_test": scores[0], "loss": lost(task, scores[1], scores[0]),
           "bytes": len(content), "control_bytes": len(control), "packed_bytes": len(packed),
           "control_packed_bytes": len(control_packed),
           "macs": found["macs"], "sha256": hashlib.sha256(content).hexdigest()}
    return row | {"met": met(resolved["job"]["target"], row), "seconds": round(time.perf_counter() - started, 1)}
