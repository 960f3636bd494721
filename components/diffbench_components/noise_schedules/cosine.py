"""The cosine schedule of improved DDPM."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from diffbench import DiscreteNoiseSchedule


@dataclass(frozen=True, kw_only=True)
class Cosine(DiscreteNoiseSchedule):
    """Improved DDPM's cosine schedule, variance-preserving, with capped betas.

    alpha_bar(t) = f(t)/f(0), f(t) = cos²(pi/2 (t + s)/(1 + s)).
    beta_i = min(1 - alpha_bar(i/T)/alpha_bar((i-1)/T), max_beta), i = 1..T. Without the cap alpha_bar(1) would be 0 and
    epsilon undefined there; with it alpha_bar_T is 2.4e-9 at T = 1000.
    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17. Their f(t)/f(0) is our alpha(t)**2.
    """

    s: Annotated[float, Interval(ge=0, lt=1)] = 0.008         # keeps the first step from being too small to learn
    max_beta: Annotated[float, Interval(gt=0, lt=1)] = 0.999  # cap on beta_i; above 0.75 it acts on the last step only

    def alpha_bar(self) -> Tensor:
        t = torch.arange(self.timesteps + 1, dtype=torch.float64) / self.timesteps
        f = torch.cos(math.pi / 2 * (t + self.s) / (1 + self.s)) ** 2
        beta = (1 - f[1:] / f[:-1]).clamp(max=self.max_beta)
        return (1 - beta).cumprod(0)                              # [T]
