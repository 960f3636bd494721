"""Reading the event logs of a run, while they are written or long after.

A log may end in the middle of a line, because its writer is writing or was killed there; may hold lines of events that this version
does not know; and may come from a stranger. Reading executes nothing and raises nothing.
"""

from __future__ import annotations

import heapq
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from diffbench.events import FOLDER, fcntl


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
        self.path, self.offset, self.rest, self.unreadable = path, 0, b"", 0

    def read(self) -> list[dict[str, Any]]:
        """New events in their order. The beginning of a line is kept in `rest` until its end is there; a line that is no event is counted and skipped."""
        try:
            if not stat.S_ISREG(os.lstat(self.path).st_mode):         # a stranger's link or pipe
                return []
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read()
        except OSError:
            return []
        self.offset += len(data)
        *lines, self.rest = (self.rest + data).split(b"\n")
        events = []
        for line in filter(None, lines):
            try:
                event = json.loads(line)
                is_event = isinstance(event["event"], str) and isinstance(event["time"], str) and math.isfinite(event["t"])
            except (ValueError, TypeError, KeyError, RecursionError):
                is_event = False
            if is_event:
                events.append(event)
            else:
                self.unreadable += 1
        return events


class Logs:
    """All logs of a run folder, also those that appear later."""

    def __init__(self, folder: Path):
        self.folder, self.logs = folder / FOLDER, {}

    def read(self) -> list[tuple[str, dict[str, Any]]]:
        """(log's name, event) of what is new, in the order of the wall clock between logs and of the lines within each."""
        for path in sorted(self.folder.glob("*.jsonl")):
            self.logs.setdefault(path.stem, Log(path))
        new = [[(name, event) for event in log.read()] for name, log in self.logs.items()]
        return list(heapq.merge(*new, key=lambda told: told[1]["time"]))

    def damage(self, ended: set[str]) -> list[str]:
        """What could not be read, as sentences; `ended`: names of logs whose writer writes no more."""
        said = []
        for name, log in self.logs.items():
            if log.rest and name in ended:
                said.append(f"the last line of {FOLDER}/{log.path.name} is incomplete: dropped")
            if log.unreadable:
                said.append(f"{log.unreadable} line{'s' if log.unreadable > 1 else ''} of {FOLDER}/{log.path.name} cannot be read: skipped")
        return said
