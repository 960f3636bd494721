"""Betas in geometric progression."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from diffbench import DiscreteNoiseSchedule


@dataclass(frozen=True, kw_only=True)
class Exponential(DiscreteNoiseSchedule):
    """Variance-preserving schedule whose betas grow exponentially.

    beta_i = beta_start (beta_end/beta_start)^((i - 1)/(T - 1)); alpha_bar_i = prod_j<=i (1 - beta_j).
    i = 1..T, the ends multiplied by 1000/T. It ends at alpha_bar_T = 2.3e-2: a sampler that starts from pure noise
    starts from what training never showed; `zero_terminal_snr` removes that. Other "exponential" schedules are exp(-12
    t) on alpha_bar and `ve`.
    """

    beta_start: Annotated[float, Interval(gt=0, lt=1)] = 1e-4     # beta_1 at T = 1000
    beta_end: Annotated[float, Interval(gt=0, lt=1)] = 0.02       # beta_T at T = 1000

    def alpha_bar(self) -> Tensor:
        share = torch.linspace(0, 1, self.timesteps, dtype=torch.float64)
        beta = (self.per_length(self.beta_start) * (self.beta_end / self.beta_start) ** share).clamp(max=0.999)
        return (1 - beta).cumprod(0)                              # [T]
