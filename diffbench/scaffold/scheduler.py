"""The midpoint rule on the probability flow."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor

from diffbench import Denoise, Noise, NoiseSchedule, Scheduler


@dataclass(frozen=True, kw_only=True)
class Newcomer(Scheduler):
    """Explicit midpoint rule in the angle phi = atan(sigma/alpha), in which the probability flow is smooth at both
    ends.

    With r = sqrt(alpha² + sigma²) and y = x/r: dy/dphi = cos(phi) eps_hat - sin(phi) x0_hat. Two network evaluations
    per step; the last step takes x0_hat itself, for eps is undefined at the clean level.
    """

    steps: Annotated[int, Ge(1)] = 20                 # network evaluations: two each, one for the last

    order: ClassVar[int] = 2                          # claimed order of convergence; `diffbench check` measures it

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float, state: None,
             noise: Noise) -> tuple[Tensor, None]:
        """From t to s < t. The harness owns the loop, the clock, the noise and the counter;
        coefficients are floats on the host.
        """
        x0_hat, eps_hat, _ = denoise(x_t, t)                                    # [B, C, H, W] each
        if s == 0:
            return x0_hat, None
        (r_t, phi_t), (r_s, phi_s) = _polar(schedule, t), _polar(schedule, s)
        m = schedule.time_of(math.tan((phi_t + phi_s) / 2))
        r_m, phi_m = _polar(schedule, m)

        slope = math.cos(phi_t) * eps_hat - math.sin(phi_t) * x0_hat
        x_m = (r_m / r_t) * x_t + (r_m * (phi_m - phi_t)) * slope
        x0_hat, eps_hat, _ = denoise(x_m, m)
        slope = math.cos(phi_m) * eps_hat - math.sin(phi_m) * x0_hat
        return (r_s / r_t) * x_t + (r_s * (phi_s - phi_t)) * slope, None


def _polar(schedule: NoiseSchedule, t: float) -> tuple[float, float]:
    """(r, phi) of the level at t: alpha = r cos(phi), sigma = r sin(phi)."""
    alpha, sigma = schedule.scales(t)
    return math.hypot(alpha, sigma), math.atan2(sigma, alpha)
