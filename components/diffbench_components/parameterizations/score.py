"""The network predicts the score."""

from dataclasses import dataclass

from torch import Tensor

from diffbench import Level, Parameterization, Prediction, weighted_sum
from diffbench_components.parameterizations.noise_like import why_not_decoded


@dataclass(frozen=True, kw_only=True)
class Score(Parameterization):
    """The network predicts the score, the gradient of the log-density.

    F = score_hat = -eps_hat/sigma, so x0_hat = (x + sigma² F)/alpha: c_skip = 1/alpha, c_out = sigma²/alpha.
    Its target grows like 1/sigma near the data, so the squared error needs a weight (`mse: {weighting: snr}` is that of
    epsilon). Undefined at alpha = 0 and at sigma = 0.
    Source: Song et al. 2021, arXiv:2011.13456, eq. 7.
    """

    def why_not(self, cell):
        return why_not_decoded("score", cell)

    def c_in(self, level: Level) -> float | Tensor:
        return (level.alpha**2 + level.sigma**2) ** -0.5

    def target(self, x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return -eps / level.sigma

    def decode(self, out: Tensor, x_t: Tensor, level: Level) -> Prediction:
        return Prediction(x0=weighted_sum((1 / level.alpha, x_t), (level.sigma**2 / level.alpha, out)),
                          eps=-level.sigma * out)
