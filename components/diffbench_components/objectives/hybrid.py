"""The squared error, with a learned variance beside it."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from diffbench import Noised, NoiseSchedule, Objective, Parameterization
from diffbench_components.objectives.bound import bound, needs_grid


@dataclass(frozen=True, kw_only=True)
class Hybrid(Objective):
    """Improved DDPM's hybrid loss: squared error, and the variational bound for the variance.

    L_simple + vlb_weight L_vlb: the squared error teaches the mean, the bound only the variance (no gradient of it
    reaches the mean). L_vlb in bits per dimension, as in `vlb`. What DiT and ADM are trained with. Discrete schedules
    only.
    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 16, lambda = 0.001.
    """

    vlb_weight: Annotated[float, Gt(0)] = 0.001                   # lambda

    @property
    def learns_variance(self) -> bool:
        return True

    def why_not(self, cell):
        return needs_grid("hybrid", cell)

    def times(self, u: Tensor, schedule: NoiseSchedule) -> Tensor:
        return schedule.snapped(1 - u)                            # [..., B]

    def loss(self, out: Tensor, noised: Noised, schedule: NoiseSchedule, parameterization: Parameterization) -> Tensor:
        mean_out, variance = out.chunk(2, dim=1)                  # [B, C, H, W] each
        x_0, eps, _, level = noised[:4]
        simple = (mean_out - parameterization.target(x_0, eps, level)).square().flatten(1).mean(1)
        variational = schedule.grid * bound(mean_out.detach(), (variance + 1) / 2, noised, schedule, parameterization)
        return simple + self.vlb_weight * variational             # [B]
