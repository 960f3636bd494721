"""The default launcher: worker processes on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any

from diffbench.errors import DiffbenchError
from diffbench.launchers import Capacity, Ended, Job, Launcher
from diffbench.machine import cores

START_SECONDS = 120                   # to import torch on a slow disk
PASSED_ON = ("DIFFBENCH_DATA",)       # may have been set after the server started


@dataclass
class _Worker:
    job: Job
    pid: int | None = None
    cancelled: bool = False


class LocalLauncher(Launcher):
    """Forks workers from a preloaded server where the system can fork, spawns them elsewhere."""

    def __init__(self) -> None:
        self.workers: dict[str, _Worker] = {}
        self.ended: Queue[tuple[str, int]] = Queue()
        self.server: subprocess.Popen | None = None

    def capacity(self, device: str, widest: int, jobs: int | None) -> Capacity:
        """On a CPU the cores are divided among as many stages as can run at once; a GPU takes one at a time unless told otherwise."""
        if jobs is None:
            jobs = 1 if device == "cuda" else min(cores(), widest)
        return Capacity(slots=jobs, threads=max(1, cores() // jobs), machines=1)

    def submit(self, job: Job) -> None:
        if self.server is None and hasattr(os, "fork") and sys.platform != "darwin":
            self._start_server()
        worker = self.workers[job.id] = _Worker(job)
        environment = {"OMP_NUM_THREADS": str(job.resources.threads), **{name: os.environ[name] for name in PASSED_ON if name in os.environ}}
        log, arguments = str((job.attempt / "log.txt").resolve()), {"store": str(job.store.resolve()), "attempt": str(job.attempt.resolve())}
        if self.server is not None:
            try:
                self.server.stdin.write(json.dumps({"id": job.id, "log": log, "environment": environment, **arguments}).encode() + b"\n")
                self.server.stdin.flush()
            except OSError:
                self.ended.put((job.id, -signal.SIGKILL))
            return
        with open(log, "ab") as words:
            process = subprocess.Popen([sys.executable, "-m", "diffbench.worker", arguments["store"], arguments["attempt"]],
                                       stdin=subprocess.DEVNULL, stdout=words, stderr=words, env={**os.environ, **environment}, start_new_session=True)
        worker.pid = process.pid
        threading.Thread(target=lambda: self.ended.put((job.id, process.wait())), daemon=True).start()

    def poll(self, seconds: float) -> list[Ended]:
        found = []
        with contextlib.suppress(Empty):
            found.append(self.ended.get(timeout=seconds))
            while True:
                found.append(self.ended.get_nowait())
        return [Ended(id=id, code=code) for id, code in found if self.workers.pop(id, None) is not None]

    def cancel(self, id: str) -> None:
        worker = self.workers.get(id)
        if worker is None:
            return
        worker.cancelled = True
        if worker.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.pid, signal.SIGKILL)

    def close(self) -> None:
        for id in list(self.workers):
            self.cancel(id)
        if self.server is not None:
            with contextlib.suppress(OSError):
                self.server.stdin.close()
            try:
                self.server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.server.kill()

    def _start_server(self) -> None:
        # A session of its own: Ctrl-C reaches the driver only, which then decides.
        command = [sys.executable, "-m", "diffbench.launchers.forkserver"]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        ready: Queue[dict[str, Any]] = Queue()
        threading.Thread(target=self._listen, args=(ready,), daemon=True).start()
        try:
            if "ready" not in ready.get(timeout=START_SECONDS):
                raise DiffbenchError("the worker server ended before it was ready; its message is above")
        except Empty:
            self.server.kill()
            raise DiffbenchError(f"the worker server was not ready after {START_SECONDS} s") from None

    def _listen(self, ready: Queue[dict[str, Any]]) -> None:
        for line in self.server.stdout:
            message = json.loads(line)
            if "ready" in message:
                ready.put(message)
            elif "pid" in message and message["id"] in self.workers:
                worker = self.workers[message["id"]]
                worker.pid = message["pid"]
                if worker.cancelled:
                    self.cancel(message["id"])
            elif "ended" in message:
                self.ended.put((message["id"], message["ended"]))
        ready.put({})
        for id in list(self.workers):                     # the server is gone, and its children with it
            self.ended.put((id, -signal.SIGKILL))
