"""The absolute error of the network's own output."""

from dataclasses import dataclass

from torch import Tensor

from diffbench_components.objectives.regression import Regression


@dataclass(frozen=True, kw_only=True)
class L1(Regression):
    """Absolute error.

    Mean over pixels of w |F - target|. It finds the median of the target, not the mean that samplers assume.
    Source: Saharia et al. 2022, arXiv:2111.05826 (Palette), which compares it with the squared error.
    """

    def distance(self, difference: Tensor) -> Tensor:
        return difference.abs()
