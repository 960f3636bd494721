"""Equal steps in the logarithm of the noise level."""

from dataclasses import dataclass

from torch import Tensor

from diffbench_components.spacings.noise_levels import NoiseLevels


@dataclass(frozen=True, kw_only=True)
class LogSnr(NoiseLevels):
    """log(sigma/alpha) in equal steps from nsr_max to nsr_min, then the clean level; the grid of exponential integrators.

    k-diffusion and diffusers call it exponential or "lambda" spacing.
    Source: Lu et al. 2022, arXiv:2206.00927.
    """

    def levels(self, low: float, high: float, share: Tensor) -> Tensor:
        return high ** (1 - share) * low**share
