"""One child process that converts, quantizes and runs files, so that a crash of TensorFlow is an error and not the end.

The child imports TensorFlow once (7 s), then forks for each job: a job that dies takes only its fork with it. It starts
at the first job, lives as long as this process, and sees only files in a temporary folder.
"""

import atexit
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path


class ConversionError(RuntimeError):
    """A model could not be converted, or the file made from it does not load or run."""


class InputError(ValueError):
    """Raised inside a job where the user's input is at fault: it comes out of ``run`` as a plain ValueError."""


class Worker:
    """The parent's end of the pipe. ``run`` may be called from several threads; jobs then wait for each other."""

    def __init__(self):
        self._lock = threading.Lock()
        self._process = None
        self._owner = None

    def start(self):
        """Start importing TensorFlow in the child without waiting for it."""
        alive = self._process is not None and self._owner == os.getpid() and self._process.poll() is None
        if alive:
            return
        environment = dict(os.environ, CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="2")
        environment.pop("TF_USE_LEGACY_KERAS", None)
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        )  # fmt: skip

    def run(self, job, folder, **arguments):
        """Run ``jobs.<job>(**arguments)`` in the child and return its value (what JSON can hold).

        Args:
            job: name of a function of ``tfcompress/conversion/jobs.py``.
            folder: an existing folder for the job's log and answer.

        Raises:
            ConversionError: the job failed; the message holds its reason, or the signal that ended it.
        """
        folder = Path(folder)
        answer, log = folder / f"{job}.json", folder / f"{job}.log"
        answer.unlink(missing_ok=True)
        request = json.dumps({"job": job, "arguments": arguments, "answer": str(answer), "log": str(log)})
        with self._lock:
            self.start()
            try:
                self._process.stdin.write(request + "\n")
                self._process.stdin.flush()
                reply = self._process.stdout.readline()
            except BrokenPipeError:
                reply = ""
            except KeyboardInterrupt:
                self.stop()
                raise
            if not reply:
                code = self._process.wait()
                raise ConversionError(
                    f"The conversion process could not work (exit code {code}). Is TensorFlow installed?"
                )
        return _read_answer(job, json.loads(reply)["exit_code"], answer, log)

    def stop(self):
        """End the child."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
        self._process = None


def _read_answer(job, exit_code, answer, log):
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        raise ConversionError(f"The {job} step died with signal {-exit_code} ({name}) in its own process.{_tail(log)}")
    if exit_code or not answer.exists():
        raise ConversionError(f"The {job} step ended with exit code {exit_code}.{_tail(log)}")
    content = json.loads(answer.read_text())
    if content.get("kind") == InputError.__name__:
        raise ValueError(content["error"])
    if "error" in content:
        raise ConversionError(content["error"])
    return content["value"]


def _tail(log, lines=4):
    """The last lines of a log that say what went wrong; TensorFlow fills logs with advice."""
    text = log.read_text(errors="replace") if log.exists() else ""
    told = [line for line in text.splitlines() if re.search(r"fatal|error|check failed|abort|terminate", line, re.I)]
    return "\nIts last words:\n  " + "\n  ".join(told[-lines:]) if told else ""


worker = Worker()
atexit.register(worker.stop)


# ---- the child's end ------------------------------------------------------------------------------------------------


def _import_jobs():
    """Import ``tfcompress.conversion.jobs`` without running ``tfcompress/__init__``, which would import Keras."""
    import types

    for name, folder in (("tfcompress", Path(__file__).parents[1]), ("tfcompress.conversion", Path(__file__).parent)):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    from tfcompress.conversion import jobs

    jobs.warm_up()
    return jobs


def _serve():
    """Read a request a line, fork, answer with the fork's exit code (negative: the signal that ended it)."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
    jobs = _import_jobs()
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _work(jobs, request)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        replies.write(json.dumps({"exit_code": code}) + "\n")
        replies.flush()


def _work(jobs, request):
    """In the fork: run one job, write its answer, leave without cleaning up after the parent."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        content = {"value": getattr(jobs, request["job"])(**request["arguments"])}
    except Exception as error:  # noqa: BLE001 - whatever went wrong is handed to the parent, which raises it
        kind = type(error).__name__
        ours = kind in (InputError.__name__, ConversionError.__name__)
        content = {"error": str(error) if ours else f"{kind}: {error}", "kind": kind}
    Path(request["answer"]).write_text(json.dumps(content))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    _serve()
