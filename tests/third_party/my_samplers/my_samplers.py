"""A stranger's package: one scheduler, one entry point."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor

from diffbench import Denoise, Noise, NoiseSchedule, Scheduler


@dataclass(frozen=True, kw_only=True)
class Rk4(Scheduler):
    """Classical Runge-Kutta on the probability-flow ODE d(x/alpha) = eps d(sigma/alpha)."""

    steps: Annotated[int, Ge(2)] = 20                 # four network evaluations each, one for the last

    order: ClassVar[int] = 2                          # of the whole run: the middle of a step in t is not its middle in sigma/alpha
    min_steps: ClassVar[int] = 2

    def nfe(self, steps: int) -> int:
        return 4 * steps - 3

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float, state: None, noise: Noise) -> tuple[Tensor, None]:
        if s == 0:
            return denoise(x_t, t).x0, None
        middle = float(schedule.t_of_nsr(_as_tensor((_nsr(schedule, t) + _nsr(schedule, s)) / 2)))

        def moved(slope: Tensor, to: float) -> Tensor:
            return schedule.at(to).alpha * (x_t / schedule.at(t).alpha + (_nsr(schedule, to) - _nsr(schedule, t)) * slope)
        k_1 = denoise(x_t, t).eps                     # [B, C, H, W]
        k_2 = denoise(moved(k_1, middle), middle).eps
        k_3 = denoise(moved(k_2, middle), middle).eps
        k_4 = denoise(moved(k_3, s), s).eps
        return moved((k_1 + 2 * k_2 + 2 * k_3 + k_4) / 6, s), None


def _nsr(schedule: NoiseSchedule, t: float) -> float:
    level = schedule.at(t)
    return level.sigma / level.alpha


def _as_tensor(value: float) -> Tensor:
    import torch

    return torch.tensor(value, dtype=torch.float64)
