"""A stranger's package: one scheduler, one entry point."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from diffbench import Denoise, Noise, NoiseSchedule, Scheduler


@dataclass(frozen=True, kw_only=True)
class Rk4(Scheduler):
    """Classical Runge-Kutta on the probability flow, in the angle phi = atan(sigma/alpha).

    With r = sqrt(alpha² + sigma²) and y = x/r the flow is dy/dphi = cos(phi) eps - sin(phi) x_0, smooth from pure noise (phi = pi/2) to data
    (phi = 0): no division by alpha or by sigma. The last step takes x0_hat itself, for eps is undefined at the clean level.
    """

    steps: Annotated[int, Ge(2)] = 20                 # four network evaluations each, one for the last

    order: ClassVar[int] = 4
    min_steps: ClassVar[int] = 2

    def nfe(self, steps: int) -> int:
        return 4 * steps - 3

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float, state: None, noise: Noise) -> tuple[Tensor, None]:
        if s == 0:
            return denoise(x_t, t).x0, None
        (r_t, phi_t), (r_s, phi_s) = _polar(schedule, t), _polar(schedule, s)
        h = phi_s - phi_t
        middle = schedule.time_of(math.tan(phi_t + h / 2))
        r_m, phi_m = _polar(schedule, middle)

        def slope(x: Tensor, at: float, phi: float) -> Tensor:
            x0_hat, eps_hat, _ = denoise(x, at)       # [B, C, H, W] each
            return torch.sub(math.cos(phi) * eps_hat, x0_hat, alpha=math.sin(phi))

        def moved(k: Tensor, r: float, by: float) -> Tensor:
            return torch.add((r / r_t) * x_t, k, alpha=r * by)
        k_1 = slope(x_t, t, phi_t)
        k_2 = slope(moved(k_1, r_m, h / 2), middle, phi_m)
        k_3 = slope(moved(k_2, r_m, h / 2), middle, phi_m)
        k_4 = slope(moved(k_3, r_s, h), s, phi_s)
        return moved(k_1 + 2 * (k_2 + k_3) + k_4, r_s, h / 6), None


def _polar(schedule: NoiseSchedule, t: float) -> tuple[float, float]:
    """(r, phi) of the level at t."""
    alpha, sigma = schedule.scales(t)
    return math.hypot(alpha, sigma), math.atan2(sigma, alpha)
