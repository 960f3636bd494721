"""The network predicts the difference of noise and image."""

from dataclasses import dataclass

from torch import Tensor

from diffbench import Level, Parameterization, Prediction


@dataclass(frozen=True, kw_only=True)
class Newcomer(Parameterization):
    """F = eps - x_0, on every noise schedule; x0_hat = (x_t - sigma F)/(alpha + sigma), eps_hat = (x_t + alpha
    F)/(alpha + sigma).

    Defined at every level, for alpha + sigma is never 0. On `rectified_flow` it is the velocity dx_t/dt.
    """

    def c_in(self, level: Level) -> float | Tensor:
        return (level.alpha**2 + level.sigma**2) ** -0.5

    def target(self, x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return eps - x_0

    def decode(self, out: Tensor, x_t: Tensor, level: Level) -> Prediction:
        whole = level.alpha + level.sigma
        return Prediction(x0=(x_t - level.sigma * out) / whole, eps=(x_t + level.alpha * out) / whole)
