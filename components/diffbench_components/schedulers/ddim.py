"""Denoising diffusion implicit models."""

import math
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval
from torch import Tensor

from diffbench import Denoise, Noise, NoiseSchedule, Scheduler, posterior, weighted_sum
from diffbench_components.schedulers.ddpm import Ddpm


@dataclass(frozen=True, kw_only=True)
class Ddim(Scheduler):
    """DDIM, deterministic at eta = 0.

    x_s = alpha_s x0_hat + sqrt(sigma_s² - sigma_eta²) eps_hat + sigma_eta z, sigma_eta = eta sqrt(var_ts)
    sigma_s/sigma_t. var_ts = sigma_t² - (alpha_t/alpha_s)² sigma_s². eta = 0 is deterministic and equals Euler's method
    in sigma/alpha on the probability flow; eta = 1 is `ddpm` with the small variance.
    Source: Song et al. 2021, arXiv:2010.02502, eq. 12 and 16.
    """

    steps: Annotated[int, Ge(1)] = 50                             # network evaluations
    eta: Annotated[float, Interval(ge=0, le=1)] = 0.0             # share of the ancestral noise that is added

    examples = ({}, {"eta": 0.5}, {"eta": 1.0})

    @property
    def is_stochastic(self) -> bool:
        return self.eta > 0

    def equal_to(self) -> Scheduler:
        return Ddpm(steps=self.steps, variance="small") if self.eta == 1 else self

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float, state: None,
             noise: Noise) -> tuple[Tensor, None]:
        alpha_t, sigma_t = schedule.scales(t)
        alpha_s, sigma_s = schedule.scales(s)
        sigma_eta = self.eta * math.sqrt(posterior(alpha_t, sigma_t, alpha_s, sigma_s).small)

        x0_hat, eps_hat, _ = denoise(x_t, t)                      # [B, C, H, W] each
        mean = (alpha_s, x0_hat), (math.sqrt(sigma_s**2 - sigma_eta**2), eps_hat)
        if sigma_eta == 0:
            return weighted_sum(*mean), None
        return weighted_sum(*mean, (sigma_eta, noise())), None
