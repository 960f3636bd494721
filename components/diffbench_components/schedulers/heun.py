"""Heun's method, with the churn of EDM."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from diffbench import Denoise, Noise, NoiseSchedule, OptionError, Scheduler, weighted_sum
from diffbench_components.schedulers.slopes import why_not_from_here
from diffbench_components.schedulers.spread import VARIANCE, growth, why_not_for_its_spread

LARGEST_GAMMA = math.sqrt(2) - 1      # EDM's bound: a step never adds more noise than there is


@dataclass(frozen=True, kw_only=True)
class Heun(Scheduler):
    """Heun's method of second order, EDM's sampler; 2 N - 1 evaluations.

    The trapezoidal rule on the probability flow: an Euler step, then the mean of the slopes at both ends.
    variable "sigma": steps in n = sigma/alpha, where the flow is d(x/alpha) = eps dn. With churn each step first raises
    n to n_hat = (1 + gamma) n, gamma = min(s_churn/N, sqrt(2) - 1) where s_min <= n <= s_max, by x_hat = alpha_hat
    (x/alpha + sqrt(n_hat² - n²) s_noise z); not above n(1) and, unlike the paper's, not before the step to the clean
    level, which is x0_hat. variable "t": steps in t, dx/dt = alpha' x_0 + sigma' eps, which a flow with zero terminal
    SNR needs.
    Source: Karras et al. 2022, arXiv:2206.00364, algorithm 2 ("sigma", with churn) and algorithm 1 ("t").
    """

    steps: Annotated[int, Ge(1)] = 18          # N; 2 N - 1 network evaluations
    variable: Literal["sigma", "t"] = "sigma"  # what the slope is taken in
    s_churn: Annotated[float, Ge(0)] = 0.0     # noise added anew, over the whole run; 0: deterministic
    s_min: Annotated[float, Ge(0)] = 0.0       # sigma/alpha below which none is added
    s_max: Annotated[float, Ge(0)] = 1e6       # and above which none is added
    s_noise: Annotated[float, Ge(0)] = 1.0     # standard deviation of the added noise; EDM uses up to 1.007

    examples = ({}, {"variable": "t"}, {"s_churn": 10.0})
    order: ClassVar[int] = 2  # weak order where churn adds noise: adding it is exact, the way back is Heun's

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.s_min > self.s_max:
            raise OptionError(f"s_max must not be below s_min, got {self.s_max} and {self.s_min}")

    @property
    def is_stochastic(self) -> bool:
        return self.s_churn > 0

    def equal_to(self) -> Scheduler:
        return self if self.s_churn > 0 else Heun(steps=self.steps, variable=self.variable)

    def nfe(self, steps: int) -> int:
        return 2 * steps - 1

    def why_not(self, cell):
        if self.variable == "t" and cell.noise_schedule.grid:
            return (f"heun in t needs rates that change smoothly, and those of {cell.noise_schedule.component_name()} "
                    "jump at its grid points; use 'heun: {variable: sigma}'")
        if self.steps == 1:                               # x0_hat, which no slope moves
            return None
        gain = why_not_from_here("heun", self.steps, cell) if self.variable == "sigma" else None
        return gain or why_not_for_its_spread(f"heun in {self.variable}", self.steps, cell, self.moved)

    def moved(self, schedule: NoiseSchedule, variance: float, t: float, s: float) -> float:
        """The variance of x_s for Gaussian data of variance v: slopes are a_t x and a_s (1 + h a_t) x; of x/alpha in n,
        a = n/(n² + v).
        """
        if self.variable == "t":
            return self._risen(s - t, growth(schedule, t), growth(schedule, s)) ** 2 * variance
        (alpha_t, _), (alpha_s, _), n, n_s = (
            schedule.scales(t),
            schedule.scales(s),
            self._raised(schedule, t),
            schedule.nsr(s),
        )
        variance = variance / alpha_t**2 + (n**2 - schedule.nsr(t) ** 2) * self.s_noise**2  # of x/alpha at n_hat
        return (alpha_s * self._risen(n_s - n, n / (n**2 + VARIANCE), n_s / (n_s**2 + VARIANCE))) ** 2 * variance

    @staticmethod
    def _risen(h: float, a_t: float, a_s: float) -> float:
        """The gain of a step of the trapezoidal rule."""
        return 1 + h / 2 * (a_t + a_s * (1 + h * a_t))

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float, state: None,
             noise: Noise) -> tuple[Tensor, None]:
        if self.s_churn > 0 and s > 0:
            x_t, t = self._churned(schedule, x_t, t, noise)
        x0_hat, eps_hat, _ = denoise(x_t, t)                      # [B, C, H, W] each
        if s == 0:
            return x0_hat, None
        if self.variable == "sigma":
            alpha_s, sigma_s = schedule.scales(s)
            h = schedule.nsr(s) - schedule.nsr(t)
            x_euler = weighted_sum((alpha_s, x0_hat), (sigma_s, eps_hat))
            half = alpha_s * h / 2
            return weighted_sum((1.0, x_euler), (half, denoise(x_euler, s).eps), (-half, eps_hat)), None
        h = s - t
        _, _, _, d_alpha_t, d_sigma_t = schedule.at(t)
        _, _, _, d_alpha_s, d_sigma_s = schedule.at(s)
        slope_t = weighted_sum((d_alpha_t, x0_hat), (d_sigma_t, eps_hat))
        x0_hat, eps_hat, _ = denoise(torch.add(x_t, slope_t, alpha=h), s)
        return (weighted_sum((1.0, x_t), (h / 2, slope_t), (h / 2 * d_alpha_s, x0_hat), (h / 2 * d_sigma_s, eps_hat)),
                None)

    def _churned(self, schedule: NoiseSchedule, x_t: Tensor, t: float, noise: Noise) -> tuple[Tensor, float]:
        """The state at a higher level of noise, and its time."""
        n, n_hat = schedule.nsr(t), self._raised(schedule, t)
        if not n < n_hat < math.inf:
            return x_t, t
        t_hat = schedule.time_of(n_hat)
        alpha_hat = schedule.at(t_hat).alpha
        return weighted_sum((alpha_hat / schedule.at(t).alpha, x_t),
                            (alpha_hat * math.sqrt(n_hat**2 - n**2) * self.s_noise, noise())), t_hat

    def _raised(self, schedule: NoiseSchedule, t: float) -> float:
        """n_hat, sigma/alpha after noise was added."""
        n = schedule.nsr(t)
        gamma = min(self.s_churn / self.steps, LARGEST_GAMMA) if self.s_min <= n <= self.s_max else 0.0
        return min(n * (1 + gamma), schedule.nsr(1.0))
