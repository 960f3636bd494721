"""Times that lie close at both ends."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from diffbench import NoiseSchedule, Spacing


@dataclass(frozen=True, kw_only=True)
class Newcomer(Spacing):
    """t_i = (1 - b)(1 - u) + b (1 + cos(pi u))/2, u = i/N, i = 0..N:
    equal steps at b = 0, Chebyshev's extrema at b = 1.
    """

    b: Annotated[float, Interval(ge=0, le=1)] = 0.5   # how much closer steps lie at both ends

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        u = torch.arange(steps + 1, dtype=torch.float64) / steps
        t = (1 - self.b) * (1 - u) + self.b * (1 + torch.cos(math.pi * u)) / 2        # [N + 1]
        t[-1] = 0.0                                   # exactly: the last step is the one that ends clean
        return t
