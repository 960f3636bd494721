"""A process with torch imported that forks a worker per request: a worker starts in tens of milliseconds, not seconds.

Requests and answers are JSON lines on its standard input and output. It never touches CUDA, so that its children may. When
its input closes, because the driver has ended in whatever way, it kills its children and goes.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import sys
import traceback
from typing import Any

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serves until standard input closes."""
    import diffbench.stages  # noqa: F401  this import is what the server is for
    from diffbench import worker

    children: dict[int, str] = {}
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(wake_read, selectors.EVENT_READ)
    pending = b""
    answer({"ready": os.getpid()})
    while True:
        for key, _ in selector.select():
            if key.fd == wake_read:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
                reap(children)
                continue
            data = os.read(0, 65536)
            if not data:
                for pid in children:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    become_worker(request, worker.run, (wake_read, wake_write))
                children[pid] = request["id"]
                answer({"id": request["id"], "pid": pid})
        reap(children)


def become_worker(request: dict[str, Any], run: Any, inherited: tuple[int, int]) -> None:
    """In the child: cut every tie to the server, do the stage, leave without running the server's clean-up."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for descriptor in inherited:
            os.close(descriptor)
        null, log = os.open(os.devnull, os.O_RDONLY), os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(request["environment"])
        code = run(request["store"], request["attempt"])
    except BaseException:  # noqa: BLE001  the log is the last place a message can go
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def reap(children: dict[int, str]) -> None:
    """Reports every child that has ended."""
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        answer({"id": children.pop(pid), "ended": os.waitstatus_to_exitcode(status)})


def answer(message: dict[str, Any]) -> None:
    """One line to the driver."""
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
