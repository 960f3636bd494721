"""What spacings by noise level share: from levels of sigma/alpha to times."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from diffbench import NoiseSchedule, OptionError, Spacing


@dataclass(frozen=True, kw_only=True)
class NoiseLevels(Spacing):
    """N levels of n = sigma/alpha, placed by a rule between nsr_min and nsr_max, then the clean one.

    Both ends are brought inside the levels that the schedule is trained at: not above n(1), not below the first grid
    point.
    """

    nsr_min: Annotated[float, Gt(0)] = 0.002              # sigma/alpha of the last level before the clean one
    nsr_max: Annotated[float, Gt(0)] = 80.0               # sigma/alpha of the first level

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nsr_max <= self.nsr_min:
            raise OptionError(f"nsr_max must be above nsr_min, got {self.nsr_max} and {self.nsr_min}")

    def why_not(self, cell):
        schedule = cell.noise_schedule
        low, high = self._ends(schedule)
        if low >= high:
            return (f"{self.component_name()} spacing has no levels between sigma/alpha {self.nsr_min:g} and "
                    f"{self.nsr_max:g} on {schedule.component_name()}, whose levels reach from "
                    f"{schedule.nsr(1 / (schedule.grid or 1000)):.3g} to {schedule.nsr(1.0):.3g}")
        return None

    def _ends(self, schedule: NoiseSchedule) -> tuple[float, float]:
        """The least and the largest level visited."""
        low = self.nsr_min if schedule.grid is None else max(self.nsr_min, schedule.nsr(1 / schedule.grid))
        return low, min(self.nsr_max, schedule.nsr(1.0))

    @abstractmethod
    def levels(self, low: float, high: float, share: Tensor) -> Tensor:
        """n at places along the way, share in [0, 1]: high at 0, low at 1."""

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        low, high = self._ends(schedule)
        n = self.levels(low, high, torch.arange(steps, dtype=torch.float64) / max(1, steps - 1))
        times = schedule.t_of_nsr(n).clamp(max=1)
        times[0] = schedule.time_of(high)                 # exactly, whatever rounding the rule has
        return torch.cat([times, torch.zeros(1, dtype=torch.float64)])    # [N + 1]
