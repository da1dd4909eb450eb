"""The official benchmark_model: where it comes from, for which processor it is, and what it understands."""

import dataclasses
import hashlib
import http.client
import os
import re
import struct
import urllib.request
from pathlib import Path

from android_bench.store import write_file

NIGHTLY = "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/nightly/latest/"
URLS = {
    "arm64-v8a": NIGHTLY + "android_aarch64_benchmark_model",
    "armeabi-v7a": NIGHTLY + "android_arm_benchmark_model",
}
MACHINES = {  # ELF e_machine -> (name, ABIs of Android that run it)
    183: ("64-bit ARM", ("arm64-v8a",)),
    40: ("32-bit ARM", ("armeabi-v7a", "armeabi")),
    62: ("x86-64", ("x86_64",)),
    3: ("32-bit x86", ("x86",)),
}
MAX_BYTES = 500_000_000


class NoBinary(ValueError):
    """There is no benchmark_model that this phone can run; the message says where to get one."""


@dataclasses.dataclass(frozen=True)
class Binary:
    """A benchmark_model on this computer. `litert2`: LiteRT 2's tool of that name, which gives no outputs."""

    path: str
    sha256: str
    machine: str
    abis: tuple[str, ...]
    litert2: bool


def read_binary(path) -> Binary:
    """What an executable is, from its ELF header.

    Raises:
        NoBinary: no such file, no ELF, no position-independent executable, or a processor no phone has.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise NoBinary(f"Expected the program benchmark_model. Received: {str(path)!r}, which is not a file.")
    content = path.read_bytes()
    if content[:4] != b"\x7fELF" or len(content) < 20:
        raise NoBinary(
            f"Expected an Android program (ELF). Received: {str(path)!r}, which starts with {content[:4]!r}; an .apk "
            "or a web page saved under that name won't do."
        )
    kind, machine = struct.unpack("<HH", content[16:20])
    if machine not in MACHINES:
        raise NoBinary(f"{str(path)!r} is for ELF machine {machine}; phones run {_machines()}.")
    if kind != 3:
        raise NoBinary(f"{str(path)!r} is no position-independent executable (PIE): Android refuses it.")
    name, abis = MACHINES[machine]
    litert2 = b"litert/tools/benchmark_litert_model" in content or b"benchmark_litert_model.cc" in content
    return Binary(str(path.resolve()), hashlib.sha256(content).hexdigest(), name, abis, litert2)


def locate(sources, environment=None) -> list[Binary]:
    """The binaries of `--benchmark-binary` (paths or URLs), else of $ANDROID_BENCH_BINARY (separated by commas).

    Raises:
        NoBinary: none was named, or one of them can't be used.
    """
    environment = os.environ if environment is None else environment
    sources = list(sources) or [word for word in environment.get("ANDROID_BENCH_BINARY", "").split(",") if word]
    if not sources:
        raise NoBinary(
            "No benchmark_model was named: the phones need that program. Fetch "
            f"{URLS['arm64-v8a']} and give it as --benchmark-binary FILE (or the URL itself), or set "
            "ANDROID_BENCH_BINARY."
        )
    return [read_binary(_fetched(source) if _is_url(source) else source) for source in sources]


def choose(binaries: list[Binary], abis, phone: str) -> tuple[Binary, str]:
    """The first binary that a phone with these ABIs (best first) runs, and the ABI it runs as.

    >>> arm = Binary("b", "0", "64-bit ARM", ("arm64-v8a",), False)
    >>> choose([arm], ["arm64-v8a", "armeabi-v7a"], "Pixel 7")[1]
    'arm64-v8a'
    """
    for abi in abis:
        for binary in binaries:
            if abi in binary.abis:
                return binary, abi
    have = ", ".join(f"{binary.machine} ({Path(binary.path).name})" for binary in binaries)
    url = next((URLS[abi] for abi in abis if abi in URLS), "a build for it")
    raise NoBinary(f"{phone} runs {', '.join(abis) or 'an unknown ABI'}; the binaries given are {have}. Add "
                   f"--benchmark-binary {url}.")  # fmt: skip


def known_flags(help_text: str) -> frozenset[str]:
    """The flags that a benchmark_model's `--help` lists.

    >>> sorted(known_flags("Flags:\\n\\t--num_runs=50   \\tint32\\toptional\\n\\t--graph=   \\tstring"))
    ['graph', 'num_runs']
    """
    return frozenset(re.findall(r"^\s*--([a-z0-9_]+)=", help_text, re.MULTILINE))


def _is_url(source: str) -> bool:
    return str(source).startswith(("http://", "https://"))


def _fetched(url: str) -> Path:
    """The file behind a URL, out of the cache if it was fetched before; kept there under its sha256."""
    folder = cache_folder() / "binaries"
    index = folder / f"{hashlib.sha256(url.encode()).hexdigest()}.url"
    if index.exists() and (kept := folder / index.read_text().strip()).exists():
        if hashlib.sha256(kept.read_bytes()).hexdigest() == kept.name:
            return kept
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            content, length = answer.read(MAX_BYTES + 1), answer.headers.get("Content-Length", "")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NoBinary(f"{url} can't be fetched ({error}). Download it elsewhere and give its path.") from None
    if len(content) > MAX_BYTES:
        raise NoBinary(f"{url} is larger than {MAX_BYTES} bytes: not a benchmark_model.")
    if length.isdecimal() and len(content) < int(length):
        raise NoBinary(f"{url} broke off after {len(content)} of {length} bytes: run the command again.")
    if content[:4] != b"\x7fELF":
        raise NoBinary(f"{url} is no program (ELF): it starts with {content[:4]!r}. Look at it in a browser.")
    kept = folder / hashlib.sha256(content).hexdigest()
    write_file(kept, content)
    write_file(index, kept.name.encode())
    return kept


def cache_folder() -> Path:
    """Where fetched programs and locks are kept: $ANDROID_BENCH_CACHE, else ~/.cache/android_bench."""
    base = os.environ.get("ANDROID_BENCH_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "android_bench"


def _machines() -> str:
    return ", ".join(f"{name} ({number})" for number, (name, _) in MACHINES.items())
