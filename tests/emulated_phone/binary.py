"""Files that are `benchmark_model` to a host and run the stand-in on an emulated phone.

No Linux kernel of a PC runs a phone's ELF file, and no shell takes one for a script. So the phone's adbd stores a
pushed ELF file as a script that starts the stand-in; the phone's `sha256sum` knows the sum of what was pushed, and a
pull gives it back. On the phone's side nothing else looks into such a file.
"""

import hashlib
import os
import shlex
import struct
import sys
from pathlib import Path

import ai_edge_litert

from emulated_phone.personalities import ARM32, ARM64

STAND_IN = Path(__file__).with_name("benchmark_model") / "__main__.py"
MARK = b"#!/bin/sh\n# ELF "
TYPE_PIE, VERSION = 3, 1
LITERT2 = b"litert/tools/benchmark_litert_model"


def make_binary(path, machine: int = ARM64, tool: str = "tflite", content: str = "", size: int = 4000) -> Path:
    """Write an executable to give to the host.

    Args:
        machine: e_machine of the header: 183 arm64, 40 arm, 62 x86-64.
        tool: "tflite" is the tool of TensorFlow Lite, "litert2" its namesake of LiteRT 2.x.
        content: any text, for a file with another sha256.
        size: least bytes of the file.
    """
    if tool not in ("tflite", "litert2"):
        raise ValueError(f"Expected tool 'tflite' or 'litert2'. Received: {tool!r}")
    bits, length = (1, 52) if machine == ARM32 else (2, 64)
    header = b"\x7fELF" + bytes((bits, 1, VERSION)).ljust(12, b"\0") + struct.pack("<HHI", TYPE_PIE, machine, VERSION)
    inside = LITERT2 if tool == "litert2" else b"tflite/tools/benchmark/benchmark_model"
    path = Path(path)
    path.write_bytes((header.ljust(length, b"\0") + inside + b"\0" + content.encode()).ljust(size, b"\0"))
    path.chmod(0o755)
    return path


def store(pushed: Path, programs: Path) -> None:
    """Make a pushed file runnable, if it is an ELF file; the pushed bytes go to the folder `programs`."""
    with open(pushed, "rb") as file:
        if file.read(4) != b"\x7fELF":
            return
    content = pushed.read_bytes()
    digest, machine = hashlib.sha256(content).hexdigest(), struct.unpack("<H", content[18:20])[0]
    programs.mkdir(exist_ok=True)
    (programs / digest).write_bytes(content)
    packages = os.path.dirname(os.path.dirname(ai_edge_litert.__file__))
    tool = "litert2" if LITERT2 in content else "tflite"
    words = [sys.executable, "-S", "-E", str(STAND_IN), packages, tool, str(machine)]
    pushed.write_bytes(MARK + f'{digest}\nexec {shlex.join(words)} "$0" "$@"\n'.encode())


def pushed_file(path: Path, programs: Path) -> Path:
    """Where the bytes lie that were pushed to `path`."""
    with open(path, "rb") as file:
        head = file.read(len(MARK) + 64)
    return programs / head[len(MARK) :].decode() if head.startswith(MARK) else path
