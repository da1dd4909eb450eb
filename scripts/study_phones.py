"""The whole study on phones: the 17 + 1 files, each on every phone with its accuracy there, in one report.

    python scripts/study_phones.py [digits|ecg|...] --emulated                     four emulated phones, marked so
    python scripts/study_phones.py ecg --device all --benchmark-binary FILE        the phones attached here

Every step goes on where it was stopped. Other flags go to `android-bench run`. What it writes: runs/PRESET (the study
and the report with the phones in it) and runs/PRESET-phones (rows.jsonl, report.html of android-bench).
"""

import contextlib
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests"))

from android_bench import cli as bench  # noqa: E402
from tfcompress import cli as compress  # noqa: E402

SAMPLES = 500


@contextlib.contextmanager
def emulated_phones():
    """Four emulated phones behind the real adb; the flags that lead android-bench to them."""
    from emulated_phone.binary import make_binary
    from emulated_phone.personalities import ARM32, PIXEL, SAMSUNG, TABLET, XIAOMI
    from emulated_phone.phone import EmulatedPhone
    from emulated_phone.server import AdbServer

    with tempfile.TemporaryDirectory(prefix="phones-") as root, AdbServer() as server, contextlib.ExitStack() as stack:
        for kind in (PIXEL, SAMSUNG, XIAOMI, TABLET):
            phone = stack.enter_context(EmulatedPhone(kind, Path(root, kind.name)))
            server.connect(phone.address)
        arm64, arm = make_binary(Path(root, "benchmark_model")), make_binary(Path(root, "benchmark_model_arm"), ARM32)
        yield ["--device=all", f"--adb-server=127.0.0.1:{server.port}", f"--benchmark-binary={arm64},{arm}"]


def main(preset: str, flags: list[str]) -> int:
    study, phones = Path("runs", preset), Path("runs", f"{preset}-phones")
    code = compress.main(["study", preset, "--workers=2"])
    code = code or compress.main(["data", preset, "-o", str(study / "phone_test.npz"), f"--limit={SAMPLES}"])
    if code:
        return code
    emulated = "--emulated" in flags
    with emulated_phones() if emulated else contextlib.nullcontext([]) as more:
        files = sorted(map(str, (study / "models").glob("*.tflite")))
        flags = [flag for flag in flags if flag != "--emulated"]
        code = bench.main(["run", *files, f"--eval={study / 'phone_test.npz'}", f"--output={phones}", *more, *flags])
    return code or compress.main(["report", str(study), f"--phones={phones}"])


if __name__ == "__main__":
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        sys.exit(print(__doc__))
    sys.exit(main(words.pop(0) if words and not words[0].startswith("-") else "ecg", words))
