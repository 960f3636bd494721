"""The outcome of a stage, and the protocol of watchers. Made by `engine`, used by all that follow a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from diffbench.planning.stage import Stage


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a stage."""

    status: str                       # "ok", "failed", "diverged" or "blocked" (a parent did not finish)
    reason: str = ""
    seconds: float = 0.0
    cached: bool = False
    tries: int = 0


class Watcher(Protocol):
    """Receiver of the events of a run, such as the display and the results."""

    def started(self, stage: Stage) -> None:
        """Called when a stage has begun: its worker runs and has the device."""

    def progress(self, stage: Stage, done: int, of: int, figures: dict[str, float]) -> None:
        """Called with the progress of a running stage, and figures such as loss or images_per_second."""

    def finished(self, stage: Stage, outcome: Outcome) -> None:
        """Called when a stage has ended, was found done or cannot be done."""

    def note(self, text: str) -> None:
        """Called with a text for people: an artefact is damaged and rebuilt, a stage is tried again."""
