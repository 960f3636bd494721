"""Noise schedules that are published as a table, put on continuous time."""

from __future__ import annotations

import functools
from abc import abstractmethod

import torch
from torch import Tensor

from diffbench.contracts import NoiseSchedule


class DiscreteNoiseSchedule(NoiseSchedule):
    """A schedule given by a published table alpha_bar_1..T, put at t = i/T; alpha² = alpha_bar exactly at grid points.

    Between grid points log(sigma/alpha) is interpolated linearly in t; below t = 1/T sigma/alpha falls with sqrt(t) to the
    clean level at t = 0, as it does for any schedule whose beta is constant there.
    """

    @abstractmethod
    def alpha_bar(self) -> Tensor:
        """The table, float64 [T], decreasing; entry i - 1 belongs to t = i/T. DDPM's alpha_bar is alpha²."""

    @property
    def grid(self) -> int:
        return len(_log_nsr_table(self))

    def training_times(self, u: Tensor) -> Tensor:
        """The grid points i/T, i = 1..T, each with probability 1/T."""
        return (torch.floor(u * self.grid) + 1) / self.grid

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sigmoid(-2 * self._log_nsr(t)).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sigmoid(2 * self._log_nsr(t)).sqrt()

    def t_of_nsr(self, nsr: Tensor) -> Tensor:
        table = _log_nsr_table(self)
        count = len(table)
        wanted = nsr.double().log()
        above = torch.searchsorted(table, wanted.contiguous()).clamp(1, count - 1)
        share = (wanted - table[above - 1]) / (table[above] - table[above - 1])
        first = (2 * (wanted - table[0])).exp()                        # nsr = nsr_1 sqrt(t T)
        return torch.where(wanted <= table[0], first, above + share) / count

    def _log_nsr(self, t: Tensor) -> Tensor:
        table = _log_nsr_table(self)
        count = len(table)
        index = t.double() * count                                     # 1..T at grid points
        # Rounding must not carry a grid point past its neighbour: i/T times T may miss i by one unit in the last place.
        index = torch.where((index - index.round()).abs() < 1e-9 * count, index.round() + (index - index.detach()), index)
        above = index.detach().ceil().clamp(2, count).long()
        low, high = table[above - 2], table[above - 1]
        inside = low + (index - (above - 1)) * (high - low)
        return torch.where(index <= 1, table[0] + 0.5 * index.clamp(min=0).log(), inside)


@functools.lru_cache(maxsize=64)
def _log_nsr_table(schedule: DiscreteNoiseSchedule) -> Tensor:
    alpha_bar = schedule.alpha_bar()
    return 0.5 * ((-alpha_bar).log1p() - alpha_bar.log())              # log(sigma/alpha), float64 [T]
