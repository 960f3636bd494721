"""Equal steps in t."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from diffbench import NoiseSchedule, Spacing


@dataclass(frozen=True, kw_only=True)
class Uniform(Spacing):
    """Equal steps in t.

    t_i = start (1 - i/N), i = 0..N. On a discrete schedule the times lie between grid points where N does not divide T.
    """

    start: Annotated[float, Interval(gt=0, le=1)] = 1.0  # first time; below 1 it spares a solver the singular end of a
                                                         # schedule

    default_of_kind = True

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        return self.start * torch.arange(steps, -1, -1, dtype=torch.float64) / steps      # [N + 1]
