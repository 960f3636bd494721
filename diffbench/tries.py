"""One try of a stage: how far it is, whether it must be stopped, and why it failed."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffbench.launchers import Ended
from diffbench.planning import Stage

LOG_LINES = 5
LOOK_SECONDS = 0.2                    # between looks at one try


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a try published nothing."""

    status: str                       # "failed" or "diverged"
    reason: str
    kind: str = "crash"               # crash, code, request, memory, diverged, damaged, superseded, timeout, stall
    artefact: str | None = None       # the key of what is damaged


@dataclass
class Try:
    """A worker that was asked for. Times are of this process's monotonic clock, so no clock that is set can end a try."""

    stage: Stage
    attempt: Path
    limit: float | None               # seconds it may take once it has begun
    stall: float                      # seconds it may take from one sign of progress to the next
    since: float = field(default_factory=time.monotonic)
    begun: float | None = None
    moved: float = 0.0
    looked: float = 0.0
    said: bytes = b""
    stopped: Failure | None = None

    def look(self, at_once: bool = False) -> tuple[int, int, dict[str, float]] | None:
        """How far it is, where that is news: (done, of, figures)."""
        now = time.monotonic()
        if now - self.looked < LOOK_SECONDS and not at_once:
            return None
        self.looked = now
        if self.begun is None:
            if not (self.attempt / "started.json").exists():
                return None
            self.begun = self.moved = now
        with contextlib.suppress(OSError, ValueError, KeyError):
            said = (self.attempt / "progress.json").read_bytes()
            if said != self.said:
                self.said, self.moved = said, now
                facts = json.loads(said)
                return facts["done"], facts["of"], facts["figures"]
        return None

    def must_stop(self) -> bool:
        """Whether it is over its time and was not stopped yet."""
        if self.begun is None or self.stopped is not None:
            return False
        now = time.monotonic()
        if self.limit is not None and now - self.begun > self.limit:
            self.stopped = Failure(status="failed", kind="timeout", reason=f"not done within {_seconds(self.limit)} (run.timeout), stopped")
        elif now - self.moved > self.stall:
            self.stopped = Failure(status="failed", kind="stall", reason=f"no progress for {_seconds(self.stall)} (run.stall), stopped")
        return self.stopped is not None

    def failure(self, ended: Ended) -> Failure:
        """Why it failed: what the worker said, else why it was stopped, else how it ended and its last words."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            said: dict[str, Any] = json.loads((self.attempt / "error.json").read_bytes())
            return Failure(status=said["status"], reason=said["reason"], kind=said["kind"], artefact=said.get("artefact"))
        last = self.last_lines(LOG_LINES)
        words = f"; its last words: {' | '.join(last)}" if last else ""
        if self.stopped is not None:
            return Failure(status="failed", kind=self.stopped.kind, reason=self.stopped.reason + words)
        how = ended.reason or (f"the worker was ended by signal {-ended.code}" if ended.code < 0 else f"the worker ended with code {ended.code} and no result")
        hint = " (out of memory, if nobody killed it)" if ended.code == -9 and not ended.reason else ""
        return Failure(status="failed", reason=how + hint + words)

    def last_lines(self, count: int) -> list[str]:
        """The end of its log."""
        try:
            return (self.attempt / "log.txt").read_text(errors="replace").strip().splitlines()[-count:]
        except OSError:
            return []


def _seconds(seconds: float) -> str:
    return f"{seconds:g} s"
