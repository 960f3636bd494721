"""EDM's noise levels."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from diffbench_components.spacings.noise_levels import NoiseLevels


@dataclass(frozen=True, kw_only=True)
class Karras(NoiseLevels):
    """EDM's spacing: equal steps in a root of the noise level.

    n_i^(1/rho) in equal steps from nsr_max to nsr_min, i = 0..N-1, then 0; n = sigma/alpha.
    rho = 1 is equal steps in n, a large rho is `log_snr`. Karras et al. use 0.002 and 80 on their own schedule,
    k-diffusion and diffusers the ends of the model's; both ends are brought inside the levels the schedule is trained
    at.
    Source: Karras et al. 2022, arXiv:2206.00364, eq. 5.
    """

    rho: Annotated[float, Ge(1)] = 7.0                    # larger: more of the levels near the data

    def levels(self, low: float, high: float, share: Tensor) -> Tensor:
        first, last = high ** (1 / self.rho), low ** (1 / self.rho)
        return (first + share * (last - first)) ** self.rho
