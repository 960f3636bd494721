"""Worker processes on this machine, forked from a preloaded server where the system can (Linux), spawned elsewhere.

What the local launcher and the tasks of Ray have in common: start, kill, hear of the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from diffbench.errors import DiffbenchError
from diffbench.launchers import Ended
from diffbench.launchers.lifelines import kill_group, kill_tree

CAN_FORK = sys.platform == "linux"    # elsewhere the system's own libraries do not survive a fork, or nothing ends an orphan
START_SECONDS = 120                   # to import torch on a slow disk
POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Processes:
    """Workers by id. Ends with its owner, and they with it, in whatever way the owner ends."""

    def __init__(self) -> None:
        self.ended: SimpleQueue[Ended] = SimpleQueue()
        self.server: _Server | None = None
        self.spawned: dict[str, _Spawned] = {}

    def start(self, id: str, store: Path, attempt: Path, threads: int, gpus: str) -> None:
        """Starts the worker of an attempt; `gpus` becomes its CUDA_VISIBLE_DEVICES. Raises DiffbenchError where no worker can be started at all."""
        environment = {**dict.fromkeys(POOLS, str(threads)), "CUDA_VISIBLE_DEVICES": gpus, **passed_on()}
        request = {"id": id, "store": str(store.resolve()), "attempt": str(attempt.resolve()), "threads": threads,
                   "log": str(attempt.resolve() / "log.txt"), "environment": environment}
        if not CAN_FORK:
            self.spawned = {name: worker for name, worker in self.spawned.items() if worker.process.poll() is None}
            self.spawned[id] = _Spawned(request, self.ended)
        elif self.server is None or not self.server.send(request):
            self.server = _Server(self.ended)             # the first, or in place of one that has ended
            self.server.send(request)

    def kill(self, id: str) -> None:
        """Kills a worker and what it started; its end is told as any other."""
        if self.server is not None:
            self.server.kill(id)
        if id in self.spawned:
            self.spawned[id].kill()

    def wait(self, seconds: float) -> list[Ended]:
        """Workers that ended since the last call; waits at most this long for the first."""
        found = []
        with contextlib.suppress(Empty):
            found.append(self.ended.get(timeout=seconds))
            while True:
                found.append(self.ended.get_nowait())
        return found

    def close(self) -> None:
        """Kills all."""
        for worker in self.spawned.values():
            worker.kill()
        if self.server is not None:
            self.server.close()
            self.server = None


def passed_on() -> dict[str, str]:
    """What workers need of the driver's environment even where they do not inherit it, or were started before it was set."""
    return {name: value for name, value in os.environ.items() if name.startswith("DIFFBENCH_") or name in ("PYTHONPATH", "TORCH_HOME")}


class _Server:
    """The driver's side of one fork server."""

    def __init__(self, ended: SimpleQueue[Ended]):
        self.ended, self.jobs, self.over, self.lock = ended, set[str](), False, threading.Lock()
        # A session of its own: Ctrl-C reaches the driver only, which then decides.
        command = [sys.executable, "-m", "diffbench.launchers.forkserver"]
        quiet: Mapping[str, str] = {**os.environ, **dict.fromkeys(POOLS, "1")}       # a pool of threads would not survive the fork
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=quiet, start_new_session=True)
        ready: SimpleQueue[bool] = SimpleQueue()
        threading.Thread(target=self._listen, args=(ready,), name="workers", daemon=True).start()
        try:
            is_ready = ready.get(timeout=START_SECONDS)
        except Empty:
            self.process.kill()
            raise DiffbenchError(f"the worker server was not ready after {START_SECONDS} s") from None
        if not is_ready:
            raise DiffbenchError("the worker server ended before it was ready; its message is above")

    def send(self, request: dict[str, Any]) -> bool:
        """Has a worker forked; False where the server has ended. Once True, the end of the worker will be told."""
        with self.lock:
            if self.over:
                return False
            self.jobs.add(request["id"])
        self._write(request)
        return True

    def kill(self, id: str) -> None:
        if id in self.jobs:
            self._write({"kill": id})

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            kill_tree(self.process.pid)
            self.process.wait()

    def _write(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):                # it has just ended; `_listen` will say so
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def _listen(self, ready: SimpleQueue[bool]) -> None:
        for line in self.process.stdout:
            message = json.loads(line)
            if "ready" in message:
                ready.put(True)
            else:
                self.jobs.discard(message["id"])
                self.ended.put(Ended(id=message["id"], code=message["code"]))
        with self.lock:
            self.over = True
        ready.put(False)
        for id in self.jobs:                              # the kernel ended them with the server
            self.ended.put(Ended(id=id, code=-signal.SIGKILL, reason="the process that workers are forked from has ended, and this one with it"))


class _Spawned:
    """One worker with an interpreter of its own."""

    def __init__(self, request: dict[str, Any], ended: SimpleQueue[Ended]):
        command = [sys.executable, "-m", "diffbench.launchers.child", request["store"], request["attempt"]]
        with open(request["log"], "ab") as words:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=words, stderr=words,
                                            env={**os.environ, **request["environment"]}, start_new_session=True)

        def watch() -> None:
            code = self.process.wait()
            kill_group(self.process.pid)
            self.process.stdin.close()
            ended.put(Ended(id=request["id"], code=code))
        threading.Thread(target=watch, name="worker", daemon=True).start()

    def kill(self) -> None:
        if self.process.poll() is None:
            kill_tree(self.process.pid)
