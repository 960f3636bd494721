"""Euler-Maruyama on the reverse-time SDE."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor

from diffbench import Denoise, Noise, NoiseSchedule, Scheduler, weighted_sum
from diffbench_components.schedulers.spread import marginal, why_not_for_its_spread


@dataclass(frozen=True, kw_only=True)
class EulerSde(Scheduler):
    """The Euler-Maruyama method on the reverse SDE.

    From t to s = t - h along dx = [f x - g² score] dt + g dw: x_s = x_t + h (-f x_t + g² score) + g sqrt(h) z, score =
    -eps_hat/sigma. dt < 0, so the score is added: for VP, x + h (beta/2 x + beta score) + sqrt(beta h) z. h is the true
    length of the step (with dt = -1/N on a grid that ends elsewhere the method breaks below 1000 steps). The step to
    the clean level is x0_hat, Tweedie's estimate, because the score has no value there. Weak order 1; expect poor
    samples below about 100 steps. Where h g² is large (cosine near t = 1, `ve` and `edm` with few steps) the spread of
    the images is lost or states leave it on the way: refused, see `spread`.
    Source: Song et al. 2021, arXiv:2011.13456, eq. 6 and section 4.1.
    """

    steps: Annotated[int, Ge(1)] = 1000                           # network evaluations

    aliases: ClassVar[tuple[str, ...]] = ("euler_maruyama",)

    @property
    def is_stochastic(self) -> bool:
        return True

    def why_not(self, cell):
        if cell.noise_schedule.at(float(cell.spacing(cell.noise_schedule, self.steps)[0])).alpha == 0.0:
            return "euler_sde cannot start at zero terminal SNR: the drift d log alpha/dt is infinite there"
        return why_not_for_its_spread("euler_sde", self.steps, cell, self.moved)

    @staticmethod
    def moved(schedule: NoiseSchedule, variance: float, t: float, s: float) -> float:
        """The variance of x_s for Gaussian data, score = -x/v_t: (1 - h f - h g²/v_t)² of that of x_t, and g² h."""
        f, g2 = schedule.rates(t)
        return (1 - (t - s) * (f + g2 / marginal(schedule, t))) ** 2 * variance + g2 * (t - s)

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float, state: None,
             noise: Noise) -> tuple[Tensor, None]:
        x0_hat, eps_hat, _ = denoise(x_t, t)                      # [B, C, H, W] each
        if s == 0:
            return x0_hat, None
        h = t - s
        f, g2 = schedule.rates(t)
        score_scale = -1 / schedule.at(t).sigma                   # score = score_scale eps_hat
        return weighted_sum((1 - h * f, x_t), (h * g2 * score_scale, eps_hat), (math.sqrt(g2 * h), noise())), None
