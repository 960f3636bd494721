"""The contracts of a model's parts: what each kind promises to the harness, and what it may rely on. Data and metrics:
`evaluation`.

A component is a frozen, keyword-only dataclass that is its own configuration and holds no weights; `values` is what
they exchange.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from diffbench.contracts.component import Component
from diffbench.contracts.condition import Condition
from diffbench.contracts.needs import Need, guide_of
from diffbench.contracts.noise_schedule import NoiseSchedule
from diffbench.contracts.values import Denoise, DenoiseCondition, Io, Level, Noised, NoisyClassifier, Prediction

if TYPE_CHECKING:
    from pathlib import Path

    from diffbench.contracts.cell import Recipe
    from diffbench.contracts.dataset import Dataset
    from diffbench.contracts.noise_schedule import NoiseSchedule


class Parameterization(Component):
    """What the network predicts: x0_hat = c_skip x + c_out F(c_in x, c_noise),
    an affine map that never looks at the network.
    """

    kind = "parameterization"

    @abstractmethod
    def c_in(self, level: Level) -> float | Tensor:
        """Scale of the network's input."""

    def c_noise(self, level: Level) -> float | Tensor:
        """Input of the network for the level; 1000 t, DDPM's index on its grid of 1000."""
        return 1000.0 * level.t

    @abstractmethod
    def target(self, x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
        """Regression target of the network, [B, C, H, W]."""

    @abstractmethod
    def decode(self, out: Tensor, x_t: Tensor, level: Level) -> Prediction:
        """The network's output as a prediction of both x_0 and eps."""

    def c_out(self, level: Level) -> Tensor:
        """d x0_hat / d F, shaped like level.alpha: |x0_hat - x_0|² = c_out² |F - target|².
        Read off `decode`, which is affine.
        """
        one = torch.ones_like(torch.as_tensor(level.alpha))
        return self.decode(one, torch.zeros_like(one), level).x0


class Objective(Component):
    """The training loss of one batch."""

    kind = "objective"

    @property
    def learns_variance(self) -> bool:
        """Whether the network has C further outputs, the variance of a reverse step between its two bounds."""
        return False

    @abstractmethod
    def times(self, u: Tensor, schedule: NoiseSchedule) -> Tensor:
        """The law of t: maps u, float64 uniform in [0, 1) of shape [..., B], to training times of that shape, in (0,
        1].
        """

    @abstractmethod
    def loss(self, out: Tensor, noised: Noised, schedule: NoiseSchedule, parameterization: Parameterization) -> Tensor:
        """Loss per sample, [B]; out is the network's own output, [B, C, H, W], or [B, 2 C, H,
        W] with a learned variance.
        """


class Backbone(Component):
    """Hyper-parameters of a network; `build` makes it."""

    kind = "backbone"
    ports: ClassVar[frozenset[str]] = frozenset()     # the sockets it has: some of "maps", "tokens", "vector"
    starts_at_zero: ClassVar[bool] = False            # claims that an untrained network's output is 0

    @property
    @abstractmethod
    def signal_width(self) -> int:
        """Width D of the vectors and tokens it takes."""

    def weights_in(self, path: Path) -> dict[str, Tensor] | None:
        """Weights of its network by the names of its state dict, where a path holds them in a form that only this
        backbone reads; None where it does not. Used by the method `pretrained`.
        """
        return None

    def why_not_from(self, path: Path, recipe: Recipe) -> str | None:
        """Why those weights cannot work in a recipe, such as another noise schedule, in one sentence, or None."""
        return None

    @abstractmethod
    def build(self, io: Io) -> nn.Module:
        """A module: forward(x [B, C, H, W], c_noise [B], signals) -> [B, C_out, H, W], C_out = io.out_channels."""


class Conditioning(Component):
    """How a condition enters the network (`build`), and how sampling is steered by it (`guide`)."""

    kind = "conditioning"

    @property
    def ports(self) -> frozenset[str]:
        """The sockets it fills, a subset of "maps", "tokens", "vector"."""
        return frozenset()

    @property
    def tokens_enter(self) -> Literal["cross_attention", "in_context"]:
        """Way in which a backbone attends to the tokens: as keys and values of layers of their own,
        or within the sequence of the image.
        """
        return "cross_attention"

    def map_channels(self, dataset: Dataset) -> int:
        """Channels of the maps it fills."""
        return 0

    @property
    def is_conditional(self) -> bool:
        """Whether samples are drawn under a condition."""
        return bool(self.ports)

    @property
    def needs_classifier(self) -> bool:
        """Whether `guide` uses a classifier of noised images, which the harness trains once per data set
        and noise schedule.
        """
        return False

    def needs(self, stage: str, recipe: Recipe) -> tuple[Need, ...]:
        """The classifier that guides, where it asks for one and samples are drawn."""
        return (guide_of(recipe.dataset, recipe.noise_schedule),) if stage == "sample" and self.needs_classifier else ()

    @property
    def drop_rate(self) -> float:
        """Share of training samples whose condition is withheld."""
        return 0.0

    @property
    def guidance_scale(self) -> float | None:
        """w of eps_null + w (eps_cond - eps_null), or None where nothing is guided."""
        return None

    @property
    def evaluations(self) -> int:
        """Claimed network evaluations of one guided prediction, a doubled batch counting two;
        the harness counts the real ones.
        """
        return 1

    def costs_as(self) -> Conditioning:
        """A conditioning whose sampling takes the same time, where options only change numbers:
        throughput is measured once for both.
        """
        return self

    @abstractmethod
    def build(self, io: Io) -> nn.Module:
        """A module: forward(cond, drop) -> Signals;
        cond: a Condition of B samples, or None where nothing is told, drop: bool [B].
        """

    def guide(self, denoise: DenoiseCondition, cond: Condition | None, helpers: Helpers) -> Denoise:
        """Binds the condition; by default the plain conditional prediction.
        cond: of B samples, or None where nothing is told.
        """
        def conditional(x_t: Tensor, t: float) -> Prediction:
            return denoise(x_t, t, cond, torch.zeros(len(x_t), dtype=torch.bool, device=x_t.device))
        return conditional


@dataclass(frozen=True, kw_only=True)
class Helpers:
    """What a guidance may use besides the network."""

    schedule: NoiseSchedule
    classifier: NoisyClassifier | None = None  # trained on the same data and schedule, where the conditioning asks for
                                               # it
