"""A loss between the square and the absolute value."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from diffbench import Noised, NoiseSchedule, Objective, Parameterization


@dataclass(frozen=True, kw_only=True)
class Newcomer(Objective):
    """Mean over pixels of sqrt(d² + delta²) - delta, d = F - target: d²/(2 delta) where |d| is small, |d| - delta where
    it is large.

    Times are uniform. Source: the pseudo-Huber loss; Song & Dhariwal 2023, arXiv:2310.14189, apply it to the norm of a
    whole image.
    """

    delta: Annotated[float, Gt(0)] = 0.1  # where the square turns into the absolute value, in units of the target

    def times(self, u: Tensor, schedule: NoiseSchedule) -> Tensor:
        return schedule.snapped(1 - u)                            # in (0, 1], on the grid where the schedule has one

    def loss(self, out: Tensor, noised: Noised, schedule: NoiseSchedule, parameterization: Parameterization) -> Tensor:
        d = out - parameterization.target(noised.x_0, noised.eps, noised.level)       # [B, C, H, W]
        return ((d**2 + self.delta**2).sqrt() - self.delta).flatten(1).mean(1)        # [B]
