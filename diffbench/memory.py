"""Peak memory of a piece of work."""

from __future__ import annotations

import contextlib
import ctypes
import re
from pathlib import Path

import torch

PROCESS = Path("/proc/self")
RESET_PEAK = "5"                      # what clear_refs takes to set VmHWM to VmRSS, see proc_pid_clear_refs(5)


class PeakMemory:
    """Peak bytes of what is done after `reset`, together with what was built since this was made.

    CUDA: the most bytes that tensors of this process held at once, weights included; allocated, not reserved.
    CPU, on Linux: by how much the resident memory of the process grew at its highest. That counts pages, so libraries that are first
    touched by the work count too, some tens of MB: figures of large work say more than those of small work.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.before, self.reason = 0, ""
        if device.type == "cpu":
            _give_back()
            try:
                self.before = _of_process("VmRSS")
            except OSError as error:
                self.reason = f"the system does not tell the resident memory of a process: {error}"
        self.reset()

    def reset(self) -> None:
        """The peak begins anew."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif not self.reason:
            _give_back()
            try:
                (PROCESS / "clear_refs").write_text(RESET_PEAK)
            except OSError as error:
                self.reason = f"the system does not let a process reset its peak: {error}"

    def bytes(self) -> int | None:
        """The peak; None where the system does not tell, and then `reason` is why."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return None if self.reason else max(0, _of_process("VmHWM") - self.before)


def _of_process(name: str) -> int:
    """Bytes of one line of /proc/self/status; raises OSError where there is none."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", (PROCESS / "status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{PROCESS / 'status'} has no line {name}")
    return int(found[1]) * 1024


def _give_back() -> None:
    """Freed memory that the allocator keeps for later is resident, and would be used again unseen."""
    with contextlib.suppress(AttributeError, OSError):    # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
