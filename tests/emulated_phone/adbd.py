"""The phone's adbd: accepts the real adb client's connections on a local TCP port."""

import socket
import threading

from emulated_phone.shell import Shell
from emulated_phone.sync import Sync
from emulated_phone.wire import Connection

EMULATOR_PORTS = range(5554, 5586)  # an adb server looks for emulators there by itself


class Adbd:
    """Listens from `start` to `stop`; always on the same port, also after `go_away`."""

    def __init__(self, phone):
        self.phone = phone
        self.port, self._listener, self._return, self._ended = 0, None, None, False
        self._connections: set[Connection] = set()
        self._changing = threading.RLock()

    def start(self) -> None:
        with self._changing:
            if self._ended or self._listener:
                return
            self._listener = socket.create_server(("127.0.0.1", self.port))
            while not self.port and self._listener.getsockname()[1] in EMULATOR_PORTS:
                self._listener.close()
                self._listener = socket.create_server(("127.0.0.1", 0))
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), name="adbd", daemon=True).start()

    def stop(self) -> None:
        with self._changing:
            self._ended = True
            self._leave()

    def _leave(self) -> None:
        if self._return:
            self._return.cancel()
        if self._listener:
            self._close_listener()
        self.cut()

    def cut(self) -> None:
        """Drop every connection; new ones are welcome."""
        for connection in list(self._connections):
            connection.cut()

    def go_away(self, seconds: float) -> None:
        """Refuse connections for so long, then listen again."""
        with self._changing:
            self._leave()
            self._return = threading.Timer(seconds, self.start)
            self._return.daemon = True
            self._return.start()

    def _close_listener(self) -> None:
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes up the thread in accept()
        except OSError:
            pass  # not every system lets a listening socket be shut down
        self._listener.close()
        self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return  # closed
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stranger = self.phone.faults.take("unauthorized") is not None
            connection = Connection(link, None if stranger else self.phone.banner(), self._service)
            self._connections.add(connection)
            threading.Thread(target=self._run, args=(connection,), name="adbd link", daemon=True).start()

    def _run(self, connection: Connection) -> None:
        connection.run()
        self._connections.discard(connection)

    def _service(self, name: str):
        """What serves "shell,v2,raw:ls" and the like, or None."""
        kind, _, rest = name.partition(":")
        kind, *options = kind.split(",")
        if kind == "shell":
            version2 = "v2" in options
            return lambda stream: Shell(stream, self.phone, rest, version2, terminal=not version2).run()
        if kind == "exec":
            return lambda stream: Shell(stream, self.phone, rest, version2=False, terminal=False).run()
        if kind == "sync":
            return lambda stream: Sync(stream, self.phone).run()
        return None
