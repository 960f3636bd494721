"""The event log of a run: what happened, when, one JSON line each, for other terminals, programs and the day after.

<run folder>/events/<host>-<pid>.jsonl: one writer per file, whole lines by single appends, so that several runs of one
folder never mix. Each line holds `time` (wall clock, UTC), `t` (seconds since this run began, by a clock that is never
set), `event` and the event's own fields, which docs/watching.md lists. The log is for looking at: no result is ever
computed from it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from diffbench.errors import DiffbenchError

try:
    import fcntl
except ImportError:                   # Windows: whether a run is alive is then told by the age of its last line
    fcntl = None

if TYPE_CHECKING:
    from diffbench.planning.plan import Plan
    from diffbench.planning.stage import Stage
    from diffbench.running.outcome import Outcome

FOLDER = "events"
EVENTS = ("run_started", "stages_found", "stage_started", "stage_progress", "stage_finished", "row_added", "note",
          "alive", "run_finished",
          "run_interrupted", "run_failed")
PROGRESS_SECONDS = 2.0                # between lines on the progress of one stage
ALIVE_SECONDS = 30.0                  # the longest a living run is silent
KEY_LETTERS = 12                      # of a stage's key; enough to tell the stages of a run apart


class Narrator(ABC):
    """A watcher that turns what it is told into events: a name and fields that JSON can hold."""

    def __init__(self) -> None:
        self.tries: Counter[str] = Counter()

    @abstractmethod
    def tell(self, event: str, **fields: Any) -> None:
        """Something happened."""

    def started(self, stage: Stage) -> None:
        """A stage has begun."""
        self.tries[stage.key] += 1
        self.tell("stage_started", **_named(stage), label=stage.label, **{"try": self.tries[stage.key]})

    def progress(self, stage: Stage, done: int, of: int, figures: dict[str, float]) -> None:
        """A running stage says how far it is; a figure that is not finite becomes null."""
        finite = {name: value if isinstance(value, int | float) and math.isfinite(value) else None
                  for name, value in figures.items()}
        self.tell("stage_progress", **_named(stage), done=done, of=of, figures=finite)

    def finished(self, stage: Stage, outcome: Outcome) -> None:
        """A stage ended, was found done or cannot be done."""
        self.tell("stage_finished", **_named(stage), label=stage.label, status=outcome.status, reason=outcome.reason,
                  seconds=round(max(0.0, outcome.seconds), 3), cached=outcome.cached, tries=self.tries[stage.key])

    def note(self, text: str) -> None:
        """A sentence people should read."""
        self.tell("note", text=text)


def _named(stage: Stage) -> dict[str, str]:
    return {"stage": stage.name, "key": stage.key[:KEY_LETTERS]}


class EventLog(Narrator):
    """The watcher that writes the log. A context manager: left without `run_finished`, it says that the run was
    interrupted or failed.

    Stages found done become one event with their counts, however many they are; progress is thinned to a line every two
    seconds per stage. Nothing here waits for the disk. A line that cannot be written is lost, and `warn` is told once.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None] = lambda text: None):
        super().__init__()
        self.warn, self.start = warn, time.monotonic()
        self.last_line = self.start
        # when progress was last written of a stage, and how far it was
        self.said: dict[str, tuple[float, int]] = {}
        self.found: list[tuple[str, str]] = []            # (stage, key) of stages found done that no line speaks of yet
        self.is_torn = self.has_warned = self.has_ended = False
        self.lock, self.closing = threading.RLock(), threading.Event()
        try:
            self.path, self.handle, self.number = _new_file(folder / FOLDER)
        except OSError as error:
            raise DiffbenchError(
                f"{folder / FOLDER}: the event log cannot be written: {error.strerror or error}") from None
        self.is_locked = _lock(self.handle)
        self.breath = threading.Thread(target=self._breathe, name="diffbench event log", daemon=True)
        self.breath.start()

    def run_started(self, plan: Plan) -> None:
        """The first line: which run this is, and who does it."""
        summary = plan.summary()
        versions = {name: metadata.version(name) for name in ("diffbench", "torch")} | {
            "python": platform.python_version()}
        self.tell("run_started", name=plan.matrix.name, number=self.number, host=socket.gethostname(), pid=os.getpid(),
                  locked=self.is_locked,
                  device=plan.device, versions=versions, plan={
                      name: summary[name] for name in ("cells", "skipped", "stages", "train_steps")})

    def row_added(self, row: dict[str, Any]) -> None:
        """A cell has got its line of the result table."""
        self.tell("row_added", **{name: row[name] for name in ("cell_id", "status", "reason") if name in row})

    def run_finished(self, counts: dict[str, int]) -> None:
        """The last line; counts: cells by status."""
        self.tell("run_finished", counts=counts)
        self.has_ended = True

    def tell(self, event: str, **fields: Any) -> None:
        with self.lock:
            if event == "stage_finished" and fields["cached"]:
                self.found.append((fields["stage"], fields["key"]))
                return
            if event == "stage_progress" and not self._is_news(fields):
                return
            self.flush()
            self._write(event, fields)

    def flush(self) -> None:
        """Writes what was gathered of stages found done."""
        with self.lock:
            if self.found:
                stages, self.found = self.found, []
                self._write("stages_found", {"counts": dict(Counter(stage for stage, _ in stages)),
                                             "keys": [key for _, key in stages]})

    def _is_news(self, fields: dict[str, Any]) -> bool:
        now = time.monotonic()
        when, done = self.said.get(fields["key"], (-math.inf, -1))
        if fields["done"] == done or (now - when < PROGRESS_SECONDS and fields["done"] < fields["of"]):
            return False
        self.said[fields["key"]] = (now, fields["done"])
        return True

    def _write(self, event: str, fields: dict[str, Any]) -> None:
        now = time.monotonic()
        wall = datetime.fromtimestamp(time.time(), timezone.utc).isoformat(timespec="milliseconds").replace(
            "+00:00", "Z")
        line = json.dumps({"time": wall, "t": round(now - self.start, 3), "event": event, **fields}).encode() + b"\n"
        line = b"\n" + line if self.is_torn else line     # what is left of a line that did not fit ends here
        self.last_line = now
        try:
            self.is_torn = os.write(self.handle, line) < len(line)
        except OSError as error:
            self.is_torn = True
            if not self.has_warned:
                self.has_warned = True
                self.warn(f"the event log {self.path} cannot be written ({error.strerror or error}): the run goes on, "
                          "`diffbench watch` will not see all of it")

    def _breathe(self) -> None:
        """A line now and then where nothing else happens, so that silence means that the run is gone."""
        while not self.closing.wait(ALIVE_SECONDS / 10):
            with self.lock:
                if self.closing.is_set():                 # the file may be closed by now, and its number another file's
                    return
                self.flush()
                if time.monotonic() - self.last_line >= ALIVE_SECONDS:
                    self._write("alive", {})

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.closing.set()
        with self.lock:
            if not self.has_ended:
                ended = "run_interrupted" if kind is KeyboardInterrupt else "run_failed"
                self.tell(ended, reason=" ".join(f"{kind.__name__ if kind else ''}: {error}".split())[:500])
            # a network disk that is full says so here; nothing waits for this file
            with contextlib.suppress(OSError):
                os.close(self.handle)
        self.breath.join()


def _new_file(folder: Path) -> tuple[Path, int, int]:
    """(path, descriptor, how many logs there are with it):
    a log of one's own, also where another process on another machine has the same names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    host = "".join(c if c.isalnum() or c in ".-" else "_" for c in socket.gethostname()).lstrip(".") or "host"
    stem = f"{host}-{os.getpid()}"
    for again in range(1, 10_000):
        path = folder / (f"{stem}.jsonl" if again == 1 else f"{stem}-{again}.jsonl")
        with contextlib.suppress(FileExistsError):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
            return path, handle, len(list(folder.glob("*.jsonl")))
    raise DiffbenchError(f"{folder}: {stem} has written 10,000 logs here; remove the folder, no result depends on it")


def _lock(handle: int) -> bool:
    """Holds the file for the life of this process: the operating system lets go of it however the process ends."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:                   # a file system without locks
        return False
    return True
