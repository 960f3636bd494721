"""Equal strides counted up from the cleanest grid point."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffbench import NoiseSchedule, Spacing


@dataclass(frozen=True, kw_only=True)
class Leading(Spacing):
    """DDIM's spacing: equal strides through the table from its cleanest entry on.

    t_i = ((N - 1 - i) floor(T/N) + 1)/T, i = 0..N-1, then 0: index 0 of the table is always visited, its noisiest entry
    only if N = T. The last step is 1/T long whatever the stride. Needs a grid of T points. Where N does not divide T it
    may start far below t = 1 (N = 334 of 1000 at 0.667); the plan refuses it where too much of the signal is left
    there.
    Source: Song et al. 2021, arXiv:2010.02502, appendix D.2 ("linear" sub-sequence); diffusers' "leading" with offset
    0.
    """

    def why_not(self, cell):
        grid = cell.noise_schedule.grid
        if grid is None:
            return f"leading spacing strides over grid points, and {cell.noise_schedule.component_name()} is continuous"
        steps = cell.scheduler.steps
        if steps > grid:
            return f"leading spacing cannot visit {steps} of {grid} grid points"
        return None

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        index = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * (schedule.grid // steps)
        return torch.cat([(index + 1) / schedule.grid, torch.zeros(1, dtype=torch.float64)])      # [N + 1]
