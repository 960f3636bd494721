"""Ctrl-C: once, a run ends cleanly at its next step; twice, at once.

A KeyboardInterrupt alone is not enough: raised while a module is being imported or an object collected, Python may drop it.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

_requested = threading.Event()
_number = signal.SIGINT


def install() -> None:
    """Takes over SIGINT and SIGTERM of the process; only the main thread may."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)


def check() -> None:
    """Raises KeyboardInterrupt where one was asked for, even if it was dropped when it was raised."""
    if _requested.is_set():
        raise KeyboardInterrupt


def exit_code() -> int:
    """What a process that was interrupted ends with: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + _number


def _interrupted(number: int, frame: FrameType | None) -> None:
    global _number
    _number = number
    if _requested.is_set():
        os._exit(exit_code())
    _requested.set()
    raise KeyboardInterrupt
