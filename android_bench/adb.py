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
from pathlib import Path, PurePosixPath

import adbutils

from android_bench.transports import STATES, Attached, parse_devices

LIMIT = 8_000_000  # bytes of an answer; no command of ours comes near it


class AdbError(RuntimeError):
    """adb or a phone refused; the message says what to do."""


class DeviceLost(AdbError):
    """The phone, or the link to it, went away in the middle. It may come back."""


class DeviceTimeout(DeviceLost):
    """No end within the time allowed."""


class Stopped(Exception):
    """The user asked to stop."""


@dataclasses.dataclass(frozen=True)
class Completed:
    """A shell command that ended: its exit code, stdout and stderr as they came."""

    code: int
    output: str


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
        self.address, self.host, self.port = address, host, int(port)
        self._start(adb)
        self.client = adbutils.AdbClient(host=self.host, port=self.port, socket_timeout=10)

    def _start(self, adb: str | None) -> None:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), timeout=3):
            return
        if self.host not in ("127.0.0.1", "localhost"):
            raise AdbError(f"No adb server answers at {self.address}. Start one there: adb -a -P {self.port} nodaemon "
                           "server start, or look at the firewall.")  # fmt: skip
        try:
            program = adb or adbutils.adb_path()
            done = subprocess.run([program, "-P", str(self.port), "start-server"], stdin=subprocess.DEVNULL,
                                  capture_output=True, timeout=30, check=False)  # fmt: skip
        except (OSError, adbutils.AdbError, subprocess.TimeoutExpired) as error:
            raise AdbError(f"adb can't be run ({error}). Install Android's platform-tools, or name the program: "
                           "--adb /path/to/adb.") from None  # fmt: skip
        if done.returncode:
            raise AdbError(f"'{program} start-server' failed: {done.stderr.decode(errors='replace').strip()[-300:]}")

    def attached(self) -> tuple[Attached, ...]:
        """Every transport that this server knows."""
        with _explained(self.address), self.client.make_connection(timeout=10) as link:
            link.send_command("host:devices-l")
            link.check_okay()
            return parse_devices(link.read_string_block())

    def connect(self, address: str) -> None:
        """`adb connect HOST:PORT`. AdbError unless the phone is there afterwards: adb itself says 0 to everything."""
        with _explained(address):
            answer = self.client.connect(address, timeout=15)
        if not answer.startswith(("connected", "already connected")):
            state = next((a for a in self.attached() if a.serial == address), None)
            advice = state.advice if state and state.advice else "is wireless debugging on, and the address right?"
            raise AdbError(f"Can't connect to {address}: {answer.strip()}. {advice[0].upper()}{advice[1:]}")

    def reconnect(self, serial: str) -> None:
        """Drop a dead TCP transport and connect anew; nothing for USB phones."""
        if re.fullmatch(r"[^\s:]+:\d+", serial):
            with contextlib.suppress(adbutils.AdbError, AdbError, OSError):
                self.client.disconnect(serial)
                self.connect(serial)


class Phone:
    """A shell, a push and a pull on one transport. `stop` ends waiting within half a second (`Stopped`)."""

    def __init__(self, server: Server, serial: str, stop: threading.Event | None = None):
        self.server, self.serial, self.stop = server, serial, stop or threading.Event()
        self._device = adbutils.AdbDevice(server.client, serial=serial)

    def shell(self, command: str, timeout: float = 30, limit: int = LIMIT) -> Completed:
        """Run a command by the phone's sh and wait for its end.

        Raises:
            DeviceTimeout: it took longer than `timeout` seconds; what it started may still run.
            DeviceLost: the link dropped before the end. AdbError: not authorized, or more than `limit` bytes came.
        """
        mark = f"__ended_{secrets.token_hex(8)}="
        text = f"(\n{command}\n) 2>&1 </dev/null; printf '\\n{mark}%s\\n' $?"
        with _explained(self.serial), self._open(f"exec:{text}", timeout) as link:
            content = self._read(link, timeout, limit)
        output, found, code = content.decode(errors="replace").replace("\r\n", "\n").rpartition(f"\n{mark}")
        if not found or not code.strip().isdecimal():
            raise DeviceLost(f"{self.serial}: the link dropped in the middle of a command.")
        return Completed(int(code), output)

    def push(self, source, folder: str, timeout: float = 600) -> str:
        """The path of the file on the phone, `NAME-<sha256>`; pushed only if these very bytes are not there yet.

        Raises:
            DeviceLost: the link dropped; nothing is left. AdbError: storage full, or not writable.
        """
        source = Path(source)
        content = source.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        target = str(PurePosixPath(folder, f"{safe_name(source.name)}-{digest}"))
        where, part = shlex.quote(target), shlex.quote(target + ".part")
        if digest in self.shell(f"mkdir -p {shlex.quote(folder)}; {_hash(where)}", timeout).output:
            return target
        self._send(content, target + ".part", timeout)
        check = self.shell(f"{_hash(part)} && chmod 755 {part} && mv -f {part} {where}", timeout)
        if check.code or digest not in check.output:
            self.shell(f"rm -f {part}")
            raise DeviceLost(f"{self.serial}: {source.name} did not arrive whole: {check.output.strip()[-200:]}")
        return target

    def pull(self, path: str, limit: int, timeout: float = 120) -> bytes:
        """The bytes of a file; DeviceLost if it ends early, AdbError where there is none or it is above `limit`."""
        with _explained(self.serial), self._sync("RECV", path, timeout) as link:
            content = bytearray()
            while (kind := link.read_exact(4)) == b"DATA":
                content += link.read_exact(link.read_uint32())
                if len(content) > limit:
                    raise AdbError(f"{self.serial}: {path} is larger than the {limit} bytes expected.")
            if kind != b"DONE":
                message = link.read_exact(min(link.read_uint32(), 1000)).decode(errors="replace")
                raise AdbError(f"{self.serial}: can't read {path}: {message}")
        return bytes(content)

    def wait(self, timeout: float, poll: float = 1.0) -> None:
        """Until the phone answers (again). DeviceLost after `timeout` seconds."""
        end = time.monotonic() + timeout
        while True:
            with contextlib.suppress(DeviceLost):
                self.shell("true", timeout=min(10, timeout))
                return
            if time.monotonic() > end:
                raise DeviceLost(f"{self.serial} did not come back within {timeout:g} s.")
            self.pause(min(poll, timeout))
            self.server.reconnect(self.serial)

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
        with _explained(self.serial), self._sync("SEND", f"{path},{0o100755}", timeout) as link:
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


def _hash(quoted: str) -> str:
    return f"sha256sum {quoted} 2>/dev/null"


@contextlib.contextmanager
def _explained(name: str):
    """Errors of adbutils and of sockets as ours."""
    try:
        yield
    except adbutils.AdbError as error:
        words = " ".join(str(error).split())
        if "unauthorized" in words or "authorizing" in words:
            raise AdbError(f"{name} is unauthorized: {STATES['unauthorized']}.") from None
        if "permission" in words:
            raise AdbError(f"{name}: {words}; {STATES['no permissions']}.") from None
        raise DeviceLost(f"{name}: {words or 'the link dropped'}.") from None
    except TimeoutError as error:
        raise DeviceTimeout(f"{name}: no answer in time ({error}).") from None
    except (OSError, EOFError) as error:
        raise DeviceLost(f"{name}: the link dropped ({error or type(error).__name__}).") from None
