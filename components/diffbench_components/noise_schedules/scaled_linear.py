"""The square of a line of roots."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from diffbench import DiscreteNoiseSchedule


@dataclass(frozen=True, kw_only=True)
class ScaledLinear(DiscreteNoiseSchedule):
    """Stable Diffusion's schedule: variance-preserving, the roots of its betas grow linearly.

    alpha_bar_i = prod_j<=i (1 - beta_j).
    beta_i = (sqrt(beta_start) + (i - 1)/(T - 1) (sqrt(beta_end) - sqrt(beta_start)))², i = 1..T, the ends multiplied by
    1000/T. DDIM's and PNDM's code call it "quad"; our `quadratic` is another schedule. It ends at alpha_bar_T = 4.7e-3,
    far from pure noise.
    Source: Rombach et al. 2022, arXiv:2112.10752, released configurations, T = 1000.
    """

    beta_start: Annotated[float, Interval(gt=0, lt=1)] = 8.5e-4   # beta_1 at T = 1000
    beta_end: Annotated[float, Interval(gt=0, lt=1)] = 0.012      # beta_T at T = 1000

    def alpha_bar(self) -> Tensor:
        first, last = self.per_length(self.beta_start) ** 0.5, self.per_length(self.beta_end) ** 0.5
        beta = (torch.linspace(first, last, self.timesteps, dtype=torch.float64) ** 2).clamp(max=0.999)
        return (1 - beta).cumprod(0)                              # [T]
