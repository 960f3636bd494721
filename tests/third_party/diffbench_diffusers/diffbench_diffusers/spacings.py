"""The grid a peer makes for itself."""

from dataclasses import dataclass, replace

from torch import Tensor

from diffbench import NoiseSchedule, Scheduler, Spacing
from diffbench_diffusers.schedulers import Adapted


@dataclass(frozen=True, kw_only=True)
class TimesOf(Spacing):
    """The times at which a scheduler of diffusers begins its steps, by its own rule and options; then 0. Any scheduler can be run on them."""

    of: Scheduler                     # whose times, such as {diffusers.dpm_solver_singlestep: {solver_order: 3}}; its steps are those of the row

    examples = ({"of": "diffusers.euler_discrete"},)

    def why_not(self, cell):
        if not isinstance(self.of, Adapted):
            return f"times_of takes a scheduler of diffusers, and {self.of.component_name()} is none"
        return replace(self.of, steps=cell.scheduler.steps).why_not_on(cell.noise_schedule)

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        return replace(self.of, steps=steps).times(schedule)
