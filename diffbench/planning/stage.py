"""A stage: one piece of work, keyed by what it depends on. Made by `stage_graph`, run by `running`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffbench.store import stage_kinds


@dataclass(frozen=True)
class Stage:
    """One piece of work, done by one worker process and published under its key."""

    name: str                         # "train", "sample", ...
    key: str                          # SHA-256 of `identity`
    identity: dict[str, Any]
    task: dict[str, Any]              # what the worker needs to do it
    parents: dict[str, str]           # role -> key of a stage that must be done first
    label: str                        # for people

    gpus: int = 1             # that it works on at once, all of one machine; where it runs on a CPU, processes
    batch: int | None = None  # images it draws at a time; None where it draws none or searches for the number itself

    @property
    def is_exclusive(self) -> bool:
        """Whether it has its device to itself."""
        return stage_kinds.is_exclusive(self.name)

    def content(self) -> dict[str, Any]:
        """All that a worker and the artefact are told of it."""
        return {"stage": self.name, "key": self.key, "identity": self.identity, "task": self.task,
                "parents": self.parents}

    def described(self) -> dict[str, Any]:
        """Facts of it for a plan.json, and those by which its time is estimated."""
        return {"name": self.name, "label": self.label, "parents": self.parents, "work": self.task.get("work", {})}
