"""Normal noise that is added to shrinking data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from diffbench import Cell, Io, Level, Noised, Parameterization, Prediction, Process, weighted_sum

LARGEST_SIGNAL = 1 / 3                # alpha/sigma at the first time, beyond which samples cannot begin as noise alone


@dataclass(frozen=True, kw_only=True)
class Gaussian(Process):
    """x_t = alpha(t) x_0 + sigma(t) eps, eps ~ N(0, 1); samples start from N(0, alpha² + sigma²).

    alpha, sigma: of the noise schedule, no unit. alpha² + sigma² is the variance of x_t where that of the data is one.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 4; Kingma et al. 2021, arXiv:2107.00630, eq. 1, for any alpha, sigma.
    """

    default_of_kind = True
    is_gaussian = True

    def noised(self, x_0: Tensor, level: Level, noise: Callable[[], Tensor]) -> Noised:
        eps = noise()                                                            # [B, C, *space]
        return Noised(x_0, eps, level.alpha * x_0 + level.sigma * eps, level)

    def prior(self, noise: Tensor, level: Level) -> Tensor:
        return (level.alpha**2 + level.sigma**2) ** 0.5 * noise

    def step_noise(self, noise: Tensor) -> Tensor:
        return noise

    def network_io(self, io: Io) -> Io:
        return io

    def decode(self, out: Tensor, x_t: Tensor, level: Level, parameterization: Parameterization) -> Prediction:
        return parameterization.decode(out, x_t, level)

    def with_x0(self, prediction: Prediction, x0: Tensor, x_t: Tensor, level: Level) -> Prediction:
        """eps = (x_t - alpha x0)/sigma, as guided-diffusion's DDIM re-derives it after clipping;
        left as it is at sigma = 0.
        """
        if level.sigma == 0:
            return prediction._replace(x0=x0)
        return prediction._replace(x0=x0, eps=weighted_sum((1 / level.sigma, x_t), (-level.alpha / level.sigma, x0)))

    def why_not(self, cell: Cell) -> str | None:
        """Why samples cannot begin as pure noise at the first time of the spacing.

        `prior` has no signal in it; what the true x_t has, alpha/sigma of it, is lost. At a third N(0.3, 0.5²) still
        ends within 0.05 of its mean and 4 % of its standard deviation.
        """
        first = float(cell.spacing(cell.noise_schedule, cell.scheduler.steps)[0])
        alpha, sigma = cell.noise_schedule.scales(first)
        if alpha <= LARGEST_SIGNAL * sigma:
            return None
        signal = alpha / sigma if sigma else math.inf
        return (
            f"{cell.spacing.component_name()} spacing with {cell.scheduler.steps} steps starts at t = {first:.3g}, far "
            f"from pure noise on {cell.noise_schedule.component_name()}: alpha/sigma is {signal:.2g} there, and "
            "samples "
            f"begin as noise alone, which holds up to {LARGEST_SIGNAL:.2g}; use a spacing that starts nearer to t = 1"
        )
