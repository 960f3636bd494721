"""Euler's method on the probability flow, in t."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from diffbench import Denoise, Noise, NoiseSchedule, Scheduler, weighted_sum
from diffbench_components.schedulers.spread import growth, why_not_for_its_spread


@dataclass(frozen=True, kw_only=True)
class EulerOde(Scheduler):
    """Euler's method on the probability flow, in the schedule's own time t.

    From t to s = t - h along dx/dt = alpha' x_0 + sigma' eps = f x - g²/2 score: x_s = x_t - h (alpha' x0_hat + sigma'
    eps_hat). Euler's method in t itself; in sigma/alpha it would be `ddim`, which k-diffusion and diffusers call Euler.
    On `rectified_flow` the two are one, the usual flow sampler. The step to the clean level is x0_hat, because sigma'
    has no value there. On `ve` and `edm`, where sigma grows geometrically, few steps lose most of the spread of the
    images (20 % is left of it at 20 steps): refused, see `spread`.
    Source: Song et al. 2021, arXiv:2011.13456, eq. 13; flows: Ma et al. 2024, arXiv:2401.08740.
    """

    steps: Annotated[int, Ge(1)] = 50                             # network evaluations

    def why_not(self, cell):
        return why_not_for_its_spread("euler_ode", self.steps, cell, self.moved)

    def moved(self, schedule: NoiseSchedule, variance: float, t: float, s: float) -> float:
        """The variance of x_s for Gaussian data: (1 - h a)² of that of x_t, where a x is the slope."""
        return (1 - (t - s) * growth(schedule, t)) ** 2 * variance

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float, state: None,
             noise: Noise) -> tuple[Tensor, None]:
        x0_hat, eps_hat, _ = denoise(x_t, t)                      # [B, C, H, W] each
        if s == 0:
            return x0_hat, None
        h = t - s
        _, _, _, d_alpha, d_sigma = schedule.at(t)
        return weighted_sum((1.0, x_t), (-h * d_alpha, x0_hat), (-h * d_sigma, eps_hat)), None
