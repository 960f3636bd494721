"""Euler's method on the probability flow, in t."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from diffbench import Denoise, Noise, NoiseSchedule, Scheduler, weighted_sum


@dataclass(frozen=True, kw_only=True)
class EulerOde(Scheduler):
    """From t to s = t - h along dx/dt = alpha' x_0 + sigma' eps = f x - g²/2 score: x_s = x_t - h (alpha' x0_hat + sigma' eps_hat).

    Euler's method in t itself; in sigma/alpha it would be `ddim`, which k-diffusion and diffusers call Euler. On `rectified_flow`
    the two are one, the usual flow sampler. The step to the clean level is x0_hat, because sigma' has no value there.
    Source: Song et al. 2021, arXiv:2011.13456, eq. 13; flows: Ma et al. 2024, arXiv:2401.08740.
    """

    steps: Annotated[int, Ge(1)] = 50                             # network evaluations

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float, state: None, noise: Noise) -> tuple[Tensor, None]:
        x0_hat, eps_hat, _ = denoise(x_t, t)                      # [B, C, H, W] each
        if s == 0:
            return x0_hat, None
        h = t - s
        _, _, _, d_alpha, d_sigma = schedule.at(t)
        return weighted_sum((1.0, x_t), (-h * d_alpha, x0_hat), (-h * d_sigma, eps_hat)), None
