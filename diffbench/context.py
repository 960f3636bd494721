"""What a stage may rely on while it works in its process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffbench.checkpoints import Pieces
from diffbench.graph import VERSIONS
from diffbench.matrix import Cell
from diffbench.planning import rebuild_cell
from diffbench.registry import Registry
from diffbench.specs import rebuild
from diffbench.store import Store
from diffbench.values import Progress

Files = dict[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a stage may rely on."""

    store: Store
    registry: Registry
    stage: str
    device: torch.device
    threads: int
    key: str
    task: dict[str, Any]
    parents: dict[str, str]           # role -> key
    progress: Progress
    partial: Path                     # folder for what a killed try leaves to the next; not there until something is written
    execution: dict[str, Any]         # what changes no result: device, threads, memory_share, checkpoint_seconds, is_deterministic, batch_size

    @property
    def gpus(self) -> int:
        """Into how many processes a training is divided."""
        return self.task["cell"]["train"]["gpus"]

    def pieces(self, **belongs: Any) -> Pieces:
        """What earlier tries left, where it was made as this try would make it: with these settings, and all else that changes bits."""
        made_with = {"key": self.key, "version": VERSIONS[self.stage], "threads": self.threads, "device": self.device.type, "torch": str(torch.__version__),
                     "processor": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else torch.backends.cpu.get_cpu_capability()}
        return Pieces(folder=self.partial, aside=self.store.root / "staging", belongs=made_with | belongs)

    def cell(self) -> Cell:
        """The cell of the task."""
        return rebuild_cell(self.task["cell"], self.registry)

    def component(self, kind: str) -> Any:
        """A component of the task."""
        return rebuild(kind, self.task[kind], self.registry)

    def tensors(self, role: str, name: str) -> dict[str, Tensor]:
        """A file of tensors of a parent stage."""
        return self.store.read_tensors(role, self.parents[role], name)


def as_json(facts: Any) -> bytes:
    """A file of facts; numbers that are not finite are refused."""
    return json.dumps(facts, indent=1, sort_keys=True, allow_nan=False).encode()

