"""Reader of the event logs of a run, while they are written or long after. Used by `watch` and by the estimate of time.

A log may end in the middle of a line, because its writer is writing or was killed there; may hold lines of events that
this version does not know; and may come from a stranger. Reading executes nothing and raises nothing: a line that is no
event is counted and skipped.
"""

from __future__ import annotations

import heapq
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffbench.store.event_fields import checked
from diffbench.watching.event_log import FOLDER, fcntl

CHUNK = 1 << 20                       # bytes read at once
LONGEST_LINE = 8 << 20                # bytes; the stages of ten thousand cells found done are one line of two million


def is_held(path: Path) -> bool:
    """Whether the writer of a log still lives, for a log that says `locked` and was written on this machine."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, AttributeError):
        return False
    return False


class Log:
    """A log being read: each call of `read` gives the lines that were completed since the last."""

    def __init__(self, path: Path):
        self.path, self.offset, self.rest, self.unreadable, self.is_too_long = path, 0, b"", 0, False

    def read(self) -> list[dict[str, Any]]:
        """New events in their order. The beginning of a line is kept in `rest` until its end is there."""
        return [event for line in self._lines() if (event := self._event(line)) is not None]

    def _lines(self) -> Iterator[bytes]:
        try:
            if not stat.S_ISREG(os.lstat(self.path).st_mode):         # a stranger's link or pipe
                return
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                while data := file.read(CHUNK):
                    self.offset += len(data)
                    *lines, self.rest = (self.rest + data).split(b"\n")
                    if lines and self.is_too_long:        # the end of the line that was given up
                        del lines[0]
                        self.is_too_long = False
                    yield from filter(None, lines)
                    if len(self.rest) > LONGEST_LINE:
                        self.unreadable += not self.is_too_long
                        self.rest, self.is_too_long = b"", True
        except OSError:
            return

    def _event(self, line: bytes) -> dict[str, Any] | None:
        try:
            event = checked(json.loads(line))
        except (ValueError, RecursionError):
            event = None
        self.unreadable += event is None
        return event


class Logs:
    """All logs of a run folder, also those that appear later."""

    def __init__(self, folder: Path):
        self.folder, self.logs = folder / FOLDER, {}

    def read(self) -> list[tuple[str, dict[str, Any]]]:
        """(log's name, event) of what is new, in the order of the wall clock between logs and of the lines within each.
        """
        for path in sorted(self.folder.glob("*.jsonl")):
            self.logs.setdefault(path.stem, Log(path))
        new = [[(name, event) for event in log.read()] for name, log in self.logs.items()]
        return list(heapq.merge(*new, key=lambda told: told[1]["time"]))

    def damage(self, ended: set[str]) -> list[str]:
        """Sentences on what could not be read; `ended`: names of logs whose writer writes no more."""
        problems = []
        for name, log in self.logs.items():
            if log.rest and name in ended:
                problems.append(f"the last line of {FOLDER}/{log.path.name} is incomplete: dropped")
            if log.unreadable:
                problems.append(f"{log.unreadable} line{'s' if log.unreadable > 1 else ''} of {FOLDER}/{log.path.name} "
                                "cannot be read: skipped")
        return problems
