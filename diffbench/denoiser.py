"""The denoiser: backbone, noise schedule, parameterization and conditioning composed into one model of x_0 and eps.

It is not registered. Guide, then clip, then re-derive eps: both are functions around the network, never options of a scheduler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from diffbench.contracts import NoiseSchedule
from diffbench.errors import BrokenComponent
from diffbench.transitions import weighted_sum
from diffbench.values import Denoise, Io, Level, Prediction, Split, form

if TYPE_CHECKING:
    from diffbench.matrix import Cell


class Denoiser(nn.Module):
    """The trainable half of a cell: the network and the condition's embedding, with the algebra around them.

    `evaluations` counts images sent through the network, so that a doubled batch counts twice whoever doubled it.
    """

    def __init__(self, cell: Cell):
        super().__init__()
        io = io_of(cell)
        self.network = cell.backbone.build(io)
        self.condition = cell.conditioning.build(io)
        self.schedule, self.parameterization = cell.noise_schedule, cell.parameterization
        self.learned_variance = io.learned_variance
        self.out_channels, self.backbone_name = io.out_channels, cell.backbone.component_name()
        self.evaluations = 0
        self.is_reused = False        # whether the network's output is memory that its next run overwrites, as with CUDA graphs

    def forward(self, x_t: Tensor, level: Level, c_noise: Tensor, cond: Tensor | None, drop: Tensor) -> Tensor:
        """The network's own output, F [B, C, H, W] and, where it is learned, the variance [B, C, H, W]; c_noise and drop are [B].

        Raises BrokenComponent where it is anything else: one channel instead of three would be broadcast without a word.
        """
        self.evaluations += len(x_t)
        out = self.network(self.parameterization.c_in(level) * x_t, c_noise, self.condition(cond, drop))
        promised = (len(x_t), self.out_channels, *x_t.shape[2:])
        if not isinstance(out, Tensor) or out.shape != promised or not out.is_floating_point():
            raise BrokenComponent(f"{self.backbone_name}: its network must give floats {list(promised)}, got {form(out)}")
        return out

    def denoise(self, x_t: Tensor, t: float, cond: Tensor | None, drop: Tensor) -> Prediction:
        """The prediction of x_0 and eps at one level, before guidance."""
        level = self.schedule.at(t)
        c_noise = x_t.new_full((len(x_t),), self.parameterization.c_noise(level))
        out = self(x_t, level, c_noise, cond, drop).to(x_t.dtype)
        if self.is_reused:                                # schedulers keep past predictions
            out = out.clone()
        if not self.learned_variance:
            return self.parameterization.decode(out, x_t, level)
        mean, variance = out.chunk(2, dim=1)
        return self.parameterization.decode(mean, x_t, level)._replace(variance=(variance + 1) / 2)


def io_of(cell: Cell) -> Io:
    """What stands around the network of a cell."""
    channels, height, width = cell.dataset.image_shape
    conditioning = cell.conditioning
    return Io(channels=channels, height=height, width=width, signal_width=cell.backbone.signal_width, classes=cell.dataset.classes,
              condition_shape=cell.dataset.condition_shape, ports=conditioning.ports, map_channels=conditioning.map_channels(cell.dataset),
              tokens_enter=conditioning.tokens_enter, learned_variance=cell.objective.learns_variance)


def clipped(denoise: Denoise, schedule: NoiseSchedule, low: float = -1.0, high: float = 1.0) -> Denoise:
    """x0_hat clamped to the range of the data and eps_hat re-derived from it: eps = (x_t - alpha x0)/sigma.

    Source: the clipping of Ho et al. 2020's released code; re-deriving eps as in guided-diffusion's DDIM.
    """
    def inside(x_t: Tensor, t: float) -> Prediction:
        alpha_t, sigma_t = schedule.scales(t)
        x0_hat, eps_hat, variance = denoise(x_t, t)
        x0_hat = x0_hat.clamp(low, high)
        if sigma_t == 0:
            return Prediction(x0=x0_hat, eps=eps_hat, variance=variance)
        return Prediction(x0=x0_hat, eps=weighted_sum((1 / sigma_t, x_t), (-alpha_t / sigma_t, x0_hat)), variance=variance)
    return inside


def to_pixels(x: Tensor) -> Tensor:
    """[-1, 1] to uint8 as published: clamp, scale, round."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_pixels(images: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def condition_of(split: Split) -> Tensor | None:
    """What a network may be told about each image of a split, as stored: an image where the data set has one, else the label."""
    return split.labels if split.conditions is None else split.conditions


def as_condition(stored: Tensor | None) -> Tensor | None:
    """A stored condition as a conditioning sees it: labels as they are, images in [-1, 1]."""
    return from_pixels(stored) if stored is not None and stored.dtype == torch.uint8 else stored
