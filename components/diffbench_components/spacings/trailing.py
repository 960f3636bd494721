"""Equal strides counted down from the noisiest grid point."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffbench import NoiseSchedule, Spacing


@dataclass(frozen=True, kw_only=True)
class Trailing(Spacing):
    """Equal steps from t = 1 down to the clean level, rounded to the grid.

    t_i = round(T - i T/N)/T, i = 0..N. On a continuous schedule it does not round.
    Right for zero terminal SNR and for few steps. diffusers' "trailing" visits the same levels, but its DDIM steps to
    t - T//N instead of the next of them where N does not divide T.
    Source: Lin et al. 2024, arXiv:2305.08891, section 3.3.
    """

    def why_not(self, cell):
        grid = cell.noise_schedule.grid
        if grid and cell.scheduler.steps > grid:
            return f"trailing spacing cannot visit {cell.scheduler.steps} of {grid} grid points"
        return None

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        down = torch.arange(steps, -1, -1, dtype=torch.float64)
        if schedule.grid is None:
            return down / steps
        return torch.round(down * schedule.grid / steps) / schedule.grid                  # [N + 1]
