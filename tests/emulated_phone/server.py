"""An adb server of a test's own: the real program, on a free port, with a home of its own, gone at the end."""

import os
import socket
import subprocess
import tempfile
import time

import adbutils


class AdbServer:
    """Context manager.

    Attributes:
        port: of the server, for `adb -P PORT` or ANDROID_ADB_SERVER_PORT.
        adb: path of the adb program.
        environment: what the adb client needs to reach this server.
    """

    def __init__(self):
        self.adb = adbutils.adb_path()
        self.port, self.environment, self._process, self._home = 0, {}, None, None

    def __enter__(self) -> "AdbServer":
        self._home = tempfile.TemporaryDirectory(prefix="adb-home-")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        # without ADB_USB=0 and ADB_EMU=0 the first answer takes 3 s: the server looks for real devices
        self.environment = os.environ | {
            "HOME": self._home.name, "TMPDIR": self._home.name, "ANDROID_USER_HOME": self._home.name,
            "ADB_MDNS": "0", "ADB_USB": "0", "ADB_EMU": "0", "ANDROID_ADB_SERVER_PORT": str(self.port),
        }  # fmt: skip
        self.environment.pop("ANDROID_SERIAL", None)
        with open(os.path.join(self._home.name, "server.log"), "wb") as log:
            self._process = subprocess.Popen(
                [self.adb, "-P", str(self.port), "server", "nodaemon"], env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._wait_until_it_answers()
        return self

    def __exit__(self, *_) -> None:
        self._process.terminate()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._home.cleanup()

    def run(self, *arguments: str, timeout: float = 20, **options) -> subprocess.CompletedProcess:
        """The adb client with these arguments; stdout and stderr are bytes."""
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([self.adb, *arguments], env=self.environment, capture_output=True, timeout=timeout,
                              check=False, **options)  # fmt: skip

    def connect(self, address: str) -> str:
        """`adb connect ADDRESS`; what adb said ("connected to ...", "failed to authenticate to ...")."""
        return self.run("connect", address).stdout.decode().strip()

    def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except ConnectionRefusedError:
                if time.monotonic() > end or self._process.poll() is not None:
                    log = open(os.path.join(self._home.name, "server.log")).read()
                    self.__exit__()
                    raise RuntimeError(f"adb's server does not answer on port {self.port}: {log}") from None
                time.sleep(0.005)
