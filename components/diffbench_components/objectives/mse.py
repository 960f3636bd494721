"""The squared error of the network's own output."""

from dataclasses import dataclass

from torch import Tensor

from diffbench import Level, NoiseSchedule, Objective


@dataclass(frozen=True, kw_only=True)
class Mse(Objective):
    """Mean over pixels of |F - target|², the same weight at every t; t uniform over the schedule's training times.

    With `epsilon` this is DDPM's L_simple.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 14.
    """

    default_of_kind = True

    def times(self, u: Tensor, schedule: NoiseSchedule) -> Tensor:
        return schedule.training_times(u)                         # [B]

    def loss(self, out: Tensor, target: Tensor, level: Level) -> Tensor:
        return (out - target).square().flatten(1).mean(1)         # [B]
