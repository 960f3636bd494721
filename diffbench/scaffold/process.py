"""Noise that is lighter or darker as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from diffbench import Io, Level, Noised, Parameterization, Prediction, Process, weighted_sum


@dataclass(frozen=True, kw_only=True)
class Newcomer(Process):
    """x_t = alpha x_0 + sigma (n + offset sqrt(P) m), n standard normal, m its mean over the P pixels of a channel.

    With an offset of 0 it is `gaussian`.
    """

    offset: Annotated[float, Ge(0)] = 0.1   # standard deviation of what is added to a channel as a whole

    def noised(self, x_0: Tensor, level: Level, noise: Callable[[], Tensor]) -> Noised:
        eps = self.step_noise(noise())                                         # [B, C, *space]
        return Noised(x_0, eps, level.alpha * x_0 + level.sigma * eps, level)

    def prior(self, noise: Tensor, level: Level) -> Tensor:
        return (level.alpha**2 + level.sigma**2) ** 0.5 * self.step_noise(noise)

    def step_noise(self, noise: Tensor) -> Tensor:
        space = tuple(range(2, noise.ndim))
        return noise + self.offset * math.sqrt(math.prod(noise.shape[2:])) * noise.mean(space, keepdim=True)

    def network_io(self, io: Io) -> Io:
        return io

    def decode(self, out: Tensor, x_t: Tensor, level: Level, parameterization: Parameterization) -> Prediction:
        return parameterization.decode(out, x_t, level)

    def with_x0(self, prediction: Prediction, x0: Tensor, x_t: Tensor, level: Level) -> Prediction:
        if level.sigma == 0:
            return prediction._replace(x0=x0)
        return prediction._replace(x0=x0, eps=weighted_sum((1 / level.sigma, x_t), (-level.alpha / level.sigma, x0)))
