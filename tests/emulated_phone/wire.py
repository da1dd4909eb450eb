"""The adb wire protocol, device side: packets over one TCP connection, streams multiplexed in them.

Layouts: AOSP's `packages/modules/adb/protocol.txt`. A packet is a header of six little-endian words and its data.
"""

import os
import socket
import struct
import threading
from collections.abc import Callable

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (int.from_bytes(name, "little") for name in
                                      (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE"))  # fmt: skip
VERSION = 0x01000001  # from this one on nobody looks at the check sum
MAX_DATA = 1024 * 1024
AUTH_TOKEN = 1


class LinkLostError(OSError):
    """The other end of the stream, or the whole connection, is gone."""


class Stream:
    """One stream of a connection. Reads block; a write waits until the host has acknowledged the one before."""

    def __init__(self, connection: "Connection", local: int, remote: int):
        self.connection, self.local, self.remote = connection, local, remote
        self._changed = threading.Condition()
        self._received, self._may_write, self.closed = bytearray(), True, False

    def receive(self, data: bytes) -> None:
        with self._changed:
            self._received += data
            self._changed.notify_all()
        self.connection.send(OKAY, self.local, self.remote)

    def acknowledged(self) -> None:
        with self._changed:
            self._may_write = True
            self._changed.notify_all()

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, or none at all at the stream's end."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._received) >= size or self.closed)
            if len(self._received) < size:
                return b""
            return self._take(size)

    def read_some(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._received or self.closed)
            return self._take(len(self._received))

    def _take(self, size: int) -> bytes:
        found = bytes(self._received[:size])
        del self._received[:size]
        return found

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), self.connection.max_data):
            with self._changed:
                self._changed.wait_for(lambda: self._may_write or self.closed)
                if self.closed:
                    raise LinkLostError
                self._may_write = False
            self.connection.send(WRTE, self.local, self.remote, data[start : start + self.connection.max_data])

    def wait_closed(self, seconds: float | None = None) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.closed, seconds)

    def end(self) -> None:
        """The host closed it: wake up everybody who waits."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def close(self) -> None:
        if not self.closed:
            self.end()
            self.connection.send(CLSE, self.local, self.remote)
        self.connection.streams.pop(self.local, None)


class Connection:
    """One host's connection.

    Args:
        banner: what the device says of itself, or None where it lets nobody in: the host shows "unauthorized".
        service: from a service's name ("shell:ls", "sync:") to the function that serves its stream, or None.
    """

    def __init__(self, link: socket.socket, banner: bytes | None, service: Callable):
        self.link, self.banner, self.service = link, banner, service
        self.streams: dict[int, Stream] = {}
        self.max_data, self._next_id, self._sending = 4096, 1, threading.Lock()

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        header = struct.pack("<6I", command, first, second, len(data), 0, command ^ 0xFFFFFFFF)
        with self._sending:
            try:
                self.link.sendall(header + data)
            except OSError:
                self.cut()

    def cut(self) -> None:
        """Drop the link at once, as when the Wi-Fi fails; `run` ends."""
        try:
            self.link.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it was cut before

    def run(self) -> None:
        try:
            while header := self._receive(24):
                command, first, second, size, _, magic = struct.unpack("<6I", header)
                if command ^ magic != 0xFFFFFFFF or size > MAX_DATA:
                    break
                self._handle(command, first, second, self._receive(size) if size else b"")
        except OSError:
            pass  # a reset is as good an end as any
        finally:
            for stream in list(self.streams.values()):
                stream.end()
            self.link.close()

    def _receive(self, size: int) -> bytes:
        """`size` bytes, or none when the link is gone."""
        found = bytearray()
        while len(found) < size:
            part = self.link.recv(size - len(found))
            if not part:
                return b""
            found += part
        return bytes(found)

    def _handle(self, command: int, first: int, second: int, data: bytes) -> None:
        if command == CNXN:
            self.max_data = min(second, MAX_DATA)
            self._welcome()
        elif command == AUTH:
            self._welcome()  # whatever was signed, the answer stays the same
        elif command == OPEN:
            self._open(first, data.rstrip(b"\0").decode(errors="surrogateescape"))
        elif stream := self.streams.get(second):
            if command == OKAY:
                stream.acknowledged()
            elif command == WRTE:
                stream.receive(data)
            elif command == CLSE:
                stream.end()
                self.streams.pop(second, None)

    def _welcome(self) -> None:
        if self.banner is None:
            self.send(AUTH, AUTH_TOKEN, 0, os.urandom(20))
        else:
            self.send(CNXN, VERSION, MAX_DATA, self.banner)

    def _open(self, remote: int, name: str) -> None:
        serve = self.service(name)
        if serve is None or self.banner is None:
            return self.send(CLSE, 0, remote)
        stream = Stream(self, self._next_id, remote)
        self._next_id += 1
        self.streams[stream.local] = stream
        self.send(OKAY, stream.local, remote)
        threading.Thread(target=self._serve, args=(serve, stream), name=f"adbd {name[:20]}", daemon=True).start()

    def _serve(self, serve: Callable[[Stream], None], stream: Stream) -> None:
        try:
            serve(stream)
        except LinkLostError:
            pass
        finally:
            stream.close()
