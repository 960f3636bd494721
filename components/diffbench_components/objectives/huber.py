"""Squared near zero, absolute beyond."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt
from torch import Tensor
from torch.nn import functional as F

from diffbench_components.objectives.regression import Regression


@dataclass(frozen=True, kw_only=True)
class Huber(Regression):
    """Huber loss: squared for small errors, linear for large ones.

    Mean over pixels of w h(F - target), h(d) = d² where |d| <= delta, 2 delta |d| - delta² beyond.
    Twice Huber's function, so that it is `mse` for errors below delta.
    Source: Huber 1964, Annals of Mathematical Statistics 35(1), p. 73-101.
    """

    delta: Annotated[float, Gt(0)] = 1.0                          # error at which it becomes linear

    def distance(self, difference: Tensor) -> Tensor:
        return 2 * F.huber_loss(difference, difference.new_zeros(()).expand_as(difference), reduction="none",
                                delta=self.delta)
