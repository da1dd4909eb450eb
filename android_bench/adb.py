"""Phones behind adb servers, local or remote: the only file that talks to adb.

Everything has a timeout, every answer is capped, and a command's exit code comes from a sentinel line: without it the
link was lost, whatever adb itself says.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
import secrets
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import adbutils

from android_bench.adb_errors import AdbError, DeviceLost, DeviceTimeout, Stopped, explained
from android_bench.transports import Attached, parse_devices

LIMIT = 8_000_000  # bytes of an answer; no command of ours comes near it
SLOWEST = 2_000_000  # bytes a second that are written and summed at least


@dataclasses.dataclass(frozen=True)
class Completed:
    """A shell command that ended: its exit code, stdout and stderr as they came."""

    code: int
    output: str


class _Client(adbutils.AdbClient):
    def make_connection(self, timeout: float | None = None):
        """As adbutils' own, but without starting a server on adb's default port where none answers on this one."""
        socket.create_connection((self.host, self.port), timeout=3).close()
        return super().make_connection(timeout)


class Server:
    """An adb server: "127.0.0.1:5037" by default. `adb` starts a local one that isn't running.

    Raises:
        AdbError: no adb, a server that can't be reached, or an address that is none.
    """

    def __init__(self, address: str = "", adb: str | None = None):
        address = address or f"127.0.0.1:{os.environ.get('ANDROID_ADB_SERVER_PORT', 5037)}"
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise AdbError(f"Expected an adb server as HOST:PORT. Received: {address!r}.")
        self.address, self.host, self.port, self._adb = address, host, int(port), adb
        self._start()
        self.client = _Client(host=self.host, port=self.port, socket_timeout=10)

    def _start(self) -> None:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), timeout=3):
            return
        if self.host not in ("127.0.0.1", "localhost"):
            raise AdbError(f"No adb server answers at {self.address}. Start one there: adb -a -P {self.port} nodaemon "
                           "server start, or look at the firewall.")  # fmt: skip
        try:
            program = self._adb or adbutils.adb_path()
            done = subprocess.run([program, "-P", str(self.port), "start-server"], stdin=subprocess.DEVNULL,
                                  capture_output=True, timeout=30, check=False)  # fmt: skip
        except (OSError, adbutils.AdbError, subprocess.TimeoutExpired) as error:
            raise AdbError(f"adb can't be run ({error}). Install Android's platform-tools, or name the program: "
                           "--adb /path/to/adb.") from None  # fmt: skip
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip()[-300:] or f"exit code {done.returncode}"
            raise AdbError(f"'{program} start-server' failed ({words}): is it adb? Give another with --adb.")

    def attached(self) -> tuple[Attached, ...]:
        """Every transport that this server knows."""
        with explained(self.address), self.client.make_connection(timeout=10) as link:
            link.send_command("host:devices-l")
            link.check_okay()
            return parse_devices(link.read_string_block())

    def connect(self, address: str) -> None:
        """`adb connect HOST:PORT`. AdbError unless the phone is there afterwards: adb itself says 0 to everything."""
        with explained(address):
            answer = self.client.connect(address, timeout=15)
        if not answer.startswith(("connected", "already connected")):
            state = next((a for a in self.attached() if a.serial == address), None)
            advice = state.advice if state and state.advice else "is wireless debugging on, and the address right?"
            raise AdbError(f"Can't connect to {address}: {answer.strip()}. {advice[0].upper()}{advice[1:]}")

    def reconnect(self, serial: str) -> None:
        """Start a local server that died; drop a dead TCP transport and connect anew (USB needs none)."""
        with contextlib.suppress(adbutils.AdbError, AdbError, OSError):
            self._start()
            if re.fullmatch(r"[^\s:]+:\d+", serial):
                self.client.disconnect(serial)
                self.connect(serial)


class Phone:
    """A shell, a push and a pull on one transport. `stop` ends waiting within half a second (`Stopped`).

    `timeout`: seconds that a command may take unless `shell` is told otherwise.
    """

    def __init__(self, server: Server, serial: str, stop: threading.Event | None = None):
        self.server, self.serial, self.stop = server, serial, stop or threading.Event()
        self.timeout = 30.0
        self._pushed: set[str] = set()  # known to lie there whole
        self._device = adbutils.AdbDevice(server.client, serial=serial)

    def shell(self, command: str, timeout: float | None = None, limit: int = LIMIT) -> Completed:
        """Run a command by the phone's sh and wait for its end.

        Raises:
            DeviceTimeout: it took longer than `timeout` seconds; what it started may still run.
            DeviceLost: the link dropped before the end, or isn't authorized. AdbError: more than `limit` bytes came.
        """
        timeout = timeout or self.timeout
        mark = f"__ended_{secrets.token_hex(8)}="
        text = f"(\n{command}\n) 2>&1 </dev/null; printf '\\n{mark}%s\\n' $?"
        with explained(self.serial), self._open(f"exec:{text}", timeout) as link:
            content = self._read(link, timeout, limit)
        output, found, code = content.decode(errors="replace").replace("\r\n", "\n").rpartition(f"\n{mark}")
        if not found or not code.strip().isdecimal():
            raise DeviceLost(f"{self.serial}: the link dropped in the middle of a command.")
        return Completed(int(code), output)

    def push(self, source, folder: str, name: str = "") -> str:
        """The path of the file on the phone, `NAME-<sha256>`; pushed only if these very bytes are not there yet.

        `source` is a path, or bytes with a `name`.

        Raises:
            DeviceLost: the link dropped; nothing is left. AdbError: storage full, or not writable.
        """
        content, name = source if isinstance(source, bytes) else Path(source).read_bytes(), name or Path(source).name
        digest = hashlib.sha256(content).hexdigest()
        target = str(PurePosixPath(folder, f"{safe_name(name)}-{digest}"))
        where, part = shlex.quote(target), shlex.quote(target + ".part")
        if target in self._pushed:
            return target
        timeout = self.timeout + len(content) / SLOWEST
        whole = (digest, str(len(content)))  # a phone without sha256sum (Android 5) tells the size only
        if _first_word(self.shell(f"mkdir -p {shlex.quote(folder)}; {_sum(where)}", timeout)) not in whole:
            self._send(content, target + ".part", timeout)
            found = self.shell(_sum(part), timeout)
            if _first_word(found) not in whole:
                self.shell(f"rm -f {part}")
                raise DeviceLost(f"{self.serial}: {name} did not arrive whole: {found.output.strip()[-200:]}")
            moved = self.shell(f"chmod 755 {part} && mv -f {part} {where}", timeout)
            if moved.code:
                raise AdbError(f"{self.serial}: can't write {target}: {moved.output.strip()[-200:]}")
        self._pushed.add(target)
        return target

    def pull(self, path: str, limit: int) -> bytes:
        """The bytes of a file; DeviceLost if it ends early or never, AdbError for none, or more than `limit` bytes."""
        with explained(self.serial), self._sync("RECV", path, self.timeout) as link:
            content, end = bytearray(), time.monotonic() + self.timeout + limit / SLOWEST
            while (kind := link.read_exact(4)) == b"DATA":
                size = link.read_uint32()
                if len(content) + size > limit:
                    raise AdbError(f"{self.serial}: {path} is larger than the {limit} bytes expected.")
                content += link.read_exact(size)
                if self.stop.is_set():
                    raise Stopped
                if time.monotonic() > end:
                    raise DeviceTimeout(f"{self.serial} did not end sending {path} in time.")
            if kind != b"DONE":
                message = link.read_exact(min(link.read_uint32(), 1000)).decode(errors="replace")
                raise AdbError(f"{self.serial}: can't read {path}: {message}")
        return bytes(content)

    def wait(self, timeout: float, poll: float = 0.5) -> None:
        """Until the phone answers (again). DeviceLost after `timeout` seconds."""
        end = time.monotonic() + timeout
        while True:
            try:
                self.shell("true", timeout=min(10, timeout))
                return
            except DeviceLost as error:
                if time.monotonic() > end:
                    raise DeviceLost(f"{self.serial} did not come back within {timeout:g} s ({error}); look at its "
                                     "cable or Wi-Fi, and whether it is on and unlocked.") from None  # fmt: skip
            self.pause(min(poll, timeout))
            self.server.reconnect(self.serial)

    def persist(self, step: Callable, patience: float):
        """What `step` returns; done anew, at most twice, when the link was lost and is back within `patience` s."""
        for _ in range(2):
            try:
                return step()
            except DeviceLost:
                self.wait(patience)
        return step()

    def pause(self, seconds: float) -> None:
        """Sleep; `Stopped` if the user wants to end."""
        if self.stop.wait(seconds):
            raise Stopped

    def _open(self, service: str, timeout: float):
        link = self._device.open_transport(timeout=min(timeout, 20))
        try:
            link.conn.sendall(b"%04x" % len(service.encode()) + service.encode())
            link.check_okay()
        except BaseException:
            link.close()
            raise
        return link

    def _read(self, link, timeout: float, limit: int) -> bytes:
        content, end = bytearray(), time.monotonic() + timeout
        link.conn.settimeout(0.5)
        while True:
            if self.stop.is_set():
                raise Stopped
            try:
                chunk = link.conn.recv(1 << 16)
            except TimeoutError:
                chunk = None
            if chunk == b"":
                return bytes(content)
            content += chunk or b""
            if len(content) > limit:
                raise AdbError(f"{self.serial} answered a command with more than {limit} bytes: not an answer of ours.")
            if time.monotonic() > end:
                raise DeviceTimeout(f"{self.serial} did not end a command within {timeout:g} s.")

    @contextlib.contextmanager
    def _sync(self, request: str, path: str, timeout: float):
        with self._open("sync:", timeout) as link:
            link.conn.settimeout(timeout)
            name = path.encode()
            link.conn.sendall(request.encode() + len(name).to_bytes(4, "little") + name)
            yield link

    def _send(self, content: bytes, path: str, timeout: float) -> None:
        with explained(self.serial), self._sync("SEND", f"{path},{0o100755}", timeout) as link:
            for start in range(0, len(content), 1 << 16):
                if self.stop.is_set():
                    raise Stopped
                block = content[start : start + (1 << 16)]
                link.conn.sendall(b"DATA" + len(block).to_bytes(4, "little") + block)
            link.conn.sendall(b"DONE" + int(time.time()).to_bytes(4, "little"))
            answer = link.read_exact(4)
            if answer != b"OKAY":
                message = link.read_exact(min(link.read_uint32(), 1000)).decode(errors="replace")
                hint = "free some space (android-bench clean removes our files)" if "space" in message else "see df"
                raise AdbError(f"{self.serial}: can't write {path}: {message}; {hint}.")


def safe_name(name: str) -> str:
    """A file name without anything that a shell, a path or benchmark_model's own flags could take for syntax.

    >>> safe_name("my $(rm -rf ~).tflite")
    'my_rm_-rf_.tflite'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".-")[-80:] or "file"


def _sum(quoted: str) -> str:
    return f"if command -v sha256sum >/dev/null; then sha256sum {quoted}; else wc -c <{quoted}; fi 2>/dev/null"


def _first_word(done: Completed) -> str:
    return (done.output.split() or [""])[0]
