"""The network predicts the clean image."""

from dataclasses import dataclass

from torch import Tensor

from diffbench import Level, Parameterization, Prediction, weighted_sum


@dataclass(frozen=True, kw_only=True)
class X0(Parameterization):
    """The network predicts the clean image.

    F = x0_hat, so eps_hat = (x - alpha x0_hat)/sigma: c_skip = 0, c_out = 1; defined at alpha = 0, not at sigma = 0.
    Source: Ho et al. 2020, arXiv:2006.11239, section 3.2 (considered there and left for epsilon).
    """

    def c_in(self, level: Level) -> float | Tensor:
        return (level.alpha**2 + level.sigma**2) ** -0.5

    def target(self, x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return x_0

    def decode(self, out: Tensor, x_t: Tensor, level: Level) -> Prediction:
        return Prediction(x0=out, eps=weighted_sum((1 / level.sigma, x_t), (-level.alpha / level.sigma, out)))
