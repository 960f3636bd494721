"""Equal steps in the logarithm of the noise level."""

from dataclasses import dataclass

from torch import Tensor

from diffbench_components.spacings.noise_levels import NoiseLevels


@dataclass(frozen=True, kw_only=True)
class LogSnr(NoiseLevels):
    """Equal steps in log SNR, the grid of exponential integrators.

    log(sigma/alpha) goes from nsr_max to nsr_min, then to the clean level.
    k-diffusion and diffusers call it exponential or "lambda" spacing.
    Source: Lu et al. 2022, arXiv:2206.00927.
    """

    def levels(self, low: float, high: float, share: Tensor) -> Tensor:
        return high ** (1 - share) * low**share
