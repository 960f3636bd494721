"""One attempt at a stage: its progress, whether it must be stopped, and why it failed. Used by the engine."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffbench.launchers import Ended
from diffbench.planning.stage import Stage
from diffbench.store.event_fields import is_count, is_number
from diffbench.wording import as_reason

LOG_LINES = 5
LOG_BYTES = 1 << 16                   # of the log's end that are read: a stranger's prints may fill gigabytes
LOOK_SECONDS = 0.2                    # between looks at one try


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The reason why an attempt published nothing."""

    status: str                  # "failed" or "diverged"
    reason: str
    kind: str = "crash"          # crash, code, request, memory, diverged, damaged, content, disk, superseded, timeout,
                                 # stall, lost
    artefact: str | None = None  # the key of what is damaged


@dataclass
class Attempt:
    """A worker that was submitted. Times are of this process's monotonic clock, so setting a clock ends no attempt."""

    stage: Stage
    folder: Path
    limit: float | None               # seconds it may take once it has begun
    stall: float                      # seconds it may take from one sign of progress to the next
    submitted_at: float = field(default_factory=time.monotonic)
    began_at: float | None = None
    progress_at: float = 0.0
    looked_at: float = 0.0
    last_progress: bytes = b""
    stop: Failure | None = None
    waits_for: str = ""               # who has the device, while it has not begun
    is_announced: bool = False        # whether watchers know that it has begun

    def look(self, at_once: bool = False) -> tuple[int, int, dict[str, float]] | None:
        """The progress where it is new: (done, of, figures); else None."""
        now = time.monotonic()
        if now - self.looked_at < LOOK_SECONDS and not at_once:
            return None
        self.looked_at = now
        if self.began_at is None:
            if not (self.folder / "started.json").exists():
                self.waits_for = self._holder()
                return None
            self.began_at = self.progress_at = now
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            content = (self.folder / "progress.json").read_bytes()
            if content != self.last_progress:
                self.last_progress, self.progress_at = content, now
                facts = json.loads(content)
                figures = {name: value for name, value in facts["figures"].items()
                           if isinstance(value, float) or is_number(value)}
                if is_count(facts["done"]) and is_count(facts["of"]):
                    return facts["done"], facts["of"], figures
        return None

    def _holder(self) -> str:
        """The holder of the device that it waits for, from its `waiting.json`; '' where it does not wait."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return as_reason(json.loads((self.folder / "waiting.json").read_bytes())["for"])
        return ""

    @property
    def seconds(self) -> float:
        """Seconds since it began or, before that, since it was submitted. Waiting for a device does not count."""
        return time.monotonic() - (self.submitted_at if self.began_at is None else self.began_at)

    def must_stop(self) -> bool:
        """Whether it has exceeded a limit and was not stopped yet."""
        if self.began_at is None or self.stop is not None:
            return False
        now = time.monotonic()
        if self.limit is not None and now - self.began_at > self.limit:
            self.stop = Failure(status="failed", kind="timeout",
                                reason=f"not done within {_seconds(self.limit)} (run.timeout), stopped")
        elif now - self.progress_at > self.stall:
            self.stop = Failure(status="failed", kind="stall",
                                reason=f"no progress for {_seconds(self.stall)} (run.stall), stopped")
        return self.stop is not None

    def failure(self, ended: Ended) -> Failure:
        """Why it failed: by its worker, else by the limit it exceeded, else by its end and its last lines."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            error_facts: dict[str, Any] = json.loads((self.folder / "error.json").read_bytes())
            return Failure(status=error_facts["status"], reason=as_reason(error_facts["reason"]),
                           kind=error_facts["kind"], artefact=error_facts.get("artefact"))
        last = self.last_lines(LOG_LINES)
        words = as_reason(f"; its last words: {' | '.join(last)}" if last else "")
        if self.stop is not None:
            return Failure(status="failed", kind=self.stop.kind, reason=self.stop.reason + words)
        how = ended.reason or (f"the worker was ended by signal {-ended.code}" if ended.code < 0
                               else f"the worker ended with code {ended.code} and no result")
        hint = " (out of memory, if nobody killed it)" if ended.code == -9 and not ended.reason else ""
        return Failure(status="failed", kind="lost" if ended.is_lost else "crash", reason=how + hint + words)

    def last_lines(self, count: int) -> list[str]:
        """The last lines of its log."""
        try:
            with open(self.folder / "log.txt", "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
                return file.read().decode(errors="replace").strip().splitlines()[-count:]
        except OSError:
            return []


def _seconds(seconds: float) -> str:
    return f"{seconds:g} s"
