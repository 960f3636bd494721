"""The contracts of a sampler's parts: which times it visits, and one step between two of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from diffbench.contracts.component import Component
from diffbench.contracts.noise_schedule import NoiseSchedule
from diffbench.contracts.values import Denoise, Noise


class Spacing(Component):
    """Which times a sampler visits."""

    kind = "spacing"

    @abstractmethod
    def __call__(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """Strictly decreasing float64 times, [steps + 1]; the last is 0."""


class Scheduler(Component):
    """One reverse step from t to s < t. It owns no loop, no clock, no generator and no counter."""

    kind = "scheduler"
    # Claimed global order of convergence (weak where noise is added) on steps so graded that a multistep start-up does
    # not count; 0: more steps alone do not help. A property where it depends on options.
    order: ClassVar[int] = 1
    min_steps: ClassVar[int] = 1                      # fewest steps every configuration takes
    steps: int                                        # an option of every scheduler: steps from noise to images

    @property
    def is_stochastic(self) -> bool:
        """Whether steps ask for noise."""
        return False

    def nfe(self, steps: int) -> int:
        """Claimed network evaluations of an unguided run; the harness counts the real ones."""
        return steps

    def init(self) -> Any:
        """State before the first step."""
        return None

    @abstractmethod
    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float, state: Any,
             noise: Noise) -> tuple[Tensor, Any]:
        """(x_s, new state). No noise if and only if the target level is clean (s = 0)."""
