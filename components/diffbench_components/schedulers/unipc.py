"""Unified predictor-corrector."""

import functools
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy
from annotated_types import Ge, Interval
from torch import Tensor

from diffbench import Denoise, Noise, NoiseSchedule, Scheduler, weighted_sum

History = tuple[tuple[float, Tensor], ...]                        # (t, x0_hat), newest first


@dataclass(frozen=True, kw_only=True)
class Unipc(Scheduler):
    """UniPC: a multistep predictor with a corrector that costs no evaluation.

    UniP-p predicts x_s from past x0_hat; UniC-p corrects it with the x0_hat evaluated there, which the next step uses
    as well. In lambda = log(alpha/sigma), h = lambda_s - lambda_t: x_s = sigma_s/sigma_t x_t + alpha_s (1 - e^-h)
    x0_hat - alpha_s B(h) sum_m a_m D_m/r_m, D_m = x0_m - x0_hat at lambda_t + r_m h; the a_m make the rule exact for
    polynomials (UniP: over the past, UniC: over the past and s). B(h) = -h ("bh1") or e^-h - 1 ("bh2"). One evaluation
    a step; the step to the clean level is x0_hat and is not corrected; a level with alpha = 0 has no place in lambda,
    is left out of the past, and the step from it is not corrected. The order is p + 1, the corrector's, where the first
    steps, which have little past, are short; with equal steps from the start 3 at most.
    Source: Zhao et al. 2023, arXiv:2302.04867, with data prediction.
    """

    steps: Annotated[int, Ge(1)] = 20                       # network evaluations
    solver_order: Annotated[int, Interval(ge=1, le=3)] = 2  # p; early steps use what past there is
    b: Literal["bh1", "bh2"] = "bh2"                        # B(h); the paper prefers bh1 below ten steps without
                                                            # guidance

    examples = ({}, {"b": "bh1"}, {"solver_order": 1}, {"solver_order": 3})

    @property
    def order(self) -> int:
        return self.solver_order + 1

    def init(self) -> None:
        return None

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float,
             state: tuple[Tensor, History] | None,
             noise: Noise) -> tuple[Tensor, Any]:
        x0_hat = denoise(x_t, t).x0                               # [B, C, H, W]
        if s == 0:
            return x0_hat, None
        past: History = ()
        if state is not None:
            x_before, past = state
            if schedule.at(past[0][0]).alpha > 0:
                x_t = self._moved(schedule, x_before, past, t, x0_hat)          # UniC
        past = ((t, x0_hat), *(level for level in past if schedule.at(level[0]).alpha > 0))[: self.solver_order]
        return self._moved(schedule, x_t, past, s), (x_t, past)                 # UniP

    def _moved(self, schedule: NoiseSchedule, x: Tensor, past: History, s: float,
               x0_there: Tensor | None = None) -> Tensor:
        """x at the newest level of `past`, moved to s; corrected where x0_hat at s is known."""
        t, x0_hat = past[0]
        _, sigma_t = schedule.scales(t)
        alpha_s, sigma_s = schedule.scales(s)
        decay = schedule.nsr(s) / schedule.nsr(t)                 # e^-h
        others = [x0 for _, x0 in past[1:]] + ([] if x0_there is None else [x0_there])
        weights = _weights(schedule, self.b, tuple(time for time, _ in past), s, x0_there is not None) if others else ()
        # D_m = x0_m - x0_hat, its second part put in here
        first = (sigma_s / sigma_t, x), (alpha_s * (1 - decay + sum(weights)), x0_hat)
        return weighted_sum(*first, *((-alpha_s * weight, x0) for weight, x0 in zip(weights, others, strict=True)))


@functools.lru_cache(maxsize=4096)
def _weights(schedule: NoiseSchedule, b: str, times: tuple[float, ...], s: float, corrects: bool) -> tuple[float, ...]:
    """B(h) a_m / r_m for each level but the newest of `times`, and for s where the rule corrects."""
    lam = [-math.log(schedule.nsr(time)) for time in (*times, s)]
    h = lam[-1] - lam[0]
    r = numpy.array([(place - lam[0]) / h for place in lam[1:]])[: len(times) - (not corrects)]
    big_b = -h if b == "bh1" else math.expm1(-h)
    # phi_k+1(-h) (-h)^k k! for k = 1, 2, ...: moments of the exponential kernel, by recursion from phi_1.
    moments, phi = [], math.expm1(-h) / -h - 1
    for k in range(1, len(r) + 1):
        moments.append(phi * math.factorial(k) / big_b)
        phi = phi / -h - 1 / math.factorial(k + 1)
    # the paper's choice: one half, also exact to leading order
    if len(r) == 1:
        a = numpy.array([0.5])
    else:
        a = numpy.linalg.solve(numpy.vander(r, increasing=True).T, numpy.array(moments))
    return tuple(float(v) for v in big_b * a / r)
