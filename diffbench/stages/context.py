"""What a stage may rely on while it works in its process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from diffbench.contracts.cell import Cell, Recipe
from diffbench.contracts.component import Component
from diffbench.contracts.needs import given_to
from diffbench.contracts.values import Progress
from diffbench.errors import is_out_of_memory
from diffbench.machine.device_lock import Hold
from diffbench.matrix.describing import rebuild_cell, rebuild_recipe
from diffbench.registry.describing import rebuild
from diffbench.registry.registry import Registry
from diffbench.stages.checkpoints import Pieces
from diffbench.store import disk, manifest
from diffbench.store.artefacts import Store

Files = dict[str, bytes | Path]       # of an artefact by name: what they hold, or where they lie in `Context.files`
IO_ERROR = re.compile(r"os error (\d+)")


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
    files: Path                       # folder for the files that are given by path; not there until one is written
    partial: Path                     # folder for what a killed try leaves to the next; not there until something is
                                      # written
    execution: dict[str, Any]         # what changes no result: device, threads, memory_share, checkpoint_seconds,
                                      # is_deterministic, batch_size
    hold: Hold = field(default_factory=Hold)              # how it has its device

    @property
    def gpus(self) -> int:
        """Into how many processes a training is divided."""
        return self.task["recipe"]["train"]["gpus"]

    def pieces(self, **belongs: Any) -> Pieces:
        """Pieces that earlier tries left, where they were made as this try would make them:
        with these settings, and all else that changes bits.
        """
        version = self.registry.stage_kinds[self.stage].version
        made_with = {"key": self.key, "version": version, "threads": self.threads, "device": self.device.type,
                     "torch": str(torch.__version__),
                     "processor": torch.cuda.get_device_name(self.device) if self.device.type == "cuda"
                     else torch.backends.cpu.get_cpu_capability()}
        return Pieces(folder=self.partial, aside=self.store.root / "staging", belongs=made_with | belongs)

    def recipe(self) -> Recipe:
        """The recipe of the task of a training, its components with what they need."""
        return rebuild_recipe(self.task["recipe"], self.registry).each(self._given)

    def cell(self) -> Cell:
        """The cell of the task, in the same way."""
        return rebuild_cell(self.task["cell"], self.registry).each(self._given)

    def component(self, kind: str) -> Any:
        """A component of the task, with what it needs."""
        return self._given(rebuild(kind, self.task[kind], self.registry))

    def tensors(self, role: str, name: str) -> dict[str, Tensor]:
        """A file of tensors of a parent; a role begins with the name of the parent's stage: "sample", "train:teacher".
        """
        return self.store.read_tensors(role.partition(":")[0], self.parents[role], name)

    def _given(self, component: Component) -> Component:
        return given_to(component, self.stage, self.tensors)

    def write_tensors(self, name: str, tensors: dict[str, Tensor]) -> Path:
        """A file of tensors of the artefact, written without a copy of it in memory;
        raises DiskFull where there is no room.
        """
        disk.make_folders(self.files)
        path = self.files / name
        # has the mode that the umask gives, which the library would narrow
        with disk.disk.create(path) as file:
            mode = os.fstat(file.fileno()).st_mode
        size = sum(tensor.nbytes for tensor in tensors.values())
        with disk.explained(path, size):
            try:
                safetensors.torch.save_file(tensors, path)
            except safetensors.SafetensorError as error:
                if (number := IO_ERROR.search(str(error))) is None:
                    raise
                raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        os.chmod(path, stat.S_IMODE(mode))
        return path

    @contextlib.contextmanager
    def weights(self, role: str) -> Iterator[dict[str, Tensor]]:
        """The weights of a parent stage, to be given to a network: where they do not fit it, the parent is damaged."""
        tensors = self.tensors(role, "weights.safetensors")
        try:
            yield tensors
        except (KeyError, ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            stage, key, reason = role.partition(":")[0], self.parents[role], " ".join(str(error).split())[:200]
            raise manifest.damaged(self.store.path(stage, key), stage, key, f"weights.safetensors: {reason}",
                                   is_content=True) from None


def set_up(execution: dict[str, Any], gpu: int = 0) -> torch.device:
    """Sets this process up as an execution says, and gives its device; gpu: which of those the launcher shows."""
    torch.set_num_threads(execution["threads"])
    if execution["is_deterministic"]:
        # read when CUDA is first touched, which is later
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        # a kernel that cannot raises, and its name is the reason of the stage
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    device = torch.device("cuda", gpu) if execution["device"] == "cuda" else torch.device(execution["device"])
    if device.type == "cuda" and execution["memory_share"] < 1:
        torch.cuda.set_per_process_memory_fraction(execution["memory_share"], device)
    return device


def as_json(facts: Any) -> bytes:
    """A file of facts; numbers that are not finite are refused."""
    return json.dumps(facts, indent=1, sort_keys=True, allow_nan=False).encode()

