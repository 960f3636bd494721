"""A process with torch imported that forks a worker per request, in tens of milliseconds. Started by `processes`.

Requests and answers are JSON lines on its standard input and output. It never touches CUDA and computes nothing, so
that its children may. When its input closes, because the driver has ended in whatever way, it kills its children and
goes.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import sys
import traceback
from typing import Any

from diffbench.launchers.lifelines import adopt_orphans, end_orphans, end_with_parent, kill_group, kill_tree
from diffbench.launchers.requests import KillRequest, WorkerRequest
from diffbench.process import worker_settings
from diffbench.process.standard_streams import open_missing


def preload() -> None:
    """Imports all that workers need, and keeps it out of their garbage collections."""
    import sklearn.datasets  # noqa: F401
    import torch
    import torch._dynamo  # more than a second of every first optimiser

    from diffbench.process import import_path
    from diffbench.registry import entry_points
    from diffbench.store.stage_kinds import STAGE_KINDS

    for kind in STAGE_KINDS.values():
        importlib.import_module(kind.does.partition(":")[0])

    import_path.installation()
    # both read once for all workers; nothing of a stranger's is imported here
    entry_points.entry_points("diffbench")
    assert not torch.cuda.is_initialized(), "CUDA cannot be used in children of a process that has used it"
    gc.collect()
    gc.freeze()


def main() -> None:
    """Serves requests until standard input closes."""
    open_missing()                                        # before any descriptor is taken
    answers = os.dup(1)
    os.dup2(2, 1)                                         # whoever prints while being imported does not answer
    worker_settings.prepare()
    adopt_orphans()                                       # those of workers that have ended
    preload()
    with contextlib.suppress(BrokenPipeError):            # the driver ended while this was starting
        _ForkServer(answers).serve()
    # compilers that torch has loaded have much to say at an orderly exit
    os._exit(0)


class _ForkServer:
    """Forks, reaps and kills workers.

    A process number is used until it is reaped, while no other process can have it.
    """

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.children: dict[int, str] = {}                # pid -> id
        self.wake_read, self.wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(self.wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)

    def serve(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(0, selectors.EVENT_READ)
        selector.register(self.wake_read, selectors.EVENT_READ)
        pending = b""
        self.answer({"ready": os.getpid()})
        try:
            while True:
                for key, _ in selector.select():
                    if key.fd == self.wake_read:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self.wake_read, 4096)
                        continue
                    data = os.read(0, 65536)
                    if not data:
                        return
                    *lines, pending = (pending + data).split(b"\n")
                    for line in lines:
                        self.obey(line)
                self.reap()
        finally:
            for pid in self.children:
                kill_tree(pid)
            for pid in self.children:
                os.waitpid(pid, 0)
            end_orphans()

    def obey(self, line: bytes) -> None:
        fields = json.loads(line)
        if "kill" in fields:
            for pid, id in self.children.items():
                if id == KillRequest(**fields).kill:
                    kill_tree(pid)
            return
        request = WorkerRequest(**fields)
        server, pid = os.getpid(), os.fork()
        if pid == 0:
            become_worker(request, server, (self.wake_read, self.wake_write, self.answers))
        self.children[pid] = request.id

    def reap(self) -> None:
        """Reports every worker that has ended, and kills what it left behind, in its group or outside."""
        while True:
            try:
                child = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:                     # there is no child
                return
            if child is None:
                return
            kill_group(child.si_pid)                      # before it is reaped, while the number is its own
            end_orphans(self.children)                    # those of a worker that lives are its own children
            _, status = os.waitpid(child.si_pid, 0)
            if child.si_pid in self.children:
                self.answer({"id": self.children.pop(child.si_pid), "code": os.waitstatus_to_exitcode(status)})

    def answer(self, message: dict[str, Any]) -> None:
        """Writes one line to the driver."""
        os.write(self.answers, json.dumps(message).encode() + b"\n")


def become_worker(request: WorkerRequest, server: int, inherited: tuple[int, ...]) -> None:
    """Runs in the child: leaves the server's group and descriptors, does the stage, and exits without clean-up."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        end_with_parent(server)
        adopt_orphans()
        for descriptor in inherited:
            os.close(descriptor)
        null, log = os.open(os.devnull, os.O_RDONLY), os.open(request.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND,
                                                              0o644)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(request.environment)
        code = _run(request.store, request.attempt, request.threads)
    except BaseException:  # noqa: BLE001  the log is the last place a message can go
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run(store: str, attempt: str, threads: int) -> int:
    import threadpoolctl

    from diffbench.stages import worker

    with threadpoolctl.threadpool_limits(threads):        # libraries that are loaded have read OMP_NUM_THREADS long ago
        return worker.run(store, attempt)


if __name__ == "__main__":
    main()
