"""adbd's "sync:" service: stat, list, push and pull of files (AOSP: file_sync_protocol.h)."""

import errno
import os
import struct
from pathlib import Path

from emulated_phone import binary
from emulated_phone.wire import Stream

CHUNK = 64 * 1024
EVIL_NAMES = ("../../../../outside", "/etc/passwd", "..", "a\nb", "x/../../y", "\x1b[2J$(reboot)")
NO_SPACE = os.strerror(errno.ENOSPC)


class Sync:
    """Serves one stream until the host quits it."""

    def __init__(self, stream: Stream, phone):
        self.stream, self.phone = stream, phone

    def run(self) -> None:
        serve = {
            b"STAT": self._stat, b"STA2": self._stat2, b"LST2": self._stat2, b"LIST": self._list,
            b"SEND": self._send, b"SND2": self._send2, b"RECV": self._receive, b"RCV2": self._receive2,
        }  # fmt: skip
        while head := self.stream.read(8):
            name, size = head[:4], int.from_bytes(head[4:], "little")
            path = self.stream.read(size).decode(errors="surrogateescape") if size else ""
            if name not in serve:  # QUIT, or what this adbd doesn't know
                return
            serve[name](name, path)

    def _fail(self, message: str) -> None:
        self.stream.write(b"FAIL" + struct.pack("<I", len(message.encode())) + message.encode())

    def _stat(self, name: bytes, path: str) -> None:
        found, _ = self._status(os.lstat, path)
        self.stream.write(name + (_short(found) if found else bytes(12)))

    def _stat2(self, name: bytes, path: str) -> None:
        found, error = self._status(os.stat if name == b"STA2" else os.lstat, path)
        numbers = (found.st_dev, found.st_ino, found.st_mode, found.st_nlink, found.st_uid, found.st_gid,
                   found.st_size, *map(int, (found.st_atime, found.st_mtime, found.st_ctime)))  if found else (0,) * 10
        self.stream.write(name + struct.pack("<IQQIIIIQqqq", error, *numbers))

    def _status(self, stat, path: str) -> tuple[os.stat_result | None, int]:
        try:
            return stat(self.phone.real_path(path)), 0
        except OSError as error:
            return None, error.errno

    def _list(self, _: bytes, path: str) -> None:
        try:
            folder = self.phone.real_path(path)
            names = [".", "..", *sorted(os.listdir(folder))]
        except OSError:
            names = []
        for name in names:
            self._entry(_short(os.lstat(os.path.join(folder, name))), name)
        if names and self.phone.faults.take("evil_paths", path) is not None:
            for name in EVIL_NAMES:
                self._entry(struct.pack("<3I", 0o100644, 4, 0), name)
        self.stream.write(b"DONE" + bytes(16))

    def _entry(self, status: bytes, name: str) -> None:
        name = name.encode(errors="surrogateescape")
        self.stream.write(b"DENT" + status + struct.pack("<I", len(name)) + name)

    def _send(self, _: bytes, request: str) -> None:
        path, _, mode = request.rpartition(",")
        self._store(path, int(mode, 0))

    def _send2(self, _: bytes, path: str) -> None:
        mode, flags = struct.unpack("<II", self.stream.read(12)[4:])
        self._store(path, mode, "compression is not supported" if flags & 7 else "")

    def _store(self, path: str, mode: int, refused: str = "") -> None:
        """Take a pushed file; a link lost half way leaves none, as on a phone."""
        file = None
        if not refused and self.phone.faults.take("storage_full", path) is not None:
            refused = f"write failed: {NO_SPACE}"
        drop = self.phone.faults.take("drop_push", path)
        if not refused:
            try:
                real = self.phone.real_path(path)
                os.makedirs(os.path.dirname(real), exist_ok=True)
                file = open(real, "wb")
            except OSError as error:
                refused = f"couldn't create file: {error.strerror}"
        received = 0
        while (head := self.stream.read(8)) and head[:4] == b"DATA":
            body = self.stream.read(int.from_bytes(head[4:], "little"))
            received += len(body)
            if drop is not None and received > drop.get("after_bytes", 0):
                self.stream.connection.cut()
                head = b""
                break
            if file:
                file.write(body)
        if file:
            file.close()
        if not head:
            if file:
                os.unlink(real)
            return
        if refused:
            return self._fail(refused)
        mode = mode & 0o700 | (mode & 0o700) >> 3 | (mode & 0o700) >> 6  # adbd copies the user's bits to the others
        binary.store(Path(real), self.phone.programs)
        os.chmod(real, mode)
        modified = int.from_bytes(head[4:], "little")
        os.utime(real, (modified, modified))
        self.stream.write(b"OKAY" + bytes(4))

    def _receive2(self, name: bytes, path: str) -> None:
        self.stream.read(8)  # the name again, and flags: no compression here
        self._receive(name, path)

    def _receive(self, _: bytes, path: str) -> None:
        try:
            with open(binary.pushed_file(Path(self.phone.real_path(path)), self.phone.programs), "rb") as file:
                while part := file.read(CHUNK):
                    self.stream.write(b"DATA" + struct.pack("<I", len(part)) + part)
        except OSError as error:
            if error.errno is None:  # not the file's: the link is gone
                raise
            return self._fail(f"open failed: {error.strerror}")
        self.stream.write(b"DONE" + bytes(4))


def _short(status: os.stat_result) -> bytes:
    """mode, size, time of change: 12 bytes."""
    return struct.pack("<3I", status.st_mode, status.st_size & 0xFFFFFFFF, int(status.st_mtime))
