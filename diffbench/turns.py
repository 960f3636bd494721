"""Taking turns on a device: many stages may share it, but who measures speed has it alone, across all runs of this user on this machine.

A shared and an exclusive lock of the operating system, free again the moment their holder ends in whatever way. A gate in front
keeps a stream of sharers from keeping the one who measures waiting for ever.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def turn(device: str, *, alone: bool) -> Iterator[None]:
    """Waits until the device ("cpu" or "cuda") may be used: with others, or alone.

    On CUDA each visible GPU is its own device: CUDA_VISIBLE_DEVICES tells which.
    """
    import fcntl

    with contextlib.ExitStack() as held:
        for name in sorted(_names(device)):
            lock, gate = (held.enter_context(open(_folder() / f"{name}.{part}", "a")) for part in ("lock", "gate"))
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            fcntl.flock(gate, fcntl.LOCK_UN)
        yield


def _names(device: str) -> list[str]:
    if device != "cuda":
        return ["cpu"]
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return ["cuda-" + "".join(c for c in part if c.isalnum() or c == "-") for part in shown.split(",")] if shown else ["cuda"]


def _folder() -> Path:
    """The user's state folder."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "diffbench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
