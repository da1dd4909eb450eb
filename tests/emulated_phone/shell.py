"""adbd's "shell:" and "exec:" services: one command of the host, run by this machine's own sh."""

import os
import signal
import struct
import subprocess
import threading

from emulated_phone.sync import NO_SPACE
from emulated_phone.wire import LinkLostError, Stream

STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)  # packets of the shell protocol, version 2
NOISE = b"\x1b[31m\x1b[2J\x07noise\r\n\x00\xff\xfe\x1b]0;owned\x07 count=1 curr=1 @@getprop\n" * 1000


class Shell:
    """Serves one stream.

    Args:
        version2: stdout and stderr apart and an exit code; else one raw stream.
        terminal: the old shell's pty, which ends lines with CR LF.
    """

    def __init__(self, stream: Stream, phone, command: str, version2: bool, terminal: bool):
        self.stream, self.phone, self.command = stream, phone, command
        self.version2, self.terminal = version2, terminal

    def run(self) -> None:
        take = self.phone.faults.take
        if take("hang", self.command) is not None:
            self.stream.wait_closed()
            return
        if (noise := take("noise", self.command)) is not None:
            for _ in range(int(noise.get("megabytes", 1) * 1e6 / len(NOISE)) + 1):
                self._write(STDOUT, NOISE)
            if not noise.get("run", True):
                return self._exit(0)
        if "match" in self.phone.faults.peek("storage_full") and take("storage_full", self.command) is not None:
            self._write(STDERR, f"/system/bin/sh: can't create: {NO_SPACE}\n".encode())
            return self._exit(1)
        self._run_command()

    def _run_command(self) -> None:
        process = subprocess.Popen(
            [self.phone.shell, "-c", self.phone.map_command(self.command)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE if self.version2 else subprocess.STDOUT,
            cwd=self.phone.root, env=self.phone.environment(), start_new_session=True,
        )  # fmt: skip
        if drop := self.phone.faults.peek("drop_shell"):
            timer = threading.Timer(drop.get("after", 0), self._drop, [process])
            timer.daemon = True
            timer.start()
        threads = [threading.Thread(target=self._pump, args=(process.stdout, STDOUT), daemon=True)]
        if self.version2:
            threads.append(threading.Thread(target=self._pump, args=(process.stderr, STDERR), daemon=True))
        for thread in threads:
            thread.start()
        threading.Thread(target=self._feed, args=(process,), daemon=True).start()
        for thread in threads:
            thread.join()
        code = process.wait()
        self._exit(code if code >= 0 else 0x80 | -code)

    def _drop(self, process: subprocess.Popen) -> None:
        """The link fails while a command runs; a shorter command leaves the fault for the next one."""
        if process.poll() is None and self.phone.faults.take("drop_shell", self.command) is not None:
            self.stream.connection.cut()

    def _pump(self, pipe, kind: int) -> None:
        with pipe:
            while part := os.read(pipe.fileno(), 64 * 1024):
                try:
                    self._write(kind, part)
                except LinkLostError:
                    return

    def _feed(self, process: subprocess.Popen) -> None:
        """The host's stdin into the command; when the stream ends, a hang-up for the sh, not for its children."""
        try:
            while packet := self._input():
                kind, data = packet
                if kind == STDIN:
                    process.stdin.write(data)
                    process.stdin.flush()
                elif kind == CLOSE_STDIN:
                    process.stdin.close()
        except (OSError, ValueError):  # the command reads no longer
            self.stream.wait_closed()
        if process.poll() is None:
            process.send_signal(signal.SIGHUP)

    def _input(self) -> tuple[int, bytes] | None:
        if not self.version2:
            data = self.stream.read_some()
            return (STDIN, data) if data else None
        head = self.stream.read(5)
        if not head:
            return None
        kind, size = struct.unpack("<BI", head)
        return kind, self.stream.read(size) if size else b""

    def _write(self, kind: int, data: bytes) -> None:
        if self.version2:
            data = struct.pack("<BI", kind, len(data)) + data
        elif self.terminal:
            data = data.replace(b"\n", b"\r\n")
        self.stream.write(data)

    def _exit(self, code: int) -> None:
        if self.version2:
            self.stream.write(struct.pack("<BIB", EXIT, 1, code))
