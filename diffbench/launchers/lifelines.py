"""Processes that end together: a worker with its driver, and all that a worker started with the worker.

Used by launchers.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def end_with_parent(parent: int) -> None:
    """Has the kernel kill this process when the thread that started it ends (Linux). Exits where `parent` has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:                        # it ended before the kernel was asked
            os._exit(1)


def adopt_orphans() -> None:
    """Makes this process the parent of all below it whose parent ends (Linux), so that it finds them, daemons too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_orphans(kept_pids: Iterable[int] = ()) -> None:
    """Kills the children of this process but those in `kept_pids`, and all that these started."""
    for pid in _by_parent()[os.getpid()]:
        if pid not in kept_pids:
            kill_tree(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def end_with_pipe(descriptor: int) -> None:
    """Kills this process and all it starts when the other end of a pipe closes. Called before large imports.

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
    """Kills a worker that leads a group, and all below it, also outside the group; no error where it is gone."""
    for descendant in set(_descendants(pid)) - {os.getpid()}:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(descendant, signal.SIGKILL)
    kill_group(pid)


def kill_group(pid: int) -> None:
    """Kills the rest of the group that a worker led."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    """The processes below one, from /proc; none on systems without it."""
    children = _by_parent()
    pids, waiting = [], [pid]
    while waiting:
        below = children[waiting.pop()]
        pids += below
        waiting += below
    return pids


def _by_parent() -> defaultdict[int, list[int]]:
    """All process ids by the id of their parent."""
    children = defaultdict(list)
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            children[int(status.read_text().rpartition(")")[2].split()[1])].append(int(status.parent.name))
    return children
