"""The batch size at which a network is fastest, by a short search:
small ones leave a device idle, large ones leave its cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from diffbench.errors import is_out_of_memory
from diffbench.machine.laps import synchronise

SMALLEST = 16                         # images; each size after it is twice the one before
LARGEST = 4096
# share of the best rate: a size is worth its memory only where it gains more, and the search ends where one loses more
SLOWER = 0.05
SEARCH_SECONDS = 5.0                  # after which no larger size is tried
CALLS = 3                             # at each size: the first warms up, the fastest of the others counts


def fastest(work: Callable[[int], object], most: int, device: torch.device) -> tuple[int, dict[int, float]]:
    """(size, images per second by size tried); work(size) does one batch, most: images there are to do.

    The smallest size whose rate is within SLOWER of the best. A size for which memory does not suffice ends the search;
    the smallest size raises instead.
    """
    since, rates = time.perf_counter(), {}
    size = min(SMALLEST, most)
    while True:
        try:
            rates[size] = size / min([_seconds(work, size, device) for _ in range(CALLS)][1:])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not rates:
                raise
            break
        best = max(rates.values())
        if (size == min(most, LARGEST) or rates[size] < (1 - SLOWER) * best
            or time.perf_counter() - since > SEARCH_SECONDS):
            break
        size = min(2 * size, most, LARGEST)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return min(size for size, rate in rates.items() if rate >= (1 - SLOWER) * max(rates.values())), rates


def _seconds(work: Callable[[int], object], size: int, device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    work(size)
    synchronise(device)
    return time.perf_counter() - start
