"""Who does the jobs: worker processes on this machine, or actors on a Ray cluster. Both give (job, answer) pairs."""

import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
WORKER = "tfcompress.study.worker"  # the module whose `work` does the jobs
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "TF_ENABLE_ONEDNN_OPTS": "1", **ONE_THREAD}


class LocalPool:
    """`workers` processes; each writes what it prints to `logs/worker-<n>.log` in `folder`."""

    def __init__(self, workers: int, folder, module: str = WORKER):
        if workers < 1:
            raise ValueError(f"Expected workers >= 1. Received: {workers}")
        self.logs = Path(folder) / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.workers, self.module = workers, module
        self.processes: dict[int, subprocess.Popen] = {}

    def run(self, jobs: list[dict]) -> Iterator[tuple[dict, dict]]:
        """Do all jobs; yields `(job, {"record": ...} or {"error": ...})` as they end."""
        waiting, done = queue.SimpleQueue(), queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)
        for number in range(min(self.workers, len(jobs))):
            threading.Thread(target=self._feed, args=(number, waiting, done), daemon=True).start()
        for _ in jobs:
            yield done.get()

    def _feed(self, number: int, waiting, done) -> None:
        while True:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            done.put((job, self._ask(number, job)))

    def _ask(self, number: int, job: dict) -> dict:
        process = self.processes.get(number) or self._start(number)
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line:
            return json.loads(line)
        self.processes.pop(number, None)
        code = process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return {"error": f"The worker process {how}; see {self.logs / f'worker-{number}.log'}"}

    def _start(self, number: int) -> subprocess.Popen:
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        with open(self.logs / f"worker-{number}.log", "a") as log:
            self.processes[number] = subprocess.Popen(
                [sys.executable, "-m", self.module], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, text=True, env=os.environ | ENVIRONMENT | {"PYTHONPATH": paths}, start_new_session=True,
            )  # fmt: skip
        return self.processes[number]

    def close(self) -> None:
        """End the workers; a job under way is lost, and made again at the next start."""
        for process in list(self.processes.values()):
            process.terminate()
            process.wait()
        self.processes.clear()


class RayPool:
    """`workers` actors on the Ray cluster at `address` ("auto", "host:port", or "local" for one on this machine).

    The cluster's machines need tfcompress and, for heartbeats, TFCOMPRESS_DATA; files travel with the jobs.
    """

    def __init__(self, workers: int, address: str, module: str = WORKER):
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("A study on a Ray cluster needs Ray: pip install 'tfcompress[ray]'") from error
        self.ray = ray
        root = str(Path(__file__).resolve().parents[2])
        options = {"include_dashboard": False} if address == "local" else {}
        environment = {"env_vars": ENVIRONMENT | {"PYTHONPATH": root}}
        ray.init(address, runtime_env=environment, log_to_driver=False, logging_level="WARNING", **options)
        cores = int(ray.cluster_resources().get("CPU", 0))
        if not 1 <= workers <= cores:
            ray.shutdown()
            raise ValueError(f"Expected 1 to {cores} workers, the cores of the Ray cluster. Received: {workers}")
        self.actors = [ray.remote(num_cpus=1)(RayWorker).remote(module) for _ in range(workers)]

    def run(self, jobs: list[dict]) -> Iterator[tuple[dict, dict]]:
        """As `LocalPool.run`."""
        jobs, idle, running = list(jobs), list(self.actors), {}
        while jobs or running:
            while jobs and idle:
                job, actor = jobs.pop(0), idle.pop()
                control = Path(job["control"])
                content = control.read_bytes() if control.exists() else None
                running[actor.work.remote(job, content)] = (job, actor)
            [ready], _ = self.ray.wait(list(running))
            job, actor = running.pop(ready)
            idle.append(actor)
            yield job, self._answer(ready, job)

    def _answer(self, ready, job: dict) -> dict:
        from android_bench.store import write_file

        try:
            answer, files = self.ray.get(ready)
        except self.ray.exceptions.RayError as error:
            return {"error": f"Ray: {error}"}
        for key, content in files.items():
            write_file(job[key], content)
        return answer

    def close(self) -> None:
        self.ray.shutdown()


class RayWorker:
    """The actor: as the worker process, but files come in and go out as bytes."""

    def __init__(self, module: str = WORKER):
        from .worker import pin

        pin()
        self.module = module

    def work(self, job: dict, control: bytes | None) -> tuple[dict, dict]:
        work = importlib.import_module(self.module).work
        with tempfile.TemporaryDirectory(prefix="study-") as folder:
            paths = {key: str(Path(folder) / Path(job[key]).name) for key in ("control", "output")}
            if control is not None:
                Path(paths["control"]).write_bytes(control)
            try:
                answer = {"record": work(**(job | paths))}
            except Exception as error:  # noqa: BLE001 - one failed cell must not end the study; the driver reports it
                return {"error": f"{type(error).__name__}: {error}"}, {}
            made = "output" if control is not None else "control"
            return answer, {made: Path(paths[made]).read_bytes()}
