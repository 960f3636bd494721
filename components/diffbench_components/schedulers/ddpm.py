"""Ancestral sampling."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor

from diffbench import Denoise, Noise, NoiseSchedule, Scheduler


@dataclass(frozen=True, kw_only=True)
class Ddpm(Scheduler):
    """Draws x_s from q(x_s | x_t, x0_hat), for any Gaussian process and any step.

    With alpha_ts = alpha_t/alpha_s and var_ts = sigma_t² - alpha_ts² sigma_s² the posterior has mean
    alpha_ts sigma_s²/sigma_t² x_t + alpha_s var_ts/sigma_t² x_0 and variance var_ts sigma_s²/sigma_t² ("small", exact
    where the data are one point); "large" is var_ts itself, DDPM's beta (exact where the data are N(m, 1) under a VP schedule).
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 6 and 7, section 3.2; for any step Kingma et al. 2021, arXiv:2107.00630, appendix A.
    """

    steps: Annotated[int, Ge(1)] = 1000                   # network evaluations
    variance: Literal["small", "large"] = "small"         # of the added noise

    @property
    def is_stochastic(self) -> bool:
        return True

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float, state: None, noise: Noise) -> tuple[Tensor, None]:
        alpha_t, sigma_t = schedule.scales(t)
        alpha_s, sigma_s = schedule.scales(s)
        alpha_ts = alpha_t / alpha_s
        var_ts = sigma_t**2 - alpha_ts**2 * sigma_s**2

        x0_hat = denoise(x_t, t).x0                       # [B, C, H, W]
        mean = (alpha_ts * sigma_s**2 / sigma_t**2) * x_t + (alpha_s * var_ts / sigma_t**2) * x0_hat
        if s == 0:
            return mean, None
        variance = var_ts if self.variance == "large" else var_ts * sigma_s**2 / sigma_t**2
        return mean + math.sqrt(variance) * noise(), None
