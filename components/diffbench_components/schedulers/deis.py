"""Diffusion exponential integrator sampler."""

import functools
import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy
import torch
from annotated_types import Ge, Interval
from torch import Tensor

from diffbench import Denoise, Noise, NoiseSchedule, Scheduler, weighted_sum
from diffbench_components.schedulers.ddim import Ddim

NODES, NODE_WEIGHTS = numpy.polynomial.legendre.leggauss(32)


@dataclass(frozen=True, kw_only=True)
class Deis(Scheduler):
    """DEIS: an exponential integrator that extrapolates eps from past steps, on any grid.

    Adams-Bashforth: eps is extrapolated by a polynomial and integrated exactly.
    d(x/alpha) = eps dn, n = sigma/alpha, so x_s = alpha_s x0_hat + sigma_s eps_hat + alpha_s sum_j (int_{n_t}^{n_s} L_j
    dn) (eps_j - eps_hat), L_j the Lagrange polynomials through the last evaluations in `variable`: t (the paper's tAB),
    rho = n (rhoAB), or log rho (its released code and diffusers). A level with alpha = 0 has no place on the axes of
    rho and log rho and is left out of the polynomial. The step to the clean level is x0_hat. The first steps use what
    past there is, the first is of order 1: with equal steps from the start the global order is 2 however many
    evaluations are kept, and it is their number where the first steps are short.
    Source: Zhang & Chen 2023, arXiv:2204.13902.
    """

    steps: Annotated[int, Ge(1)] = 20                             # network evaluations
    solver_order: Annotated[int, Interval(ge=1, le=4)] = 2        # evaluations the polynomial passes through; 1 is ddim
    variable: Literal["t", "rho", "log_rho"] = "log_rho"          # what it is a polynomial in

    examples = ({}, {"solver_order": 1}, {"solver_order": 3}, {"solver_order": 2, "variable": "t"},
                {"solver_order": 4, "variable": "rho"})

    @property
    def order(self) -> int:
        return self.solver_order

    def equal_to(self) -> Scheduler:
        return Ddim(steps=self.steps) if self.solver_order == 1 else self

    def init(self) -> tuple[tuple[float, Tensor], ...]:
        return ()

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float,
             state: tuple[tuple[float, Tensor], ...],
             noise: Noise) -> tuple[Tensor, tuple[tuple[float, Tensor], ...]]:
        alpha_s, sigma_s = schedule.scales(s)
        x0_hat, eps_hat, _ = denoise(x_t, t)                      # [B, C, H, W] each
        history = ((t, eps_hat), *state)[: self.solver_order]
        if s == 0:
            return x0_hat, history
        usable = tuple(past for past in history if schedule.at(past[0]).alpha > 0)
        integrals = _integrals(schedule, self.variable, tuple(time for time, _ in usable), s) if len(usable) > 1 else ()
        first = (alpha_s, x0_hat), (sigma_s - alpha_s * sum(integrals), eps_hat)
        return weighted_sum(*first, *((alpha_s * integral, eps)
                                      for integral, (_, eps) in zip(integrals, usable[1:], strict=False))), history


@functools.lru_cache(maxsize=4096)
def _integrals(schedule: NoiseSchedule, variable: str, times: tuple[float, ...], s: float) -> tuple[float, ...]:
    """int_{n_t}^{n_s} L_j dn for all but the newest of `times` (newest first, the first is t), by quadrature in log n.
    """
    low, high = math.log(schedule.nsr(s)), math.log(schedule.nsr(times[0]))
    n = numpy.exp((high + low) / 2 + (high - low) / 2 * NODES)

    def places(nsr: numpy.ndarray) -> numpy.ndarray:
        if variable == "t":
            return schedule.t_of_nsr(torch.from_numpy(nsr)).clamp(max=1.0).numpy()
        return nsr if variable == "rho" else numpy.array([math.log(value) for value in nsr])
    points = places(numpy.array([schedule.nsr(time) for time in times]))
    along = places(n)
    integrals = []
    for j in range(1, len(points)):
        polynomial = numpy.prod([(along - p) / (points[j] - p) for i, p in enumerate(points) if i != j], axis=0)
        integrals.append(-(high - low) / 2 * float((NODE_WEIGHTS * polynomial * n).sum()))     # downwards: from t to s
    return tuple(integrals)
