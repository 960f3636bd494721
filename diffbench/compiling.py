"""Whether a network is compiled: where what that saves is sure to exceed what it costs.

Compiling takes minutes and gives back a share of every step that follows, so it is decided by an estimate, from the seconds of pieces of the work
that were done without: a chunk of training steps, a block of samples. COST_SECONDS and GAIN are assumptions: they have not been measured on a GPU, and MARGIN
stands for that. What was decided, and why, is in the facts of the stage and in the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from diffbench.denoiser import Denoiser

Asked = Literal["auto", "on", "off"]
COST_SECONDS = {"train": 90.0, "sample": 45.0}            # forward and backward; forward alone, with its CUDA graphs
GAIN = 1.3                            # how many times as fast a compiled network is taken to be
MARGIN = 2.0                          # how many times its cost compiling has to save
LOOKS = 2                             # pieces of work before the decision; the first has warmed up, the last one counts


@dataclass
class Compiling:
    """The decision of one stage: at once where it was asked for, else after LOOKS pieces of work."""

    kind: Literal["train", "sample"]
    asked: Asked
    device: torch.device
    is_deterministic: bool = False
    processes: int = 1                # that share the work and would each decide on their own
    is_compiled: bool = False
    reason: str = ""                  # why it is, or is not
    looks: int = 0

    def __post_init__(self) -> None:
        if self.asked != "auto":
            self.reason = f"run.compile is {self.asked}"
        elif self.device.type != "cuda":
            self.reason = f"not on its own on {self.device.type}"
        elif self.is_deterministic:
            self.reason = "run.deterministic asks for the same bits each time, and when compiling pays is told by a clock"
        elif self.processes > 1:
            self.reason = f"{self.processes} processes share the work"

    def begin(self, model: Denoiser) -> None:
        """Before any work: compiles where that was asked for."""
        if self.asked == "on":
            self._compile(model)

    def look(self, model: Denoiser, seconds: float, share: float) -> None:
        """After a piece of work: its seconds, and how many times as much is left."""
        if self.reason:
            return
        self.looks += 1
        if self.looks < LOOKS or share <= 0:
            return
        left, cost = seconds * share, COST_SECONDS[self.kind]
        saved = left * (1 - 1 / GAIN)
        self.reason = f"{left:.0f} s were left, of which it was taken to save {saved:.0f} s for {cost:.0f} s of compiling"
        if saved > MARGIN * cost:
            self._compile(model)

    def facts(self) -> dict[str, object]:
        """As they are written beside the artefact."""
        return {"compiled": self.is_compiled, "compile_reason": self.reason or "the work was over before its length was known"}

    def _compile(self, model: Denoiser) -> None:
        # In place: the names of the weights stay. CUDA graphs only for sampling, where one shape comes again and again without gradients.
        graphs = self.kind == "sample" and self.device.type == "cuda"
        model.network.compile(mode="reduce-overhead" if graphs else "default")
        self.is_compiled, model.is_reused = True, graphs
