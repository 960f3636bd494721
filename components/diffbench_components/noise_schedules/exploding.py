"""What schedules that keep the signal and only add noise share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffbench import NoiseSchedule, OptionError


@dataclass(frozen=True, kw_only=True)
class Exploding(NoiseSchedule):
    """alpha = 1; sigma rises from 0 to sigma_max."""

    sigma_min: float
    sigma_max: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sigma_max <= self.sigma_min:
            raise OptionError(f"sigma_max must be above sigma_min, got {self.sigma_max} and {self.sigma_min}")

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64)

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t, dtype=torch.float64)
