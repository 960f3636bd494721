"""The denoiser: backbone, noise schedule, parameterization and conditioning composed into one model of x_0 and eps.

It is not registered. Guide, then clip, then re-derive eps: both are functions around the network, never options of a
scheduler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from diffbench.contracts.condition import Condition
from diffbench.contracts.noise_schedule import NoiseSchedule
from diffbench.contracts.process import Process
from diffbench.contracts.values import Denoise, Io, Level, Prediction, form
from diffbench.diffusion.replay import Replayed
from diffbench.diffusion.texts import texts_of
from diffbench.errors import BrokenComponent

if TYPE_CHECKING:
    from diffbench.contracts.cell import Recipe


class Denoiser(nn.Module):
    """The trainable half of a cell: the network and the condition's embedding, with the algebra around them.

    `evaluations` counts images sent through the network, so that a doubled batch counts twice whoever doubled it.
    """

    def __init__(self, recipe: Recipe):
        super().__init__()
        io = io_of(recipe)
        self.shape = io.shape         # of x_t, [C, *space]
        self.network = recipe.backbone.build(io)
        self.condition = recipe.conditioning.build(io)
        self.texts = texts_of(recipe)
        self.schedule, self.parameterization, self.process = (recipe.noise_schedule, recipe.parameterization,
                                                              recipe.process)
        self.learned_variance = io.learned_variance
        self.out_channels, self.backbone_name = io.out_channels, recipe.backbone.component_name()
        self.evaluations = 0
        # whether the network's output is memory that its next run overwrites, as with CUDA graphs
        self.is_reused = False
        self.replayed: Replayed | None = None                 # the network, replayed as a CUDA graph

    def forward(self, x_t: Tensor, level: Level, c_noise: Tensor, cond: Condition | None, drop: Tensor) -> Tensor:
        """The network's own output, F [B, C, H, W] and, where it is learned, the variance [B, C, H, W]; c_noise and
        drop are [B].

        Raises BrokenComponent where it is anything else: one channel instead of three would be broadcast without a
        word.
        """
        self.evaluations += len(x_t)
        if self.texts is not None:
            cond = self.texts(cond)
        out = (self.replayed or self.network)(self.parameterization.c_in(level) * x_t, c_noise,
                                              self.condition(cond, drop))
        promised = (len(x_t), self.out_channels, *x_t.shape[2:])
        if not isinstance(out, Tensor) or out.shape != promised or not out.is_floating_point():
            raise BrokenComponent(f"{self.backbone_name}: its network must give floats {list(promised)}, got "
                                  f"{form(out)}")
        return out

    def replay(self, device: torch.device) -> None:
        """From now on the network is replayed as a CUDA graph where its inputs have shapes that came before:
        without gradients only.
        """
        self.replayed, self.is_reused = Replayed(self.network, device), True

    def denoise(self, x_t: Tensor, t: float, cond: Condition | None, drop: Tensor) -> Prediction:
        """The prediction of x_0 and eps at one level, before guidance."""
        level = self.schedule.at(t)
        c_noise = x_t.new_full((len(x_t),), self.parameterization.c_noise(level))
        out = self(x_t, level, c_noise, cond, drop).to(x_t.dtype)
        if self.is_reused:                                # schedulers keep past predictions
            out = out.clone()
        if not self.learned_variance:
            return self.process.decode(out, x_t, level, self.parameterization)
        mean, variance = out.chunk(2, dim=1)
        return self.process.decode(mean, x_t, level, self.parameterization)._replace(variance=(variance + 1) / 2)


def io_of(recipe: Recipe) -> Io:
    """Shapes and sockets around the network of a recipe."""
    conditioning = recipe.conditioning
    io = Io(shape=recipe.data_shape, signal_width=recipe.backbone.signal_width, classes=recipe.dataset.classes,
              condition_shape=recipe.dataset.condition_shape, ports=conditioning.ports,
              map_channels=conditioning.map_channels(recipe.dataset),
              tokens_enter=conditioning.tokens_enter, learned_variance=recipe.objective.learns_variance)
    return recipe.process.network_io(io)


def not_finite(recipe: Recipe, times: Tensor) -> str:
    """'; d_alpha of noise_schedule laplace is not finite at t = 1' where a divergence has its cause in the formulas of
    a cell at times in (0, 1],
    else ""."""
    schedule, level = recipe.noise_schedule, recipe.noise_schedule.level(times.double())
    for name in Level._fields[1:]:
        bad = times[~torch.as_tensor(getattr(level, name)).expand(times.shape).isfinite()]
        if len(bad):
            return (f"; {name} of noise_schedule {schedule.component_name()} is not finite at t = {float(bad[0]):g}, "
                    "which `diffbench check` shows")
    ones = torch.ones_like(level.alpha)
    decoded = torch.stack(
        [*recipe.parameterization.decode(ones, ones, level)[:2], recipe.parameterization.target(ones, ones, level)]
    )
    bad = times[~decoded.isfinite().all(0)]
    return (
        f"; parameterization {recipe.parameterization.component_name()} is not finite at t = {float(bad[0]):g}"
        if len(bad)
        else ""
    )


def clipped(
    denoise: Denoise, schedule: NoiseSchedule, process: Process, low: float = -1.0, high: float = 1.0
) -> Denoise:
    """x0_hat clamped to the range of the data, and the rest of the prediction made to agree with it by the process.

    Source: the clipping of Ho et al. 2020's released code.
    """
    def inside(x_t: Tensor, t: float) -> Prediction:
        prediction = denoise(x_t, t)
        return process.with_x0(prediction, prediction.x0.clamp(low, high), x_t, schedule.at(t))
    return inside
