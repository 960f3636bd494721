"""The variational bound."""

from dataclasses import dataclass

from torch import Tensor

from diffbench import Noised, NoiseSchedule, Objective, Parameterization
from diffbench_components.objectives.bound import bound, needs_grid


@dataclass(frozen=True, kw_only=True)
class Vlb(Objective):
    """The variational bound, in bits per dimension.

    T times one term of the bound, t uniform over the grid: an unbiased estimate.
    The constant prior term is left out. The network learns the variance of each reverse step beside its mean; the last
    step is the likelihood of 8-bit pixels. Its gradient is noisy, as the paper reports; `hybrid` is what it recommends.
    Discrete schedules only.
    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 4 to 7.
    """

    @property
    def learns_variance(self) -> bool:
        return True

    def why_not(self, cell):
        return needs_grid("vlb", cell)

    def times(self, u: Tensor, schedule: NoiseSchedule) -> Tensor:
        return schedule.snapped(1 - u)                            # [..., B]

    def loss(self, out: Tensor, noised: Noised, schedule: NoiseSchedule, parameterization: Parameterization) -> Tensor:
        mean_out, variance = out.chunk(2, dim=1)                  # [B, C, H, W] each
        return schedule.grid * bound(mean_out, (variance + 1) / 2, noised, schedule, parameterization)      # [B]
