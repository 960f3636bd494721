"""The contracts: what each kind of component promises to the harness, and what it may rely on.

One equation fixes every convention: x_t = alpha(t) x_0 + sigma(t) eps, t in [0, 1], t = 0 is data, t = 1 is noise.
A component is a frozen, keyword-only dataclass that is its own configuration and holds no weights.
"""

from __future__ import annotations

import functools
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from diffbench.options import Options

if TYPE_CHECKING:
    from diffbench.matrix import Cell


class Level(NamedTuple):
    """One noise level of a schedule: x_t = alpha x_0 + sigma eps.

    In sampling t, alpha and sigma are floats (float64 on the host); in training they are tensors that broadcast with images.
    """

    t: float | Tensor
    alpha: float | Tensor
    sigma: float | Tensor


class Prediction(NamedTuple):
    """A denoiser's answer at one level, both [B, C, H, W]; each is defined where the other is not (alpha = 0, sigma = 0)."""

    x0: Tensor
    eps: Tensor


Denoise = Callable[[Tensor, float], Prediction]               # denoise(x_t, t); the condition is already bound


class DenoiseCondition(Protocol):
    """The network under a condition, before guidance."""

    def __call__(self, x_t: Tensor, t: float, cond: Tensor | None, drop: Tensor) -> Prediction:
        """x_t: [B, C, H, W]; cond: [B, ...] or None; drop: bool [B], True where the condition is withheld."""


class Noise(Protocol):
    """Standard normal noise of one step, a function of (seed, sample, step, draw) alone."""

    def __call__(self, draw: int = 0) -> Tensor:
        """[B, C, H, W]; a step that needs several independent draws numbers them 0, 1, ..."""


@dataclass(frozen=True, kw_only=True)
class Signals:
    """The sockets between a conditioning and a backbone; a conditioning fills those it names in `ports`."""

    maps: Tensor | None = None        # [B, C', H, W], stacked onto the image
    tokens: Tensor | None = None      # [B, L, D], for attention
    vector: Tensor | None = None      # [B, D], for the modulation of blocks


@dataclass(frozen=True, kw_only=True)
class Io:
    """What stands around a network in one cell: the image, the condition and the width of the signals."""

    channels: int                     # C of the images
    height: int
    width: int
    classes: int | None               # number of labels, or None where the data set has none
    signal_width: int                 # D of Signals.vector and Signals.tokens


class Component(Options, ABC):
    """Base of every kind: options are its fields, checked at birth; the registered name is the class name in snake case."""

    kind: ClassVar[str] = ""
    aliases: ClassVar[tuple[str, ...]] = ()           # other names under which a matrix may ask for it
    default_of_kind: ClassVar[bool] = False           # taken where a matrix is silent about this kind
    version: ClassVar[int] = 1                        # raise it when results change: released components are cached under it

    @classmethod
    def component_name(cls) -> str:
        """'DpmSolverPp' is registered as 'dpm_solver_pp'."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__.rstrip("_")).lower()

    def why_not(self, cell: Cell) -> str | None:
        """Why this component cannot work in this cell, in one sentence, or None; the cell becomes a skipped row."""
        return None

    def equal_to(self) -> Component:
        """The component of the same kind that computes exactly the same, where there is one: equal cells run once."""
        return self


class NoiseSchedule(Component):
    """alpha(t) and sigma(t); float64 tensors of any shape, t in [0, 1], alpha(0) = 1, sigma(0) = 0 or near it.

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
        """The time at which sigma/alpha has this value; inverse of nsr(t)."""

    def training_times(self, u: Tensor) -> Tensor:
        """Maps u, uniform in [0, 1), to the times a network is trained at, in (0, 1]. float64, same shape."""
        return 1.0 - u

    def f(self, t: Tensor) -> Tensor:
        """Drift rate of dx = f x dt + g dw: f = d log alpha / dt (Song et al. 2021, arXiv:2011.13456, eq. 5)."""
        return _rate(lambda t: self.alpha(t).log(), t)

    def g2(self, t: Tensor) -> Tensor:
        """Squared diffusion rate: g² = d sigma²/dt - 2 f sigma² = 2 sigma² d log(sigma/alpha)/dt."""
        return 2 * self.sigma(t) ** 2 * _rate(lambda t: (self.sigma(t) / self.alpha(t)).log(), t)

    def at(self, t: float) -> Level:
        """The level at one time, as floats."""
        return _level(self, float(t))

    def rates(self, t: float) -> tuple[float, float]:
        """(f, g²) at one time, as floats."""
        return _rates(self, float(t))


class Parameterization(Component):
    """What the network predicts: x0_hat = c_skip x + c_out F(c_in x, c_noise), an affine map that never looks at the network."""

    kind = "parameterization"

    @abstractmethod
    def c_in(self, level: Level) -> float | Tensor:
        """Scale of the network's input."""

    def c_noise(self, level: Level) -> float | Tensor:
        """What the network is told about the level; 1000 t, DDPM's index on its grid of 1000."""
        return 1000.0 * level.t

    @abstractmethod
    def target(self, x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
        """What the network is regressed on, [B, C, H, W]."""

    @abstractmethod
    def decode(self, out: Tensor, x_t: Tensor, level: Level) -> Prediction:
        """The network's output as a prediction of both x_0 and eps."""


class Objective(Component):
    """The training loss of one batch."""

    kind = "objective"

    @abstractmethod
    def times(self, u: Tensor, schedule: NoiseSchedule) -> Tensor:
        """The law of t: maps u, float64 uniform in [0, 1) of shape [B], to training times [B]."""

    @abstractmethod
    def loss(self, out: Tensor, target: Tensor, level: Level) -> Tensor:
        """Loss per sample, [B]; out and target [B, C, H, W]."""


class Backbone(Component):
    """Hyper-parameters of a network; `build` makes it."""

    kind = "backbone"
    ports: ClassVar[frozenset[str]] = frozenset()     # the sockets it has: some of "maps", "tokens", "vector"

    @property
    @abstractmethod
    def signal_width(self) -> int:
        """Width D of the vectors and tokens it takes."""

    @abstractmethod
    def build(self, io: Io) -> nn.Module:
        """A module: forward(x [B, C, H, W], c_noise [B], signals) -> [B, C, H, W]."""


class Conditioning(Component):
    """How a condition enters the network (`build`), and how sampling is steered by it (`guide`)."""

    kind = "conditioning"

    @property
    def ports(self) -> frozenset[str]:
        """The sockets it fills, a subset of "maps", "tokens", "vector"."""
        return frozenset()

    @property
    def drop_rate(self) -> float:
        """Share of training samples whose condition is withheld."""
        return 0.0

    @property
    def guidance_scale(self) -> float | None:
        """w of eps_null + w (eps_cond - eps_null), or None where nothing is guided."""
        return None

    def costs_as(self) -> Conditioning:
        """A conditioning whose sampling takes the same time, where options only change numbers: throughput is measured once for both."""
        return self

    @abstractmethod
    def build(self, io: Io) -> nn.Module:
        """A module: forward(cond [B, ...] or None, drop bool [B]) -> Signals."""

    def guide(self, denoise: DenoiseCondition, cond: Tensor | None) -> Denoise:
        """Binds the condition; by default the plain conditional prediction."""
        def conditional(x_t: Tensor, t: float) -> Prediction:
            return denoise(x_t, t, cond, torch.zeros(len(x_t), dtype=torch.bool, device=x_t.device))
        return conditional


class Spacing(Component):
    """Which times a sampler visits."""

    kind = "spacing"

    @abstractmethod
    def __call__(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        """Strictly decreasing float64 times, [steps + 1]; the last is 0."""


class Scheduler(Component):
    """One reverse step from t to s < t. It owns no loop, no clock, no generator and no counter."""

    kind = "scheduler"
    order: ClassVar[int] = 1                          # claimed global order of convergence (weak order where noise is added)
    min_steps: ClassVar[int] = 1                      # fewest steps every configuration takes
    steps: int

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
    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float, state: Any, noise: Noise) -> tuple[Tensor, Any]:
        """(x_s, new state). No noise if and only if the target level is clean (s = 0)."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images of one split: uint8 [N, C, H, W], and their labels int64 [N] or None."""

    images: Tensor
    labels: Tensor | None


class Dataset(Component):
    """Images and their condition, in three disjoint splits.

    `train` teaches the denoiser and the classifiers, `reference` is what distances are measured to, `held_out` gives the
    floor: what the same metrics say of real images nobody has seen.
    """

    kind = "dataset"

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""

    @property
    def classes(self) -> int | None:
        """Number of labels, or None where there are none."""
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the content; raises DataError, with what to do, where the data are missing or damaged."""

    @abstractmethod
    def load(self) -> dict[str, Split]:
        """The splits "train", "reference" and "held_out"."""


class Extractor(Component):
    """Images to feature vectors, for distribution metrics."""

    kind = "extractor"

    @property
    def distance_column(self) -> str:
        """Name of the Fréchet distance on these features; only Inception-v3 in its published weights may call it `fid`."""
        return f"fd_{self.component_name()}"

    @abstractmethod
    def fit(self, train: Split, seed: int, device: torch.device) -> tuple[dict[str, Tensor], dict[str, float]]:
        """(weights by name, facts about the fit such as accuracy); weights are stored and shared by all cells."""

    @abstractmethod
    def features(self, weights: Mapping[str, Tensor], images: Tensor, device: torch.device) -> Tensor:
        """uint8 [N, C, H, W] to float64 [N, d] on the host, in evaluation mode."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All a metric may see of a set of images."""

    images: Tensor                    # uint8 [N, C, H, W]
    labels: Tensor | None             # int64 [N]: the condition asked for, or the true label
    features: Tensor                  # float64 [N, d]
    predicted: Tensor | None          # int64 [N]: what the judge (a classifier used for nothing else) sees


class Metric(Component):
    """Generated and reference images to named numbers, units in the names."""

    kind = "metric"
    needs_judge: ClassVar[bool] = False               # reads Evidence.predicted
    higher_is_better: ClassVar[bool] = False

    def column(self, extractor: Extractor) -> str:
        """Name of the main column; the others start with it."""
        return self.component_name()

    @abstractmethod
    def measure(self, generated: Evidence, reference: Evidence) -> dict[str, float]:
        """Numbers by suffix: "" is the main value, "_low" and "_high" its 95 % interval, others as documented."""


def _rate(of: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """d of(t) / dt by automatic differentiation, in float64."""
    with torch.inference_mode(False), torch.enable_grad():
        t = t.detach().double().clone().requires_grad_(True)
        (rate,) = torch.autograd.grad(of(t).sum(), t)
    return rate


@functools.lru_cache(maxsize=65536)
def _level(schedule: NoiseSchedule, t: float) -> Level:
    if not 0.0 <= t <= 1.0 or math.isnan(t):
        raise ValueError(f"t must be in [0, 1], got {t!r}")
    time = torch.tensor(t, dtype=torch.float64)
    return Level(t, float(schedule.alpha(time)), float(schedule.sigma(time)))


@functools.lru_cache(maxsize=65536)
def _rates(schedule: NoiseSchedule, t: float) -> tuple[float, float]:
    time = torch.tensor(t, dtype=torch.float64)
    return float(schedule.f(time)), float(schedule.g2(time))
