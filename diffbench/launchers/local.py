"""The default launcher: worker processes on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from diffbench.errors import DiffbenchError

START_SECONDS = 120                   # to import torch on a slow disk


@dataclass
class Handle:
    """A worker that was asked for."""

    id: str
    log: Path
    pid: int | None = None
    started: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    process: subprocess.Popen | None = None               # where it was spawned


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one worker gets."""

    device: str
    threads: int


class LocalLauncher:
    """Forks workers from a preloaded server where the system can fork, spawns them elsewhere."""

    def __init__(self, store: Path, plugins: list[str]):
        self.store, self.plugins = store.resolve(), plugins
        self.handles: dict[str, Handle] = {}
        self.ended: Queue[tuple[str, int]] = Queue()
        self.server: subprocess.Popen | None = None
        if hasattr(os, "fork") and sys.platform != "darwin":
            self._start_server()

    def submit(self, id: str, attempt: Path, resources: Resources) -> Handle:
        """Starts a worker on the task in an attempt's folder."""
        handle = Handle(id, attempt / "log.txt")
        self.handles[id] = handle
        arguments = {"store": str(self.store), "attempt": str(attempt.resolve()), "device": resources.device,
                     "threads": resources.threads, "plugins": self.plugins}
        environment = {"OMP_NUM_THREADS": str(resources.threads)}
        if "DIFFBENCH_DATA" in os.environ:                # may have been set after the server started
            environment["DIFFBENCH_DATA"] = os.environ["DIFFBENCH_DATA"]
        if self.server is not None:
            request = {"id": id, "log": str(handle.log.resolve()), "environment": environment, **arguments}
            try:
                self.server.stdin.write(json.dumps(request).encode() + b"\n")
                self.server.stdin.flush()
            except OSError:
                self.ended.put((id, -1))
            return handle
        with open(handle.log, "ab") as log:
            handle.process = subprocess.Popen(
                [sys.executable, "-m", "diffbench.worker", arguments["store"], arguments["attempt"], resources.device, str(resources.threads), *self.plugins],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **environment}, start_new_session=True)
        handle.pid = handle.process.pid
        threading.Thread(target=lambda: self.ended.put((id, handle.process.wait())), daemon=True).start()
        return handle

    def poll(self, seconds: float) -> list[tuple[Handle, int]]:
        """Workers that ended, with their exit codes (negative: a signal); waits at most this long for the first."""
        found = []
        with contextlib.suppress(Empty):
            found.append(self.ended.get(timeout=seconds))
            while True:
                found.append(self.ended.get_nowait())
        return [(self.handles.pop(id), code) for id, code in found if id in self.handles]

    def cancel(self, handle: Handle) -> None:
        """Kills a worker and all it started."""
        handle.cancelled = True
        if handle.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(handle.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kills what still runs and ends the server."""
        for handle in list(self.handles.values()):
            self.cancel(handle)
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
            elif "pid" in message and message["id"] in self.handles:
                handle = self.handles[message["id"]]
                handle.pid = message["pid"]
                if handle.cancelled:
                    self.cancel(handle)
            elif "ended" in message:
                self.ended.put((message["id"], message["ended"]))
        ready.put({})
        for id in list(self.handles):                     # the server is gone, and its children with it
            self.ended.put((id, -signal.SIGKILL))
