"""How long packing takes: files of about 100 MB, beside gzip -9 and xz in the same run.

    scripts/bench_pack.py [KIND ...]     float32, int8 or sparse; the latest row of each is in results/bench_pack.jsonl
"""

import argparse
import datetime
import gzip
import lzma
import os
import time
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from android_bench.store import Store
from tfcompress.pack import packing, unpack

RESULTS = Path(__file__).parent / "results" / "bench_pack.jsonl"
LAYERS, SIDE = 6, 2040  # 25 million weights
KINDS = ("float32", "int8", "sparse")


def main(options):
    for kind in options.kinds or KINDS:
        measure(kind, tflite(list(layers(kind))))


def layers(kind):
    """Weights of a net: normal ones, int8 ones of them, or 95 % sparse codes {0, +-1, +-2, +-4} as float32."""
    rng = np.random.default_rng(0)
    if kind == "float32":
        yield from (rng.normal(0, 0.05, (SIDE, SIDE)).astype(np.float32) for _ in range(LAYERS))
    elif kind == "int8":
        for _ in range(LAYERS * 4):
            yield np.clip(rng.normal(0, 30, (SIDE, SIDE)), -127, 127).astype(np.int8)
    else:
        for _ in range(LAYERS):
            codes = rng.choice(np.array([-4, -2, -1, 1, 2, 4], np.float32), (SIDE, SIDE))
            yield np.where(rng.random((SIDE, SIDE)) < 0.95, np.float32(0), codes * np.float32(0.013))


def tflite(arrays) -> bytes:
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers, graph.tensors = 3, [graph], [schema.BufferT()], []
    for i, array in enumerate(arrays, 1):
        tensor, buffer = schema.TensorT(), schema.BufferT()
        tensor.name, tensor.buffer, tensor.shape = f"layer_{i}/kernel", i, list(array.shape)
        tensor.type = getattr(schema.TensorType, array.dtype.name.upper())
        buffer.data = array.reshape(-1).view(np.uint8)
        graph.tensors.append(tensor)
        model.buffers.append(buffer)
    builder = flatbuffers.Builder(2**27)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def timed(function, *arguments):
    """What the function gives; seconds on the wall, and of this process's CPU: on a busy computer they differ."""
    start, cpu = time.perf_counter(), time.process_time()
    found = function(*arguments)
    return found, {"seconds": round(time.perf_counter() - start, 2), "cpu_seconds": round(time.process_time() - cpu, 2)}


def measure(kind, content):
    packed, packing_time = timed(packing, content)
    again, unpacking_time = timed(unpack, packed.content)
    zipped, gzip_time = timed(gzip.compress, content, 9)
    xz, xz_time = timed(lambda: lzma.compress(content, preset=6))
    row = {
        "kind": kind, "date": datetime.date.today().isoformat(), "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1), "raw": len(content), "packed": len(packed.content),
        "entropy": round(packed.entropy_bytes), "gzip": len(zipped), "xz": len(xz), "same": again == content,
        "pack": packing_time, "unpack": unpacking_time, "gzip -9": gzip_time,
        "gunzip": timed(gzip.decompress, zipped)[1],
        "xz -6": xz_time, "unxz": timed(lzma.decompress, xz)[1],
    }  # fmt: skip
    store = Store(RESULTS, key=("kind",))
    store.rewrite([*(old for old in store.read() if old["kind"] != kind), row])
    print(row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS], metavar="KIND", help=", ".join(KINDS))
    main(parser.parse_args())
