"""Handling of Ctrl-C: the first ends a run cleanly at its next step, the second at once. Used by runs.

A KeyboardInterrupt alone is not enough: raised while a module is being imported or an object collected, Python may drop
it.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

_requested = threading.Event()
_number = signal.SIGINT


def install() -> None:
    """Handles SIGINT and SIGTERM of the process; may be called in the main thread only."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)


def check() -> None:
    """Raises KeyboardInterrupt where an interruption was asked for, even if an earlier one was suppressed."""
    if _requested.is_set():
        raise KeyboardInterrupt


def exit_code() -> int:
    """The exit code of an interrupted process: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + _number


def _interrupted(number: int, frame: FrameType | None) -> None:
    global _number
    _number = number
    if _requested.is_set():
        os._exit(exit_code())
    _requested.set()
    raise KeyboardInterrupt
