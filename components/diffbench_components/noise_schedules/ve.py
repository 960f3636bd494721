"""The variance-exploding SDE with geometric noise levels."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from diffbench_components.noise_schedules.exploding import Exploding


@dataclass(frozen=True, kw_only=True)
class Ve(Exploding):
    """The variance-exploding schedule of score-based models; continuous.

    alpha = 1, sigma(t)² = sigma_min² ((sigma_max/sigma_min)^(2t) - 1).
    This is exactly the noise that the variance-exploding SDE adds to a clean image by time t. The usual sigma_min
    (sigma_max/sigma_min)^t leaves out the -1, which makes t = 0 noisy and changes sigma by less than 1 % from t = 0.24
    on. The defaults are the published ones, which are for images in [0, 1]; on ours, in [-1, 1], 0.02 and 100 would be
    the same process.
    Source: Song & Ermon 2019, arXiv:1907.05600; Song et al. 2021, arXiv:2011.13456, appendix C.
    """

    sigma_min: Annotated[float, Ge(1e-6)] = 0.01   # noise of the first level
    sigma_max: Annotated[float, Gt(0)] = 50.0     # noise at t = 1

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.expm1(2 * self._log_ratio() * t.double()).sqrt()

    def d_sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min**2 * self._log_ratio() * (2 * self._log_ratio() * t.double()).exp() / self.sigma(t)

    def t_of_nsr(self, nsr: Tensor) -> Tensor:
        return torch.log1p((nsr.double() / self.sigma_min) ** 2) / (2 * self._log_ratio())

    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)
