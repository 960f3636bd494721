"""DPM-Solver++: exponential integrators for the clean image."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge
from torch import Tensor

from diffbench import Denoise, Noise, NoiseSchedule, Scheduler, weighted_sum


@dataclass(frozen=True, kw_only=True)
class DpmSolverPp(Scheduler):
    """DPM-Solver++ of second order: multistep, singlestep, or on the reverse SDE.

    In lambda = log(alpha/sigma), h = lambda_s - lambda_t: x_s = sigma_s/sigma_t x_t + alpha_s (1 - e^-h) D.
    "2m": D = x0_hat + (x0_hat - x0_before)/(2 r), r = h_before/h, one evaluation a step. "2s": D = x0_hat at the middle
    of lambda, two evaluations a step. "2m_sde": the same D as 2m on the reverse SDE, x_s = sigma_s/sigma_t e^-h x_t +
    alpha_s (1 - e^-2h) D + sigma_s sqrt(1 - e^-2h) z. The first step of the multistep forms, and the step to the clean
    level, are of order 1: x0_hat. At alpha = 0 h is infinite and the formulas are finite.
    Source: Lu et al. 2022, arXiv:2211.01095, algorithms 1 (2S) and 2 (2M).
    """

    steps: Annotated[int, Ge(1)] = 20              # N; 2s makes 2 N - 1 network evaluations, the others N
    variant: Literal["2m", "2s", "2m_sde"] = "2m"  # multistep, singlestep, multistep with noise

    examples = ({}, {"variant": "2s"}, {"variant": "2m_sde"})
    order: ClassVar[int] = 2  # 2m_sde: weak order, measured on Gaussian data; the paper claims none

    @property
    def is_stochastic(self) -> bool:
        return self.variant == "2m_sde"

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1 if self.variant == "2s" else steps

    def why_not(self, cell):
        first = float(cell.spacing(cell.noise_schedule, self.steps)[0])
        if self.variant == "2s" and cell.noise_schedule.at(first).alpha == 0.0:
            return ("dpm_solver_pp's 2s cannot start at zero terminal SNR, where log SNR has no middle; use 2m, or a "
                    "spacing that starts below t = 1")
        return None

    def init(self) -> tuple[float, Tensor] | None:
        return None

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float,
             state: tuple[float, Tensor] | None,
             noise: Noise) -> tuple[Tensor, tuple[float, Tensor] | None]:
        x0_hat = denoise(x_t, t).x0                               # [B, C, H, W]
        if s == 0:
            return x0_hat, None
        _, sigma_t = schedule.scales(t)
        alpha_s, sigma_s = schedule.scales(s)
        decay = schedule.nsr(s) / schedule.nsr(t)                 # e^-h
        d = x0_hat
        if self.variant == "2s":
            middle = schedule.time_of(math.sqrt(schedule.nsr(t) * schedule.nsr(s)))
            alpha_m, sigma_m = schedule.scales(middle)
            x_m = weighted_sum((sigma_m / sigma_t, x_t), (alpha_m * (1 - schedule.nsr(middle) / schedule.nsr(t)),
                                                          x0_hat))
            d = denoise(x_m, middle).x0
        elif state is not None:
            before, x0_before = state
            h, h_before = -math.log(decay), math.log(schedule.nsr(before) / schedule.nsr(t))
            d = weighted_sum((1 + h / (2 * h_before), x0_hat), (-h / (2 * h_before), x0_before))
        if self.variant != "2m_sde":
            return weighted_sum((sigma_s / sigma_t, x_t), (alpha_s * (1 - decay), d)), (t, x0_hat)
        mean = (sigma_s / sigma_t * decay, x_t), (alpha_s * (1 - decay**2), d)
        return weighted_sum(*mean, (sigma_s * math.sqrt(1 - decay**2), noise())), (t, x0_hat)
