"""Ancestral sampling."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor

from diffbench import Denoise, Noise, NoiseSchedule, Scheduler, posterior, weighted_sum
from diffbench_components.schedulers.spread import VARIANCE, marginal, why_not_for_its_spread


@dataclass(frozen=True, kw_only=True)
class Ddpm(Scheduler):
    """DDPM's ancestral sampling, for any Gaussian process and any step.

    Draws x_s from q(x_s | x_t, x0_hat).
    With alpha_ts = alpha_t/alpha_s and var_ts = sigma_t² - alpha_ts² sigma_s² the posterior has mean
    alpha_ts sigma_s²/sigma_t² x_t + alpha_s var_ts/sigma_t² x_0 and variance var_ts sigma_s²/sigma_t² ("small", exact
    where the data are one point); "large" is var_ts itself, DDPM's beta (exact where the data are N(m, 1) under a VP
    schedule); "learned" lies between their logarithms, where a network trained with `hybrid` or `vlb` puts it, for the
    true length of the step.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 6 and 7, section 3.2; for any step Kingma et al. 2021,
    arXiv:2107.00630, appendix A;
    learned: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 15.
    """

    steps: Annotated[int, Ge(1)] = 1000                           # network evaluations
    variance: Literal["small", "large", "learned"] = "small"      # of the added noise

    examples = ({}, {"variance": "large"}, {"variance": "learned"})

    @property
    def is_stochastic(self) -> bool:
        return True

    def why_not(self, cell):
        if self.variance == "learned" and not cell.objective.learns_variance:
            return ("ddpm's learned variance is trained by hybrid or vlb, and the objective is "
                    f"{cell.objective.component_name()}")
        return (
            why_not_for_its_spread("ddpm with the large variance", self.steps, cell, self.moved)
            if self.variance == "large"
            else None
        )

    def moved(self, schedule: NoiseSchedule, variance: float, t: float, s: float) -> float:
        """The variance of x_s for Gaussian data of variance v, where x0_hat is alpha v/v_t x_t and the large variance
        is added.
        """
        alpha_t, sigma_t = schedule.scales(t)
        q = posterior(alpha_t, sigma_t, *schedule.scales(s))
        return (q.of_x + q.of_x0 * alpha_t * VARIANCE / marginal(schedule, t)) ** 2 * variance + q.large

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float, state: None,
             noise: Noise) -> tuple[Tensor, None]:
        q = posterior(*schedule.scales(t), *schedule.scales(s))
        x0_hat, _, share = denoise(x_t, t)                        # [B, C, H, W] each
        mean = (q.of_x, x_t), (q.of_x0, x0_hat)
        if s == 0:
            return weighted_sum(*mean), None
        if self.variance == "learned":
            if share is None:
                raise ValueError("ddpm's learned variance needs a denoiser that predicts it: Prediction(x0, eps, "
                                 "variance)")
            log_small, log_large = math.log(q.small), math.log(q.large)
            std = (log_small / 2 + (log_large - log_small) / 2 * share).exp()
            return weighted_sum(*mean, (std, noise())), None
        return weighted_sum(*mean, (math.sqrt(q.large if self.variance == "large" else q.small), noise())), None
