"""Betas along a sigmoid."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from diffbench import DiscreteNoiseSchedule


@dataclass(frozen=True, kw_only=True)
class Sigmoid(DiscreteNoiseSchedule):
    """Variance-preserving schedule whose betas follow a sigmoid.

    beta_i = beta_start + (beta_end - beta_start) sigmoid(x_i), x_i a line from -steepness to steepness.
    alpha_bar_i = prod_j<=i (1 - beta_j), i = 1..T, the ends multiplied by 1000/T. The sigmoid is on beta, as in the
    released code of DDIM and in diffusers; the "sigmoid" of Jabri et al. 2022 and of denoising-diffusion-pytorch is on
    alpha_bar.
    Source: Xu et al. 2022, arXiv:2203.02923, released code (GeoDiff); Song et al. 2021, arXiv:2010.02502, released
    code.
    """

    beta_start: Annotated[float, Interval(gt=0, lt=1)] = 1e-4  # lower asymptote of beta at T = 1000
    beta_end: Annotated[float, Interval(gt=0, lt=1)] = 0.02    # upper asymptote of beta at T = 1000
    steepness: Annotated[float, Interval(gt=0, le=20)] = 6.0   # half the length of the line the sigmoid is taken along

    def alpha_bar(self) -> Tensor:
        first, last = self.per_length(self.beta_start), self.per_length(self.beta_end)
        x = torch.linspace(-self.steepness, self.steepness, self.timesteps, dtype=torch.float64)
        beta = (first + (last - first) * x.sigmoid()).clamp(max=0.999)
        return (1 - beta).cumprod(0)                              # [T]
