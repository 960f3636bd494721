"""The squared error of the network's own output."""

from dataclasses import dataclass

from torch import Tensor

from diffbench_components.objectives.regression import Regression


@dataclass(frozen=True, kw_only=True)
class Mse(Regression):
    """Squared error; with `epsilon` and the weighting `simple` it is DDPM's L_simple.

    Mean over pixels of w |F - target|².
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 14.
    """

    default_of_kind = True

    def distance(self, difference: Tensor) -> Tensor:
        return difference.square()
