"""The noise levels of EDM."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from diffbench_components.noise_schedules.exploding import Exploding

FIRST = 1e-3                                      # t_1, the time of sigma_min


@dataclass(frozen=True, kw_only=True)
class Edm(Exploding):
    """EDM's schedule: alpha = 1, and sigma is the time of its sampler; continuous.

    sigma(t) = (sigma_min^(1/rho) + u (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho, u = (t - t_1)/(1 - t_1).
    EDM's own time is sigma itself; our t counts its steps, so that equal steps in t crowd near the data as its
    sampler's do. The paper's last step goes from sigma_min to the clean image; here that is t from t_1 = 0.001 to 0,
    and sigma is linear between.
    Source: Karras et al. 2022, arXiv:2206.00364, eq. 5 and table 1.
    """

    sigma_min: Annotated[float, Gt(0)] = 0.002    # least noise
    sigma_max: Annotated[float, Gt(0)] = 80.0     # noise at t = 1
    rho: Annotated[float, Ge(1)] = 7.0            # larger: more of the times at low noise

    def sigma(self, t: Tensor) -> Tensor:
        t = t.double()
        return torch.where(t < FIRST, self.sigma_min * t / FIRST, self._root(t) ** self.rho)

    def d_sigma(self, t: Tensor) -> Tensor:
        t = t.double()
        return torch.where(t < FIRST, self.sigma_min / FIRST,
                           self.rho * self._root(t) ** (self.rho - 1) * self._span() / (1 - FIRST))

    def t_of_nsr(self, nsr: Tensor) -> Tensor:
        nsr = nsr.double()
        u = (nsr ** (1 / self.rho) - self.sigma_min ** (1 / self.rho)) / self._span()
        return torch.where(nsr < self.sigma_min, FIRST * nsr / self.sigma_min, FIRST + (1 - FIRST) * u.clamp(min=0))

    def _root(self, t: Tensor) -> Tensor:
        return self.sigma_min ** (1 / self.rho) + ((t - FIRST) / (1 - FIRST)).clamp(min=0) * self._span()

    def _span(self) -> float:
        return self.sigma_max ** (1 / self.rho) - self.sigma_min ** (1 / self.rho)
