"""One harness a phone: a lock file that a kill frees and that is gone afterwards."""

import contextlib
import fcntl
import os
import re

from android_bench.binary import cache_folder


class Busy(RuntimeError):
    """Another process holds the phone."""


@contextlib.contextmanager
def hold(serial: str):
    """Hold a phone by its serial number. Busy if another process on this computer does."""
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (re.sub(r"[^A-Za-z0-9._-]", "_", serial)[-100:] + ".lock")
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise Busy(f"Another android-bench uses {serial}: wait for it, or stop it.") from None
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == path.stat().st_ino:
                break
        os.close(handle)  # its last owner removed the file between our open and our lock
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)
