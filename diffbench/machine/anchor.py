"""The anchor: fixed work whose laps are timed between those of the work that is measured. Used by throughput stages.

Stages are timed one after another, and a machine drifts: clocks, heat, neighbours. Each configuration is therefore
timed beside the same work, and its time in units of the anchor compares with that of a configuration timed an hour
later, or added next week. It stands for no model. It is of three kinds of work that networks do, each about a third of
its time, because what slows a machine down does not slow them equally: convolutions of images that fill the caches, the
same of small images, where calls decide, and matrix products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Size:
    """The amount of each kind of work in one run."""

    images: tuple[int, int, int]      # images, channels, pixels a side: convolved once
    small: tuple[int, int, int]       # the same of small images,
    repeats: int                      # convolved this many times
    product: int                      # rows and columns of the matrices,
    products: int                     # multiplied this many times


SIZES = {
    # about 7 ms of one core
    "cpu": Size(images=(16, 32, 16), small=(8, 32, 8), repeats=5, product=256, products=10),
    # enough to fill a GPU
    "cuda": Size(images=(128, 128, 32), small=(32, 128, 8), repeats=10, product=2048, products=10),
}


def make(device: torch.device) -> Callable[[], Tensor]:
    """The work, float32, without gradients and over the same numbers every time. The global generator is not moved."""
    size = SIZES[device.type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        large, small = (_convolutions(*shape, device) for shape in (size.images, size.small))
        linear, rows = (nn.Linear(size.product, size.product).to(device),
                        torch.randn(size.product, size.product).to(device))

    def work() -> Tensor:
        with torch.no_grad():
            result = large()
            for _ in range(size.repeats):
                small()
            x = rows
            for _ in range(size.products):
                x = linear(x)
            return result
    return work


def _convolutions(images: int, channels: int, side: int, device: torch.device) -> Callable[[], Tensor]:
    """Three convolutions and a normalisation, of which most networks for images consist."""
    network = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.SiLU(),
                            nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(8, channels),
                            nn.SiLU(), nn.Conv2d(channels, 3, 3, padding=1)).to(device)
    x = torch.randn(images, 3, side, side).to(device)
    return lambda: network(x)
