"""The network predicts the noise."""

from dataclasses import dataclass

from torch import Tensor

from diffbench import Level, Parameterization, Prediction, weighted_sum
from diffbench_components.parameterizations.noise_like import why_not_decoded


@dataclass(frozen=True, kw_only=True)
class Epsilon(Parameterization):
    """The network predicts the noise.

    F = eps_hat, so x0_hat = (x - sigma eps_hat)/alpha: c_skip = 1/alpha, c_out = -sigma/alpha.
    Undefined at alpha = 0, where x holds no trace of x_0.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 9 to 12.
    """

    default_of_kind = True

    def why_not(self, cell):
        return why_not_decoded("epsilon", cell)

    def c_in(self, level: Level) -> float | Tensor:
        return (level.alpha**2 + level.sigma**2) ** -0.5

    def target(self, x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return eps

    def decode(self, out: Tensor, x_t: Tensor, level: Level) -> Prediction:
        return Prediction(x0=weighted_sum((1 / level.alpha, x_t), (-level.sigma / level.alpha, out)), eps=out)
