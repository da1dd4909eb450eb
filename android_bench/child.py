"""Run a `.tflite` file in another process, so that a kernel that crashes harms nobody."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


class Stopped(Exception):
    """The user asked to stop."""


class WrongInput(ValueError):
    """The inputs don't fit the file; the parent raises it as ValueError."""


def in_child(
    module: str, job: dict, arrays: dict[str, np.ndarray], timeout: float, stop: threading.Event | None = None
) -> tuple[dict, dict]:
    """Run `work` of an android_bench module in another process; what it found, and the arrays it left.

    The child has a session of its own: the terminal's Ctrl-C is for the parent, which kills it.

    Raises:
        Stopped: `stop` was set, or Ctrl-C reached the child before it had its session.
        ValueError: the inputs don't fit the file.
        RuntimeError: LiteRT refuses the file, the child was killed by a signal, or took longer than `timeout` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="host-") as folder:
        np.savez(Path(folder, "inputs.npz"), **arrays)
        Path(folder, "job.json").write_text(json.dumps(job))
        root = str(Path(__file__).resolve().parent.parent)
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        code = f"import sys; from android_bench.{module} import work; work(sys.argv[1])"
        command = [sys.executable, "-c", code, folder]
        with open(Path(folder, "stderr"), "wb") as stderr:
            child = subprocess.Popen(
                command, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=stderr, cwd=folder, start_new_session=True,
            )  # fmt: skip
        if not _ended(child, timeout, stop):
            raise RuntimeError(f"{job['path']} did not finish in {timeout:.0f} s here and was ended.")
        result = Path(folder, "result.json")
        if child.returncode == -signal.SIGINT:
            raise Stopped
        if child.returncode < 0:
            name = signal.Signals(-child.returncode).name
            raise RuntimeError(
                f"LiteRT died with {name} (signal {-child.returncode}) on {job['path']}: a kernel can't run this file. "
                "Convert with another precision, or try xnnpack=False (--delegate builtin)."
            )
        if child.returncode or not result.exists():
            last = Path(folder, "stderr").read_text(errors="replace").strip().splitlines()[-1:] or ["no message"]
            if last[0].startswith("KeyboardInterrupt"):  # it came while Python itself started: then it ends with 1
                raise Stopped
            raise RuntimeError(f"The child that runs {job['path']} ended with code {child.returncode}: {last[0]}")
        found = json.loads(result.read_text())
        left = Path(folder, "outputs.npz")
        arrays = dict(np.load(left, allow_pickle=False)) if left.exists() else {}
    if "wrong_input" in found:
        raise ValueError(found["wrong_input"])
    if "refused" in found:
        raise RuntimeError(f"LiteRT can't run {job['path']}: {found['refused']}")
    return found, arrays


def _ended(child: subprocess.Popen, timeout: float, stop: threading.Event | None) -> bool:
    """Wait for the child's end; False after `timeout` seconds. It is dead afterwards, whatever happens."""
    end = time.monotonic() + timeout
    try:
        while time.monotonic() < end:
            try:
                child.wait(0.2)
                return True
            except subprocess.TimeoutExpired:
                if stop is not None and stop.is_set():
                    raise Stopped from None
        return False
    finally:
        child.kill()
        child.wait()


def serve(folder: str, task: Callable[[dict, dict], dict]) -> None:
    """The child: do `task` on job.json and inputs.npz, and write result.json; it may leave outputs.npz."""
    job = json.loads(Path(folder, "job.json").read_text())
    with np.load(Path(folder, "inputs.npz"), allow_pickle=False) as stored:
        arrays = dict(stored)
    try:
        found = task(job, arrays)
    except WrongInput as error:
        found = {"wrong_input": str(error)}
    except (ValueError, RuntimeError) as error:
        found = {"refused": str(error).strip()}
    Path(folder, "result.json").write_text(json.dumps(found))
