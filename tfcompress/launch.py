"""Starts the workers of a distributed training: processes of the user's own script, each told by TF_CONFIG who it is.

Ray Train does the same (it sets TF_CONFIG, too), but wants the script as a function and Ray on every machine.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GRACE_SECONDS = 5                                        # between "stop" and "stop now"
TAIL_LINES = 20


def train(command, workers=1, *, hosts=(), index=0, restarts=0):
    """Run ``python command...`` as the workers of one training; returns the exit code of the first that failed, or 0.

    Worker 0, the chief, has this terminal; the end of what another one said is shown where it fails. One that fails
    ends all. Ctrl-C and SIGTERM end all, too; a SIGKILL of this process alone leaves them behind.

    Args:
        command: the script and its arguments.
        workers: processes on this machine, which find each other at free ports of 127.0.0.1.
        hosts: instead, ``["host:port", ...]``, one a machine, the same list on each: this one runs worker ``index``.
        index: of this machine in ``hosts``.
        restarts: so many times, all are started anew after one failed.

    Raises:
        ValueError: no such script, or numbers that make no sense.

    >>> train(["-c", "raise SystemExit(3)"])
    3
    """
    if hosts and not 0 <= index < len(hosts):
        raise ValueError(f"`index` is the place of this machine in hosts, 0 to {len(hosts) - 1}. Received: {index}.")
    if workers < 1 or restarts < 0:
        raise ValueError(f"Expected workers >= 1 and restarts >= 0. Received: {workers} and {restarts}.")
    if not command[0].startswith("-") and not Path(command[0]).is_file():
        raise ValueError(f"No script at '{command[0]}'. Expected a Python file, then its arguments.")
    for attempt in range(restarts + 1):
        found = list(hosts) or [f"127.0.0.1:{port}" for port in _free_ports(workers)]
        code, reason = _run(command, found, [index] if hosts else range(workers))
        if code == 0 or attempt == restarts:
            break
        print(f"{reason}: starting all workers again ({attempt + 1} of {restarts})", file=sys.stderr)
    return code


def _free_ports(count):
    """Ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _environment(hosts, index, local):
    """That of worker ``index``, one of ``local`` on this machine."""
    root = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    environment.pop("TF_CONFIG", None)
    if len(hosts) > 1:
        task = {"type": "worker", "index": index}
        environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": hosts}, "task": task})
    if local > 1:                                        # else each would take all cores
        environment.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, (os.cpu_count() or 1) // local)))
    return environment


def _run(command, hosts, indices):
    """One attempt: ``(exit code, what failed)``."""
    processes = {}
    with contextlib.ExitStack() as stack:
        logs = {i: stack.enter_context(tempfile.TemporaryFile("w+")) for i in indices if i != indices[0]}
        stack.callback(_stop, processes)
        stack.enter_context(_signals_raise())
        for i in indices:
            output = {"stdout": logs[i], "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL} if i in logs else {}
            processes[i] = subprocess.Popen([sys.executable, *command], start_new_session=True, **output,
                                            env=_environment(hosts, i, len(indices)))
        while True:
            codes = {i: process.poll() for i, process in processes.items()}
            failed = sorted((i for i in codes if codes[i]), key=lambda i: codes[i] < 0)     # errors first, then aborts
            if failed:
                break
            if all(code == 0 for code in codes.values()):
                return 0, ""
            time.sleep(0.1)
        _stop(processes)
        for i in failed:
            _tell(i, codes[i], logs.get(i))
    code = codes[failed[0]]
    return (code if code > 0 else 128 - code), _how(failed[0], code)


def _how(index, code):
    name = f"worker {index}"
    return f"{name} was killed by {signal.Signals(-code).name}" if code < 0 else f"{name} ended with exit code {code}"


def _tell(index, code, log):
    print(_how(index, code) + (". It said last:" if log else ""), file=sys.stderr)
    if log:
        log.seek(0)
        sys.stderr.writelines(log.readlines()[-TAIL_LINES:])


def _stop(processes):
    """End what still runs, and all that it started."""
    for sent, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, None)):
        running = [process for process in processes.values() if process.poll() is None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sent)
        end = time.monotonic() + (seconds or 0)
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(None if seconds is None else max(0, end - time.monotonic()))


@contextlib.contextmanager
def _signals_raise():
    """Inside, SIGTERM and SIGHUP raise SystemExit, so that the workers are stopped."""
    def leave(number, frame):
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
