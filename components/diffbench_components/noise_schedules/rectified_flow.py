"""The straight line from data to noise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffbench import NoiseSchedule


@dataclass(frozen=True, kw_only=True)
class RectifiedFlow(NoiseSchedule):
    """Straight paths from data to noise, as in flow matching; continuous.

    alpha = 1 - t, sigma = t, with zero terminal SNR: use `velocity`, `v` or `x0`.
    t = 0 is data, as everywhere here and in diffusers; the code of SiT, torchcfm and flow_matching runs the other way.
    Source: Liu et al. 2023, arXiv:2209.03003, eq. 1; Lipman et al. 2023, arXiv:2210.02747, eq. 22 with sigma_min = 0.
    """

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t.double()

    def sigma(self, t: Tensor) -> Tensor:
        return t.double()

    def d_alpha(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t, dtype=torch.float64)

    def d_sigma(self, t: Tensor) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64)

    def t_of_nsr(self, nsr: Tensor) -> Tensor:
        nsr = nsr.double()
        return torch.where(nsr.isinf(), 1.0, nsr / (1 + nsr))
