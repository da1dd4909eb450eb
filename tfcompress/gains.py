"""Does it pay? Files beside the first of them: bytes, gzip, multiply-accumulates, measured time, and why."""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from android_bench import side_by_side
from android_bench.result import Result, read_rows
from tfcompress import flatbuffer
from tfcompress.inspect import inspect
from tfcompress.measure import storage
from tfcompress.study.verdict import saves


def payoff(files, *, device="host", turns=15):
    """Measure ``.tflite`` files side by side; each row's ``facts["pays"]`` says what it saves against the first.

    ``"real"``: smaller or faster, as measured. ``"theoretical"``: zeros that change neither bytes nor time.

    Args:
        files: ``{name: path, bytes or TFLiteModel}``; the first is what the others are measured against.
        device: ``"host"`` (this computer, LiteRT with XNNPACK, one thread), or the serial number of a phone that
            ``android-bench devices`` lists (``$ANDROID_BENCH_BINARY`` names its benchmark_model).
        turns: of .02 s, in which each file is timed on this computer beside the first: ``android_bench.side_by_side``.
            One alone may call equal files "1.1x faster" where the computer is busy.

    Returns:
        A list of ``android_bench.result.Result`` rows.

    Raises:
        ValueError: no files, or one that is no ``.tflite``.
        RuntimeError: a file that does not run, a phone that can't be measured.

    >>> for row in payoff({"float": "model.tflite", "pruned": "small.tflite"}):        # doctest: +SKIP
    ...     print(row.id, row.raw_bytes, row.latency_p50_us, row.facts["pays"])
    float 701232 74.1 what the others are measured against
    pruned 66104 11.6 10.6x smaller file, 6.4x faster
    """
    if not files:
        raise ValueError("`files` holds at least one .tflite file, {name: path, bytes or TFLiteModel}. Received none.")
    contents = {name: flatbuffer.content_of(file) for name, file in files.items()}
    measured = timed(contents, device=device, turns=turns)
    first, *rows = [weighed(content, measured[name]) for name, content in contents.items()]
    return [paid(first), *(paid(row, first) for row in rows)]


def weighed(content, row):
    """The row of a file (bytes) with its sizes in every form, MACs and sparsity."""
    found, stored = inspect(content), storage(content)
    return row.replace(raw_bytes=stored.raw, gzip_bytes=stored.gzip, xz_bytes=stored.xz, packed_bytes=stored.packed,
                       entropy_bytes=stored.entropy, macs=found.macs, sparsity=found.sparsity)


def paid(row, first=None):
    """The row with ``facts["pays"]``: what it saves against ``first``; None: it is the first."""
    verdict = saves(row, first) if first else None
    why = f"{verdict.overall}: {verdict.why}" if verdict else "what the others are measured against"
    return row.replace(facts=(row.facts or {}) | {"pays": why})


def table(rows):
    """Rows of ``payoff`` as lines of text."""
    width = max(len(row.id) for row in rows)
    heads = ("bytes", "gzip", "xz", "packed", "entropy")
    lines = [f"{'':{width}}{'MACs':>15}{''.join(f'{head:>13}' for head in heads)}{'us':>11}  pays?"]
    for row in rows:
        sizes = (row.raw_bytes, row.gzip_bytes, row.xz_bytes, row.packed_bytes, row.entropy_bytes)
        lines.append(f"{row.id:{width}}{row.macs:>15,}{''.join(f'{size:>13,}' for size in sizes)}"
                     f"{row.latency_p50_us:>11,.1f}  {row.facts['pays']}")
    return "\n".join(lines)


def timed(contents, *, device="host", turns=15):
    """``{name: Result}`` with the time of one run of each file (bytes).

    On this computer all take turns in one process, beside the first; a file alone runs in three, and the median counts.
    On a phone as ``android-bench run`` does it.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{i}.tflite" for i, name in enumerate(contents)}
        for name, content in contents.items():
            paths[name].write_bytes(content)
        if device != "host":
            return _on_phone(paths, device, Path(folder) / "results")
        processes = [side_by_side.latencies(list(paths.values()), turns=turns)
                     for _ in range(3 if len(paths) == 1 else 1)]
    return {name: Result(id=name, recipe=name, device="host, 1 thread", threads=1,
                         latency_p50_us=statistics.median(found[at] for found in processes))
            for at, name in enumerate(paths)}


def _on_phone(paths, serial, results):
    command = [sys.executable, "-m", "android_bench.cli", "run", *map(str, paths.values()), "--device", serial,
               "--threads", "1", "-o", str(results)]
    done = subprocess.run(command, capture_output=True, text=True)
    rows = read_rows(results / "rows.jsonl") if (results / "rows.jsonl").exists() else []
    by_file = {row.id: row for row in rows if row.latency_p50_us is not None}
    if done.returncode or any(path.stem not in by_file for path in paths.values()):
        raise RuntimeError(f"{serial} could not be measured: {' '.join(command[2:])} said: "
                           f"{(done.stderr or done.stdout).strip()[-800:]}")
    return {name: by_file[path.stem].replace(id=name, recipe=name) for name, path in paths.items()}
