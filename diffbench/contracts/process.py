"""The contract of forward processes: how data become noise. Used by whatever noises, trains or samples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from diffbench.contracts.component import Component
from diffbench.contracts.values import Io, Level, Noised, Prediction

if TYPE_CHECKING:
    from diffbench.contracts.model import Parameterization


class Process(Component):
    """How data become noise along a schedule, and what sampling starts from. Levels are those of the noise schedule."""

    kind = "process"
    # Claims x_t = alpha x_0 + sigma eps, from N(0, alpha² + sigma²) on: likelihoods and the classifier that guides need
    # it.
    is_gaussian: ClassVar[bool] = False

    @abstractmethod
    def noised(self, x_0: Tensor, level: Level, noise: Callable[[], Tensor]) -> Noised:
        """Clean samples, [B, C, *space], at their levels, tensors [B, 1, ..., 1].

        noise(): standard normal numbers in the shape of x_0, new ones at each call.
        """

    @abstractmethod
    def prior(self, noise: Tensor, level: Level) -> Tensor:
        """x_T, what sampling starts from at its first level, made of standard normal numbers [B, C, *space]."""

    @abstractmethod
    def step_noise(self, noise: Tensor) -> Tensor:
        """The noise that a step of a scheduler is given, made of standard normal numbers in the shape of x_t."""

    @abstractmethod
    def network_io(self, io: Io) -> Io:
        """Shapes and sockets around the network, where io is that of the data or their latents: x_t has its shape."""

    @abstractmethod
    def decode(self, out: Tensor, x_t: Tensor, level: Level, parameterization: Parameterization) -> Prediction:
        """The network's output as a prediction; x_t: [B, C, *space] of `network_io`."""

    @abstractmethod
    def with_x0(self, prediction: Prediction, x0: Tensor, x_t: Tensor, level: Level) -> Prediction:
        """A prediction whose x0 is another, such as a clamped one, the rest made to agree with it."""
