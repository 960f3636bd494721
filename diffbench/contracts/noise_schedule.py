"""The contract of noise schedules: alpha(t) and sigma(t) of x_t = alpha x_0 + sigma eps,
and the levels that were worked out.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from diffbench.contracts.component import Component
from diffbench.contracts.values import Level


class NoiseSchedule(Component):
    """alpha(t) and sigma(t); float64 tensors of any shape, t in [0, 1], alpha(0) = 1, sigma(0) = 0.

    nsr = sigma/alpha rises strictly with t. `at` gives one level as floats and remembers it.
    """

    kind = "noise_schedule"

    @property
    def grid(self) -> int | None:
        """Number T of grid points of a discrete schedule; None where it is continuous."""
        return None

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale, in [0, 1]."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale, >= 0."""

    @abstractmethod
    def t_of_nsr(self, nsr: Tensor) -> Tensor:
        """The time at which sigma/alpha has this value; inverse of nsr(t). nsr in [0, inf]."""

    def snapped(self, t: Tensor) -> Tensor:
        """The time a network is trained at for t in (0, 1]: t itself, or on a grid of T points the next i/T above.
        float64, same shape.
        """
        return t if self.grid is None else (t * self.grid).ceil().clamp(1, self.grid) / self.grid

    def d_alpha(self, t: Tensor) -> Tensor:
        """d alpha / dt."""
        return _rate(self.alpha, t)

    def d_sigma(self, t: Tensor) -> Tensor:
        """d sigma / dt."""
        return _rate(self.sigma, t)

    def f(self, t: Tensor) -> Tensor:
        """Drift rate of dx = f x dt + g dw: f = d log alpha / dt (Song et al. 2021, arXiv:2011.13456, eq. 5)."""
        return self.d_alpha(t) / self.alpha(t)

    def g2(self, t: Tensor) -> Tensor:
        """Squared diffusion rate: g² = d sigma²/dt - 2 f sigma² = 2 sigma (alpha sigma' - sigma alpha')/alpha."""
        level = self.level(t)
        return torch.as_tensor(2 * level.sigma * (level.alpha * level.d_sigma - level.sigma * level.d_alpha)
                               / level.alpha)

    def level(self, t: Tensor) -> Level:
        """The levels at times of any shape, float64."""
        return Level(t, self.alpha(t), self.sigma(t), self.d_alpha(t), self.d_sigma(t))

    def at(self, t: float) -> Level:
        """The level at one time, as floats."""
        t = float(t)
        return _LEVELS.get((self, t)) or _remember(self, t, _level(self, t))

    def prepare(self, times: Tensor) -> None:
        """Works out the levels at these times together, so that a loop over them finds each remembered."""
        for level in _levels(self, times.double()):
            _remember(self, float(level.t), level)

    def scales(self, t: float) -> tuple[float, float]:
        """(alpha, sigma) at one time, as floats."""
        _, alpha, sigma, *_ = self.at(t)
        return float(alpha), float(sigma)

    def rates(self, t: float) -> tuple[float, float]:
        """(f, g²) at one time, as floats."""
        _, alpha, sigma, d_alpha, d_sigma = map(float, self.at(t))
        return d_alpha / alpha, 2 * sigma * (alpha * d_sigma - sigma * d_alpha) / alpha

    def nsr(self, t: float) -> float:
        """sigma/alpha at one time; infinite at zero SNR."""
        alpha, sigma = self.scales(t)
        return sigma / alpha if alpha > 0 else math.inf

    def time_of(self, nsr: float) -> float:
        """The time at which sigma/alpha has this value, as a float."""
        return _time(self, float(nsr))


def _rate(of: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """d of(t) / dt by automatic differentiation, in float64."""
    with torch.inference_mode(False), torch.enable_grad():
        t = t.detach().double().clone().requires_grad_(True)
        (rate,) = torch.autograd.grad(of(t).sum(), t)
    return rate


_LEVELS: dict[tuple[NoiseSchedule, float], Level] = {}
_MOST_LEVELS = 65536                  # remembered at once
_LANES = 16                           # numbers of 64 bits that a processor works on at once, and more


def _remember(schedule: NoiseSchedule, t: float, level: Level) -> Level:
    if len(_LEVELS) >= _MOST_LEVELS:
        _LEVELS.clear()
    return _LEVELS.setdefault((schedule, t), level)


def _level(schedule: NoiseSchedule, t: float) -> Level:
    if not 0.0 <= t <= 1.0 or math.isnan(t):
        raise ValueError(f"t must be in [0, 1], got {t!r}")
    return _levels(schedule, torch.tensor([t], dtype=torch.float64))[0]


def _levels(schedule: NoiseSchedule, times: Tensor) -> list[Level]:
    """The levels at times [n], float64. The bits of each do not depend on the others: rows that do not fill the vector
    unit would be worked out by other code, whose last bits differ, and a run would depend on what was remembered before
    it."""
    filled = torch.cat([times, times[-1:].expand(-len(times) % _LANES)])
    parts = (torch.as_tensor(part, dtype=torch.float64).expand(filled.shape)[: len(times)].tolist()
             for part in schedule.level(filled))
    return [Level(*values) for values in zip(*parts, strict=True)]


@functools.lru_cache(maxsize=65536)
def _time(schedule: NoiseSchedule, nsr: float) -> float:
    # rounding may carry the last level past 1
    return min(1.0, float(schedule.t_of_nsr(torch.tensor(nsr, dtype=torch.float64))))
