"""Minimal `.tflite` files of given constants, and the C decoder compiled once a process."""

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

SOURCE = Path(__file__).parents[1] / "tfcompress" / "packing" / "unpack.c"


def tflite(arrays: dict, dtypes=None) -> bytes:
    """A file that holds each array as a constant; `dtypes` names those that numpy lacks ("INT4": bytes are given)."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers, graph.tensors = 3, [graph], [schema.BufferT()], []
    for i, (name, array) in enumerate(arrays.items(), 1):
        tensor, buffer = schema.TensorT(), schema.BufferT()
        kind = (dtypes or {}).get(name) or array.dtype.name.upper()
        tensor.name, tensor.buffer, tensor.type = name, i, getattr(schema.TensorType, kind)
        tensor.shape = list(array.shape)
        buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        graph.tensors.append(tensor)
        model.buffers.append(buffer)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def sparse_codes(rng, shape, density, levels=(-4, -2, -1, 1, 2, 4)) -> np.ndarray:
    """int8 codes, a share of `density` of them other than zero, all `levels` as likely."""
    codes = rng.choice(np.array(levels, np.int8), shape)
    return np.where(rng.random(shape) < density, codes, 0).astype(np.int8)


@functools.cache
def decoder(sanitized: bool = False, forged: bool = False) -> str:
    """The path of the compiled `unpack` command; `forged`: it does not look at the checksum."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc) on this machine")
    path = Path(tempfile.mkdtemp()) / "unpack"
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1"] if sanitized else ["-O2"]
    flags += ["-DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION"] if forged else []
    command = [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", *flags, "-DTFCP_MAIN", "-o", str(path)]
    found = subprocess.run([*command, str(SOURCE)], capture_output=True, text=True)
    if sanitized and found.returncode and "asan" in found.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert not found.returncode, found.stderr
    return str(path)


def unpack_in_c(packed: bytes, sanitized: bool = False, forged: bool = False) -> tuple[int, bytes, str]:
    """Exit code, unpacked bytes, what it said; all memory it gets is dirty."""
    dirty = os.environ | {"MALLOC_PERTURB_": "165", "ASAN_OPTIONS": f"max_malloc_fill_size={2**30}:malloc_fill_byte=90"}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.tfcp", Path(folder) / "out.tflite"
        source.write_bytes(packed)
        command = [decoder(sanitized, forged), source, target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=dirty)
        return done.returncode, target.read_bytes() if target.exists() else b"", done.stderr
