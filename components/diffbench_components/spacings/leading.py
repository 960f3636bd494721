"""Equal strides counted up from the cleanest grid point."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffbench import NoiseSchedule, Spacing


@dataclass(frozen=True, kw_only=True)
class Leading(Spacing):
    """t_i = ((N - 1 - i) floor(T/N) + 1)/T, i = 0..N-1, then 0: index 0 of the table is always visited, its noisiest entry never.

    The last step is 1/T long whatever the stride. Needs a grid of T points.
    Source: Song et al. 2021, arXiv:2010.02502, appendix D.2 ("linear" sub-sequence); diffusers' "leading" with offset 0.
    """

    def why_not(self, cell):
        grid = cell.noise_schedule.grid
        if grid is None:
            return f"leading spacing strides over grid points, and {cell.noise_schedule.component_name()} is continuous"
        if cell.scheduler.steps > grid:
            return f"leading spacing cannot visit {cell.scheduler.steps} of {grid} grid points"
        return None

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        index = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * (schedule.grid // steps)
        return torch.cat([(index + 1) / schedule.grid, torch.zeros(1, dtype=torch.float64)])      # [N + 1]
