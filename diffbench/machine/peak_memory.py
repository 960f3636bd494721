"""Peak memory of work on the CPU or a GPU. Used by stages."""

from __future__ import annotations

import contextlib
import ctypes
import re
from pathlib import Path

import torch

PROCESS = Path("/proc/self")
RESET_PEAK = "5"                      # what clear_refs takes to set VmHWM to VmRSS, see proc_pid_clear_refs(5)


class PeakMemory:
    """Peak bytes since `reset`, with all that was allocated since this was made.

    CUDA: the most bytes that tensors of this process held at once, weights included; allocated, not reserved.
    CPU, on Linux: by how much the resident memory of the process grew at its highest. That counts pages, so libraries
    that are first touched by the work count too, some tens of MB: figures of large work say more than those of small
    work.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.before, self.reason = 0, ""
        if device.type == "cpu":
            _trim_heap()
            try:
                self.before = _process_status("VmRSS")
            except OSError as error:
                self.reason = f"the system does not tell the resident memory of a process: {error}"
        self.reset()

    def reset(self) -> None:
        """Starts a new peak."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif not self.reason:
            _trim_heap()
            try:
                (PROCESS / "clear_refs").write_text(RESET_PEAK)
            except OSError as error:
                self.reason = f"the system does not let a process reset its peak: {error}"

    def bytes(self) -> int | None:
        """The peak; None where the system does not tell, with the reason in `reason`."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return None if self.reason else max(0, _process_status("VmHWM") - self.before)


def _process_status(name: str) -> int:
    """The bytes in one line of /proc/self/status. Raises OSError where there is none."""
    match = re.search(rf"^{name}:\s+(\d+) kB$", (PROCESS / "status").read_text(), re.MULTILINE)
    if match is None:
        raise OSError(f"{PROCESS / 'status'} has no line {name}")
    return int(match[1]) * 1024


def _trim_heap() -> None:
    """Returns freed memory to the system; it would be used again without being counted."""
    with contextlib.suppress(AttributeError, OSError):    # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
