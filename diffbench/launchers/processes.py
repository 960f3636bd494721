"""Worker processes on this machine, forked from a preloaded server on Linux, spawned elsewhere.

Used by `local` and `ray`.

What the local launcher and the tasks of Ray have in common: start, kill, hear of the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

from diffbench.errors import NoWorkers
from diffbench.launchers import Ended
from diffbench.launchers.lifelines import kill_group, kill_tree
from diffbench.launchers.requests import KillRequest, WorkerRequest
from diffbench.process import import_path
from diffbench.wording import as_reason

# elsewhere the system's own libraries do not survive a fork, or nothing ends an orphan
CAN_FORK = sys.platform == "linux"
START_SECONDS = 120                   # to import torch on a slow disk
POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Processes:
    """Workers by id. They end with their owner, in whatever way it ends."""

    def __init__(self) -> None:
        self.ends: SimpleQueue[Ended] = SimpleQueue()
        self.server: _Server | None = None
        self.apart: dict[str, _Server] = {}               # by id of their one worker
        self.spawned: dict[str, _Spawned] = {}

    def start(self, id: str, store: Path, attempt: Path, threads: int, gpus: str, is_apart: bool = False) -> None:
        """Starts the worker of an attempt. Raises NoWorkers where no worker can be started.

        gpus: its CUDA_VISIBLE_DEVICES; is_apart: whether it is forked from a server of its own, where there are
        servers.
        """
        environment = {**dict.fromkeys(POOLS, str(threads)), "CUDA_VISIBLE_DEVICES": gpus, **passed_on()}
        request = WorkerRequest(id=id, store=str(store.resolve()), attempt=str(attempt.resolve()), threads=threads,
                                log=str(attempt.resolve() / "log.txt"), environment=environment)
        if not CAN_FORK:
            self.spawned = {name: worker for name, worker in self.spawned.items() if worker.process.poll() is None}
            self.spawned[id] = _Spawned(request, self.ends)
        elif is_apart:
            self.apart[id] = _start_server(self.ends)
            self.apart[id].send(request)
        elif self.server is None or not self.server.send(request):
            self.server = _start_server(self.ends)        # the first, or in place of one that has ended
            self.server.send(request)

    def kill(self, id: str) -> None:
        """Kills a worker and all it started; its end is reported as any other."""
        for server in self._servers():
            server.kill(id)
        if id in self.spawned:
            self.spawned[id].kill()

    def wait(self, seconds: float) -> list[Ended]:
        """Workers that ended since the last call; waits at most this long for the first."""
        ends = []
        with contextlib.suppress(Empty):
            ends.append(self.ends.get(timeout=seconds))
            while True:
                ends.append(self.ends.get_nowait())
        for end in ends:
            if end.id in self.apart:
                self.apart.pop(end.id).close()
        return ends

    def close(self) -> None:
        """Kills all workers."""
        for worker in self.spawned.values():
            worker.kill()
        for server in self._servers():
            server.close()
        self.server, self.apart = None, {}

    def _servers(self) -> list[_Server]:
        return [*self.apart.values(), *([self.server] if self.server is not None else [])]


def _start_server(ends: SimpleQueue[Ended]) -> _Server:
    """A server that is ready; one that was killed while it started is started once more."""
    try:
        return _Server(ends)
    except NoWorkers:
        return _Server(ends)


def passed_on() -> dict[str, str]:
    """Variables of the driver's environment that workers need even where they do not inherit them."""
    return {name: value for name, value in os.environ.items() if name.startswith("DIFFBENCH_")
            or name in ("PYTHONPATH", "TORCH_HOME")}


def server_process(environment: Mapping[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    """A fork server that starts, in a session of its own, so that Ctrl-C reaches the driver only. Used by `_Server`."""
    command = import_path.command("diffbench.launchers.forkserver")
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, env=environment,
                            start_new_session=True)


class _Server:
    """The driver's side of one fork server."""

    def __init__(self, ends: SimpleQueue[Ended]):
        self.ends, self.jobs, self.is_over, self.lock = ends, set[str](), False, threading.Lock()
        # a pool of threads would not survive the fork
        quiet = {**os.environ, **dict.fromkeys(POOLS, "1")}
        self.output = tempfile.TemporaryFile()            # what it says: a display on the terminal would be torn by it
        self.process = server_process(quiet, self.output)
        ready: SimpleQueue[bool] = SimpleQueue()
        threading.Thread(target=self._listen, args=(ready,), name="workers", daemon=True).start()
        try:
            is_ready = ready.get(timeout=START_SECONDS)
        except Empty:
            self.process.kill()
            raise NoWorkers(f"the worker server was not ready after {START_SECONDS} s; {self._last_words()}") from None
        if not is_ready:
            code = self.process.wait()
            how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            raise NoWorkers(f"the worker server {how} before it was ready; {self._last_words()}")

    def send(self, request: WorkerRequest) -> bool:
        """Has a worker forked. False where the server has ended; otherwise the end of the worker will be reported."""
        with self.lock:
            if self.is_over:
                return False
            self.jobs.add(request.id)
        self._write(request)
        return True

    def kill(self, id: str) -> None:
        if id in self.jobs:
            self._write(KillRequest(kill=id))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            kill_tree(self.process.pid)
            self.process.wait()

    def _last_words(self) -> str:
        self.output.seek(max(0, self.output.seek(0, os.SEEK_END) - 4096))
        last = self.output.read().decode(errors="replace").strip().splitlines()[-3:]
        return as_reason(f"its last words: {' | '.join(last)}") if last else "it said nothing"

    def _write(self, request: WorkerRequest | KillRequest) -> None:
        with contextlib.suppress(OSError):                # it has just ended; `_listen` will say so
            self.process.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
            self.process.stdin.flush()

    def _listen(self, ready: SimpleQueue[bool]) -> None:
        for line in self.process.stdout:
            message = json.loads(line)
            if "ready" in message:
                ready.put(True)
            else:
                self.jobs.discard(message["id"])
                self.ends.put(Ended(id=message["id"], code=message["code"]))
        with self.lock:
            self.is_over = True
        ready.put(False)
        for id in self.jobs:                              # the kernel ended them with the server
            self.ends.put(Ended(id=id, code=-signal.SIGKILL, is_lost=True,
                                 reason="the process that workers are forked from has ended, and this one with it"))


class _Spawned:
    """One worker with an interpreter of its own."""

    def __init__(self, request: WorkerRequest, ends: SimpleQueue[Ended]):
        command = import_path.command("diffbench.launchers.child", request.store, request.attempt)
        with open(request.log, "ab") as words:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=words, stderr=words,
                                            env={**os.environ, **request.environment}, start_new_session=True)

        def watch() -> None:
            code = self.process.wait()
            kill_group(self.process.pid)
            self.process.stdin.close()
            ends.put(Ended(id=request.id, code=code))
        threading.Thread(target=watch, name="worker", daemon=True).start()

    def kill(self) -> None:
        if self.process.poll() is None:
            kill_tree(self.process.pid)
