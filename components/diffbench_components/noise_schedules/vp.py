"""The variance-preserving SDE with a linear beta(t)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Interval
from torch import Tensor

from diffbench import NoiseSchedule, OptionError


@dataclass(frozen=True, kw_only=True)
class Vp(NoiseSchedule):
    """The variance-preserving schedule of score-based models; continuous.

    dx = -beta(t)/2 x dt + sqrt(beta(t)) dw, beta(t) = beta_min + t (beta_max - beta_min).
    alpha² = exp(-B), sigma² = 1 - exp(-B), B(t) = beta_min t + (beta_max - beta_min) t²/2. The limit of `linear`, whose
    betas are beta(t)/1000; the product and the integral differ (alpha_bar(1) is 4.32e-5 here, 4.04e-5 there).
    Source: Song et al. 2021, arXiv:2011.13456, eq. 11 and appendix C.
    """

    beta_min: Annotated[float, Gt(0)] = 0.1       # beta(0)
    beta_max: Annotated[float, Interval(gt=0, le=1000)] = 20.0            # beta(1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta_max <= self.beta_min:
            raise OptionError(f"beta_max must be above beta_min, got {self.beta_max} and {self.beta_min}")

    def alpha(self, t: Tensor) -> Tensor:
        return (-self._integral(t) / 2).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(-self._integral(t))).sqrt()          # expm1: 1 - alpha² would lose all digits near t = 0

    def d_alpha(self, t: Tensor) -> Tensor:
        return -self._beta(t) / 2 * self.alpha(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return self._beta(t) / 2 * self.alpha(t) ** 2 / self.sigma(t)

    def t_of_nsr(self, nsr: Tensor) -> Tensor:
        integral = torch.log1p(nsr.double() ** 2)                 # B = log(1 + nsr²)
        slope = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + (self.beta_min**2 + 2 * slope * integral).sqrt())

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + t.double() * (self.beta_max - self.beta_min)

    def _integral(self, t: Tensor) -> Tensor:
        t = t.double()
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2
