"""Noise schedules that are published as a table, put on continuous time."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from diffbench.contracts.noise_schedule import NoiseSchedule
from diffbench.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class DiscreteNoiseSchedule(NoiseSchedule):
    """A schedule given by a published table alpha_bar_1..T, put at t = i/T; alpha² = alpha_bar exactly at grid points.

    Between grid points log(sigma/alpha) is interpolated linearly in t; below t = 1/T sigma/alpha falls with sqrt(t) to
    the clean level at t = 0, as it does for any schedule whose beta is constant there. Where the table ends at
    alpha_bar = 0, alpha/sigma falls linearly to 0 over the last interval, as on a straight flow.

    Zero terminal SNR: sqrt(alpha_bar) is shifted to 0 at i = T and scaled to keep its first value.
    Source of that: Lin et al. 2024, arXiv:2305.08891, algorithm 1.
    """

    timesteps: Annotated[int, Interval(ge=2, le=1_000_000)] = 1000  # T, grid points of the table
    zero_terminal_snr: bool = False                                 # rescale the table so that alpha_bar_T = 0: then v
                                                                    # or x0, not epsilon

    examples = ({}, {"zero_terminal_snr": True})

    def __post_init__(self) -> None:
        super().__post_init__()
        _log_nsr_table(self)                          # options that make no table are refused at birth

    @abstractmethod
    def alpha_bar(self) -> Tensor:
        """The published table, float64 [T], decreasing; entry i - 1 belongs to t = i/T. DDPM's alpha_bar is alpha²."""

    def per_length(self, rate: float) -> float:
        """A beta of the published table of 1000 entries, for T entries: 1000/T times it, so that alpha(1) stays near 0.

        The sum of the betas is kept, not alpha(1): with few entries they are large and 1 - beta falls faster than
        exp(-beta). alpha_bar_T of `linear` is 4.0e-5 for T = 1000, 5.6e-11 for T = 20 and 1.4e-17 for T = 10, where
        half of the betas are capped.
        """
        return rate * 1000 / self.timesteps

    @property
    def grid(self) -> int:
        return self.timesteps

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sigmoid(-2 * self._log_nsr(t)).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sigmoid(2 * self._log_nsr(t)).sqrt()

    def d_alpha(self, t: Tensor) -> Tensor:
        # alpha² = 1/(1 + nsr_1² t T) below 1/T
        at_zero = -0.5 * self.timesteps * (2 * _log_nsr_table(self)[0]).exp()
        return torch.where(t == 0, at_zero, -self.sigma(t) * self._angle_rate(t))

    def d_sigma(self, t: Tensor) -> Tensor:
        return self.alpha(t) * self._angle_rate(t)

    def t_of_nsr(self, nsr: Tensor) -> Tensor:
        table = _log_nsr_table(self)
        count = len(table)
        wanted = nsr.double().log()
        above = torch.searchsorted(table, wanted.contiguous()).clamp(1, count - 1)
        low, high = table[above - 1], table[above]
        share = torch.where(high.isinf(), 1 - (low - wanted).exp(), (wanted - low) / (high - low))
        first = (2 * (wanted - table[0])).exp()                        # nsr = nsr_1 sqrt(t T)
        return torch.where(wanted <= table[0], first, above + share) / count

    def _log_nsr(self, t: Tensor) -> Tensor:
        index, low, high, share = self._interval(t)
        inside = torch.where(high.isinf(), low - (1 - share).log(), low + share * (high - low))
        # At the end of an interval that is infinite `share * (high - low)` of the other branch is inf or nan, and is
        # not taken.
        return torch.where(index <= 1, _log_nsr_table(self)[0] + 0.5 * index.log(), inside)

    def _angle_rate(self, t: Tensor) -> Tensor:
        """d atan(nsr) / dt = alpha sigma d log(nsr)/dt, finite at zero SNR too."""
        index, low, high, share = self._interval(t)
        log_rate = torch.where(index <= 1, 0.5 / index, high - low)    # per grid interval
        inside = self.alpha(t) * self.sigma(t) * log_rate
        to_zero = low.exp() / ((1 - share) ** 2 + (2 * low).exp())     # nsr = nsr_low/(1 - share)
        inside = torch.where(index == 0, math.inf, inside)             # sigma rises from 0 like sqrt(t)
        return torch.where(high.isinf() & (index > 1), to_zero, inside) * self.timesteps

    def _interval(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(t T, log nsr at the grid points around it, place between them); for t <= 1/T the second interval's."""
        table = _log_nsr_table(self)
        count = len(table)
        index = t.double() * count                                     # 1..T at grid points
        # Rounding must not carry a grid point past its neighbour: i/T times T may miss i by one unit in the last place.
        index = torch.where((index - index.round()).abs() < 1e-9 * count, index.round(), index)
        above = index.ceil().clamp(2, count).long()
        return index, table[above - 2], table[above - 1], index - (above - 1)


@functools.lru_cache(maxsize=64)
def _log_nsr_table(schedule: DiscreteNoiseSchedule) -> Tensor:
    alpha_bar = schedule.alpha_bar()
    if schedule.zero_terminal_snr:
        root = alpha_bar.sqrt()
        alpha_bar = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
    log_nsr = 0.5 * ((-alpha_bar).log1p() - alpha_bar.log())           # log(sigma/alpha), float64 [T]
    if not bool((log_nsr.diff() > 0).all()) or bool(log_nsr[:-1].isinf().any()):
        raise OptionError(f"{schedule} makes no schedule: its alpha_bar must fall from entry to entry and reach 0 at "
                          "the last one at most")
    return log_nsr
