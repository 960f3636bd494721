"""How processes end together: a worker with whoever started it, and all that a worker started with the worker."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """The kernel kills this process when the thread that started it ends (Linux). Leaves at once where `parent` is no more."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:                        # it ended before the kernel was asked
            os._exit(1)


def end_with_pipe(descriptor: int) -> None:
    """Has this process, and all it starts, killed when the other end of a pipe closes. To be called before anything large is imported.

    A process of its own watches: a thread would wait for a stage that hangs in native code.
    """
    worker = os.getpid()
    if os.fork() != 0:
        os.close(descriptor)
        return
    os.setsid()                                           # out of the group it may have to kill
    with contextlib.suppress(OSError):
        while os.read(descriptor, 1):
            pass
    if os.getppid() == worker:                            # else it has ended, and its number may be another's
        kill_tree(worker)
    os._exit(0)


def kill_tree(pid: int) -> None:
    """Kills a worker that leads a group, what it started, and what those started, also outside the group; no error where it is gone."""
    for one in set(_descendants(pid)) - {os.getpid()}:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(one, signal.SIGKILL)
    kill_group(pid)


def kill_group(pid: int) -> None:
    """Kills what is left of the group that a worker led."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    """Processes below one, as /proc tells; none on systems without it."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
