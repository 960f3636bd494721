"""The network predicts the velocity of the variance-preserving circle."""

from dataclasses import dataclass

from torch import Tensor

from diffbench import Level, Parameterization, Prediction, weighted_sum


@dataclass(frozen=True, kw_only=True)
class V(Parameterization):
    """The network predicts v = alpha eps - sigma x_0, defined at every level.

    F = v_hat; alpha = 0 and sigma = 0 included.
    x0_hat = (alpha x - sigma v_hat)/(alpha² + sigma²), eps_hat = (sigma x + alpha v_hat)/(alpha² + sigma²).
    Source: Salimans & Ho 2022, arXiv:2202.00512, section 4 and appendix D (alpha² + sigma² = 1 there).
    """

    def c_in(self, level: Level) -> float | Tensor:
        return (level.alpha**2 + level.sigma**2) ** -0.5

    def target(self, x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return level.alpha * eps - level.sigma * x_0

    def decode(self, out: Tensor, x_t: Tensor, level: Level) -> Prediction:
        norm = level.alpha**2 + level.sigma**2
        x0_hat = weighted_sum((level.alpha / norm, x_t), (-level.sigma / norm, out))
        eps_hat = weighted_sum((level.sigma / norm, x_t), (level.alpha / norm, out))
        return Prediction(x0=x0_hat, eps=eps_hat)
