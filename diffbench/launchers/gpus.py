"""The GPUs of one machine, given to workers whole or in shares. Used by `local`."""

from __future__ import annotations

import os
from collections.abc import Iterable

from diffbench.errors import DiffbenchError

ROUNDING = 1e-6                       # three thirds are a whole


def visible_gpus(device: str = "cuda") -> list[str]:
    """The values of CUDA_VISIBLE_DEVICES that name each GPU this process may use: all of "cuda", the N-th of "cuda:N".

    Where a cluster or a user has set that variable, the names are its own: numbers, GPU-... or MIG-...; CUDA ends its
    list at the first that is not there. The GPUs are counted without starting CUDA.
    """
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(n) for n in range(count)] if visible is None else [name.strip() for name in visible.split(",")][:count]
    _, _, index = device.partition(":")
    if not index:
        return names
    if int(index) >= len(names):
        raise DiffbenchError(f"--device {device}: there is no such GPU, {len(names)} can be seen")
    return [names[int(index)]]


class Gpus:
    """The free share of each GPU."""

    def __init__(self, names: Iterable[str]):
        self.free = dict.fromkeys(names, 1.0)

    def take(self, share: float) -> list[str] | None:
        """Names of GPUs for one worker, or None while they are not free.

        Raises DiffbenchError for more than there are.
        """
        count = max(1, round(share))
        if count > len(self.free):
            raise DiffbenchError(f"{count} GPUs are needed at once, and {len(self.free)} can be seen")
        part = min(share, 1.0)
        names = sorted((n for n, free in self.free.items() if free >= part - ROUNDING), key=lambda n: -self.free[n])[
            :count]
        if len(names) < count:
            return None
        for name in names:
            self.free[name] -= part
        return names

    def give_back(self, names: list[str], share: float) -> None:
        """Frees the GPUs of a worker that has ended."""
        for name in names:
            self.free[name] += min(share, 1.0)
