"""Whether a network is compiled or its kernels replayed as a CUDA graph: where what that saves is sure to exceed what
it costs.

Both cost seconds before the first step and give back a share of every step that follows, so it is decided by an
estimate, from the seconds of pieces of the work that were done without: a chunk of training steps, a block of samples.
What each way costs and gains was measured by device and size of network (`machine/gpu_figures.py`); on a device that
was not measured nothing is decided by itself. What was decided, and why, is in the facts of the stage and in the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from diffbench.diffusion.denoiser import Denoiser
from diffbench.machine import gpu_figures
from diffbench.machine.gpu_figures import Measured, Way, nearest

Asked = Literal["auto", "graphs", "on", "off"]
MARGIN = 2.0                          # how many times its cost a way has to save
LOOKS = 2                             # pieces of work before the decision; the first has warmed up, the last one counts


@dataclass
class Compiling:
    """The decision of one stage: at once where it was asked for, else after LOOKS pieces of work."""

    kind: Literal["train", "sample"]
    asked: Asked
    device: torch.device
    is_deterministic: bool = False
    processes: int = 1                # that share the work and would each decide on their own
    measured: tuple[Measured, ...] | None = None              # in place of what is known of the device
    way: Way | None = None            # what was decided for; None: neither
    reason: str = ""                  # why it was, or was not
    looks: int = 0

    def __post_init__(self) -> None:
        if self.asked in ("on", "off") or self.asked == "graphs" and self._has_graphs:
            self.reason = f"run.compile is {self.asked}"
        elif self.asked == "graphs" and self.device.type != "cuda":
            self.reason = f"there are no CUDA graphs on {self.device.type}"
        elif self.device.type != "cuda":
            self.reason = f"not on its own on {self.device.type}"
        elif self.asked == "auto" and self.is_deterministic:
            self.reason = "run.deterministic asks for the same bits each time, and what pays is told by a clock"
        elif self.processes > 1:
            self.reason = f"{self.processes} processes share the work"
        else:
            if self.measured is None:
                self.measured = gpu_figures.of_ways(torch.cuda.get_device_name(self.device))
            if not self.measured:
                self.reason = "what it costs and gains has not been measured on this device"

    @property
    def _has_graphs(self) -> bool:
        return self.device.type == "cuda" and self.processes == 1

    @property
    def is_replayed(self) -> bool:
        """Whether the work is to be replayed as a CUDA graph."""
        return self.way == "graphs"

    def begin(self, model: Denoiser) -> None:
        """Before any work: what was asked for."""
        if self.asked == "on" or self.asked == "graphs" and self._has_graphs:
            self._use(self.asked, model)

    def look(self, model: Denoiser, seconds: float, share: float) -> None:
        """After a piece of work: its seconds, and how many times as much is left."""
        if self.reason:
            return
        self.looks += 1
        if self.looks < LOOKS or share <= 0:
            return
        left, parameters = seconds * share, sum(p.numel() for p in model.network.parameters())
        assert self.measured is not None
        ways: tuple[Way, ...] = ("graphs", "on")
        known = [m for way in ways if (m := nearest([m for m in self.measured if (m.kind, m.way) == (self.kind, way)],
                                                    parameters)) is not None]
        if not known:
            self.reason = f"for no network was it measured on this device what it does for a {self.kind} stage"
            return
        best = max(known, key=lambda m: left * (1 - 1 / m.gain) - m.seconds)
        saved = left * (1 - 1 / best.gain)
        way = "CUDA graphs" if best.way == "graphs" else "compiling"
        self.reason = (f"{left:.0f} s were left, of which {way} would save {saved:.0f} s for {best.seconds:.0f} s, "
                       f"by a network of {best.parameters:,} parameters")
        if saved > MARGIN * best.seconds:
            self._use(best.way, model)

    def facts(self) -> dict[str, object]:
        """As they are written beside the artefact."""
        reason = self.reason or "the work was over before its length was known"
        return {"compiled": self.way is not None, "compile_way": self.way or "", "compile_reason": reason}

    def _use(self, way: Way, model: Denoiser) -> None:
        self.way = way
        if way == "graphs":
            if self.kind == "sample":                     # a training records its whole step
                model.replay(self.device)
            return
        # In place: the names of the weights stay. Graphs of its own only for sampling, where one shape comes again and
        # again without gradients.
        graphs = self.kind == "sample" and self.device.type == "cuda"
        model.network.compile(mode="reduce-overhead" if graphs else "default")
        model.is_reused = graphs
