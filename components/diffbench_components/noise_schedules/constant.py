"""The same beta in every step."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from diffbench import DiscreteNoiseSchedule


@dataclass(frozen=True, kw_only=True)
class Constant(DiscreteNoiseSchedule):
    """Variance-preserving schedule whose steps all add the same share of noise.

    alpha_bar_i = (1 - beta)^i, i = 1..T, beta multiplied by 1000/T.
    The default ends at alpha_bar_T = 4.3e-5, like `linear`; the "const" of DDPM's code is beta = 0.02, which ends at
    1.7e-9.
    Source: Ho et al. 2020, arXiv:2006.11239, released code.
    """

    beta: Annotated[float, Interval(gt=0, lt=1)] = 0.01           # of every step at T = 1000

    def alpha_bar(self) -> Tensor:
        # [T]
        return (1 - torch.full((self.timesteps,), min(self.per_length(self.beta), 0.999), dtype=torch.float64)).cumprod(
            0)
