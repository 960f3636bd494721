"""The clock: warm-up, synchronisation at the edges, repeats, median and spread. A component cannot measure itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

WARMUP_AGREE = 0.05                   # warm-up ends when two runs in a row differ by less than this share
WARMUP_MOST = 5                       # or after this many runs


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Wall seconds of repeated runs of one piece of work."""

    seconds: tuple[float, ...]        # timed runs, in order
    warmup_seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """(first, third)."""
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high


def measure(work: Callable[[], object], repeats: int, device: torch.device) -> Timing:
    """Runs `work` until it is warm, then `repeats` timed times; the device is synchronised before each reading of the clock."""
    warm: list[float] = []
    while len(warm) < WARMUP_MOST and not (len(warm) > 1 and abs(warm[-1] - warm[-2]) <= WARMUP_AGREE * warm[-2]):
        warm.append(_once(work, device))
    return Timing(seconds=tuple(_once(work, device) for _ in range(repeats)), warmup_seconds=tuple(warm))


def _once(work: Callable[[], object], device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    work()
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
