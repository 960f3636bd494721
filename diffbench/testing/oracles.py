"""Exact denoisers: data whose posterior mean is known in closed form, so that a sampler's error is a number.

Gaussian data make every scheduler's step affine in x, and its mean and variance can be propagated without drawing a sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffbench.contracts import NoiseSchedule, Scheduler, Spacing
from diffbench.values import Prediction


@dataclass(frozen=True, kw_only=True)
class GaussianData:
    """x_0 ~ N(mean, std²), pixel by pixel. As a denoiser: E[x_0 | x_t] and the eps that goes with it.

    E[x_0 | x_t] = mean + alpha std²/(alpha² std² + sigma²) (x_t - alpha mean).
    """

    schedule: NoiseSchedule
    std: float
    mean: float = 0.0

    def __call__(self, x_t: Tensor, t: float) -> Prediction:
        alpha, sigma = self.schedule.scales(t)
        variance = alpha**2 * self.std**2 + sigma**2
        centred = x_t - alpha * self.mean
        return Prediction(x0=self.mean + (alpha * self.std**2 / variance) * centred, eps=(sigma / variance) * centred)

    def marginal(self, t: float) -> tuple[float, float]:
        """(mean, variance) of x_t."""
        alpha, sigma = self.schedule.scales(t)
        return alpha * self.mean, alpha**2 * self.std**2 + sigma**2

    def flow(self, x_t: float, t: float, s: float) -> float:
        """The probability flow's exact map from t to s: it keeps the number of standard deviations from the mean."""
        (mean_t, var_t), (mean_s, var_s) = self.marginal(t), self.marginal(s)
        return mean_s + (var_s / var_t) ** 0.5 * (x_t - mean_t)


@dataclass(frozen=True, kw_only=True)
class Affine:
    """A whole sampler run on Gaussian data: x_0 = gain x_T + shift + N(0, noise_variance)."""

    gain: float
    shift: float
    noise_variance: float

    def pushed(self, mean: float, variance: float) -> tuple[float, float]:
        """(mean, variance) of x_0 for x_T ~ N(mean, variance)."""
        return self.gain * mean + self.shift, self.gain**2 * variance + self.noise_variance


def affine_map(scheduler: Scheduler, spacing: Spacing, data: GaussianData) -> Affine:
    """The exact affine map of a scheduler on Gaussian data, in float64; nothing is drawn.

    Probes travel together as a batch: one from 0 and one from 1 without noise give shift and gain, and one for each step
    that sees unit noise in that step only gives the noise's gain from there on.
    """
    times = spacing(data.schedule, scheduler.steps).tolist()
    probes = 2 + scheduler.steps
    x = torch.zeros(probes, 1, 1, 1, dtype=torch.float64)
    x[1] = 1.0
    state = scheduler.init()
    for index, (t, s) in enumerate(zip(times, times[1:])):  # noqa: B905  pairs of neighbours
        pulse = torch.zeros_like(x)
        pulse[2 + index] = 1.0
        x, state = scheduler.step(data, data.schedule, x, t, s, state, lambda draw=0, pulse=pulse: pulse)
    shift = float(x[0])
    noise_gains = x[2:].flatten() - shift
    return Affine(gain=float(x[1]) - shift, shift=shift, noise_variance=float((noise_gains**2).sum()))
