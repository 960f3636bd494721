"""The anchor: one fixed piece of work whose laps stand between those of whatever is timed.

Stages are timed one after another, and a machine drifts: clocks, heat, neighbours. Each configuration is therefore timed beside the same
work, and its time in units of the anchor compares with that of a configuration timed an hour later, or added next week.
It stands for no model. It is an order of convolutions and normalisations because that is what most of the timed work is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

SIZES = {"cpu": (32, 32, 16), "cuda": (256, 128, 32)}     # images, channels, pixels a side: about 3 ms of one core; enough to fill a GPU


def make(device: torch.device) -> Callable[[], object]:
    """The work: three convolutions over the same images each time, float32, without gradients. The global generator is left as it was."""
    images, channels, side = SIZES[device.type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(8, channels),
                                nn.SiLU(), nn.Conv2d(channels, 3, 3, padding=1)).to(device)
        x = torch.randn(images, 3, side, side).to(device)

    def work() -> object:
        with torch.no_grad():
            return network(x)
    return work
