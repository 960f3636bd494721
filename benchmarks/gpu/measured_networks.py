"""The four networks whose time is measured, from 0.2 M parameters to DiT-B/2, and toys of their kinds.
Used by `networks`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu.costs import parameters
from benchmarks.gpu.day import Day
from benchmarks.gpu.variants import cell_of
from diffbench import Cell
from diffbench.diffusion.denoiser import Denoiser

SAMPLER_STEPS = 5
CIFAR_UNET = {
    "channels": 128,
    "multipliers": [1, 2, 2, 2],
    "blocks": 2,
    "modulation": "shift",
    "attention": [16],
    "heads": 1,
}
SMALL_UNET = {"channels": 16, "multipliers": [1, 2], "blocks": 1, "modulation": "shift", "attention": [16], "heads": 1}
TOY_UNET = {"channels": 16, "multipliers": [1, 2], "blocks": 1, "modulation": "shift", "attention": [4], "heads": 1}
TOY_DIT = {"patch": 2, "width": 32, "depth": 2, "heads": 2}


@dataclass(frozen=True)
class Network:
    """A network on images of one shape."""

    name: str
    cell: Cell

    @property
    def is_unet(self) -> bool:
        return "unet" in self.name


@functools.cache
def networks(day: Day) -> tuple[Network, ...]:
    """The most important first: DDPM's for CIFAR-10, DiT-S/2, a small U-Net, DiT-B/2; in a dry run three toys."""
    def network(name: str, kind: str, options: dict[str, Any], channels: int) -> Network:
        toy = TOY_UNET if kind == "unet" else TOY_DIT
        return Network(
            name,
            cell_of(
                {kind: day.sized(options, toy)},
                (channels, day.sized(32, 8)),
                day.sized(128, 2),
                conditioning="none" if kind == "unet" else "film",
                sampler_steps=day.sized(SAMPLER_STEPS, 2),
            ),
        )

    sizes = {
        "unet 35.7 M": ("unet", CIFAR_UNET, 3),
        "dit S/2": ("dit", {"patch": 2, "width": 384, "depth": 12, "heads": 6}, 4),
        "unet 0.2 M": ("unet", SMALL_UNET, 3),
        "dit B/2": ("dit", {"patch": 2, "width": 768, "depth": 12, "heads": 12}, 4),
    }
    selected = {name: size for name, size in sizes.items() if not day.networks or name in day.networks}
    return tuple(network(name, *size) for name, size in list(selected.items())[: day.sized(4, 3)])


def named(day: Day, name: str) -> Network:
    """The network of this name."""
    return next(network for network in networks(day) if network.name == name)


def learned(network: Network) -> int:
    """The number of parameters of its denoiser."""
    with torch.device("meta"):
        return parameters(Denoiser(network.cell))


def modules(network: Network) -> int:
    """The number of modules of its denoiser."""
    with torch.device("meta"):
        return sum(1 for _ in Denoiser(network.cell).modules())
