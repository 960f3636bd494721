"""A walk along the circle alpha² + sigma² = 1."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from diffbench import NoiseSchedule


@dataclass(frozen=True, kw_only=True)
class Newcomer(NoiseSchedule):
    """alpha(t) = cos(reach pi t/2), sigma(t) = sin(reach pi t/2): continuous, at equal speed along the circle.

    t: float64, any shape, in [0, 1]; 0 is data, 1 is noise. alpha, sigma: same shape, no unit.
    """

    reach: Annotated[float, Interval(gt=0, lt=1)] = 0.97  # share of the quarter circle; at 1 nothing of the image
                                                          # would be left

    def alpha(self, t: Tensor) -> Tensor:
        return torch.cos(self._speed * t.double())

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(self._speed * t.double())

    def t_of_nsr(self, nsr: Tensor) -> Tensor:
        return torch.atan(nsr.double()) / self._speed             # sigma/alpha = tan(speed t)

    @property
    def _speed(self) -> float:
        return self.reach * math.pi / 2
