"""Betas that grow with the square of time."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from diffbench import DiscreteNoiseSchedule


@dataclass(frozen=True, kw_only=True)
class Quadratic(DiscreteNoiseSchedule):
    """Variance-preserving schedule whose betas grow with the square of the step.

    beta_i = beta_start + (beta_end - beta_start) (i/T)²; alpha_bar_i = prod_j<=i (1 - beta_j).
    i = 1..T, the ends multiplied by 1000/T. Not the "quad" of DDIM's code, which squares a line of roots:
    `scaled_linear`. With the ends of `linear` alpha_bar_T is 1.1e-3.
    """

    beta_start: Annotated[float, Interval(gt=0, lt=1)] = 1e-4     # beta at t = 0 and T = 1000
    beta_end: Annotated[float, Interval(gt=0, lt=1)] = 0.02       # beta_T at T = 1000

    def alpha_bar(self) -> Tensor:
        first, last = self.per_length(self.beta_start), self.per_length(self.beta_end)
        t = torch.arange(1, self.timesteps + 1, dtype=torch.float64) / self.timesteps
        beta = (first + (last - first) * t**2).clamp(max=0.999)
        return (1 - beta).cumprod(0)                              # [T]
