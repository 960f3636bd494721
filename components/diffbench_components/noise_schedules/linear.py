"""DDPM's linear schedule."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from diffbench import DiscreteNoiseSchedule


@dataclass(frozen=True, kw_only=True)
class Linear(DiscreteNoiseSchedule):
    """DDPM's schedule: variance-preserving, with betas that grow linearly.

    alpha_bar_i = prod_j<=i (1 - beta_j).
    beta_i, i = 1..T: from beta_start to beta_end, both multiplied by 1000/T, so that alpha(1) stays near 0 for every T
    (with T = 100 and unscaled ends alpha_bar_T would be 0.36); never above 0.999.
    Source: Ho et al. 2020, arXiv:2006.11239, section 4, T = 1000; the scaling is that of improved-diffusion.
    """

    beta_start: Annotated[float, Interval(gt=0, lt=1)] = 1e-4     # beta_1 at T = 1000
    beta_end: Annotated[float, Interval(gt=0, lt=1)] = 0.02       # beta_T at T = 1000; 0.02, not 0.2

    default_of_kind = True

    def alpha_bar(self) -> Tensor:
        first, last = self.per_length(self.beta_start), self.per_length(self.beta_end)
        beta = torch.linspace(first, last, self.timesteps, dtype=torch.float64).clamp(max=0.999)
        return (1 - beta).cumprod(0)                              # [T]
