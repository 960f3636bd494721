"""Load of the machine by others during a timing. Used by throughput stages."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import torch

from diffbench.machine import nvml


class Load:
    """The load of the machine since this was made; make it before the device is used."""

    def __init__(self, device: torch.device):
        self.average, self.gpu = _average(), None
        with contextlib.suppress(nvml.NotReported):
            self.gpu = nvml.busy_share(device)
        self.others = OtherLoad()

    def facts(self) -> dict[str, Any]:
        """The load before and after, our own work included, cores of others in between, the GPU's busy share before.

        Load averages are over 1, 5 and 15 minutes. None for what the system does not tell.
        """
        return {"average_before": self.average, "average_after": _average(), "cores_of_others": self.others.cores(),
                "gpu_busy_before": self.gpu}


class OtherLoad:
    """The cores that others kept busy since this was made: other processes, and other guests of the same host."""

    def __init__(self) -> None:
        self.start, self.busy, self.own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def cores(self) -> float | None:
        """The cores, on average; None where the system does not tell."""
        busy = _busy_seconds()
        if busy is None or self.busy is None:
            return None
        return max(0.0, (busy - self.busy - (_own_seconds() - self.own)) / (time.perf_counter() - self.start))


def _average() -> list[float] | None:
    try:
        return list(os.getloadavg())
    except (AttributeError, OSError):                     # not Unix
        return None


def _busy_seconds() -> float | None:
    """Processor seconds used by all processes on the cores of this one, and by other guests of the host (steal)."""
    total = 0
    try:
        allowed = {f"cpu{n}" for n in os.sched_getaffinity(0)}
        for line in Path("/proc/stat").read_text().splitlines():
            name, *ticks = line.split()
            if name in allowed:
                user, nice, system, _, _, irq, softirq, steal, *_ = map(int, ticks)
                total += user + nice + system + irq + softirq + steal
    except (AttributeError, OSError, ValueError):         # not Linux
        return None
    return total / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    return sum(os.times()[:4])
