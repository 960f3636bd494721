"""The preconditioning of EDM."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from diffbench import Level, Parameterization, Prediction, weighted_sum


@dataclass(frozen=True, kw_only=True)
class Edm(Parameterization):
    """EDM's preconditioning: the network has unit variance in and out.

    x0_hat = c_skip x/alpha + c_out F: c_skip = sd²/(n² + sd²), c_out = n sd/sqrt(n² + sd²).
    n = sigma/alpha, EDM's sigma; sd: standard deviation of the data. c_in = 1/(alpha sqrt(n² + sd²)), c_noise =
    log(n)/4. Written below with alpha and sigma apart, so that it holds at alpha = 0.
    Source: Karras et al. 2022, arXiv:2206.00364, eq. 7 and table 1.
    """

    sigma_data: Annotated[float, Gt(0)] = 0.5     # sd: standard deviation of the data, pixels in [-1, 1]

    def c_in(self, level: Level) -> float | Tensor:
        return 1 / self._norm(level)

    def c_noise(self, level: Level) -> float | Tensor:
        log_n = torch.as_tensor(level.sigma).log() - torch.as_tensor(level.alpha).log()
        return log_n.clamp(-20, 20) / 4                   # at zero SNR n is infinite, at the clean end 0

    def target(self, x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
        # (x_0 - c_skip x/alpha)/c_out, with x = alpha x_0 + sigma eps put in
        norm = self._norm(level)
        return (level.sigma / (self.sigma_data * norm)) * x_0 - (level.alpha * self.sigma_data / norm) * eps

    def decode(self, out: Tensor, x_t: Tensor, level: Level) -> Prediction:
        norm, sd = self._norm(level), self.sigma_data
        x0_hat = weighted_sum((level.alpha * sd**2 / norm**2, x_t), (level.sigma * sd / norm, out))
        # (x - alpha x0_hat)/sigma, sigma cancelled
        eps_hat = weighted_sum((level.sigma / norm**2, x_t), (-level.alpha * sd / norm, out))
        return Prediction(x0=x0_hat, eps=eps_hat)

    def _norm(self, level: Level) -> float | Tensor:
        """Standard deviation of x_t: sqrt(alpha² sd² + sigma²)."""
        return (level.alpha**2 * self.sigma_data**2 + level.sigma**2) ** 0.5
