"""The contracts of a model's parts: what each kind promises to the harness, and what it may rely on. Data and metrics: `evaluation`.

A component is a frozen, keyword-only dataclass that is its own configuration and holds no weights; `values` is what they exchange.
"""

from __future__ import annotations

import functools
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from diffbench.options import Options
from diffbench.values import Denoise, DenoiseCondition, Helpers, Io, Level, Noise, Noised, Prediction

if TYPE_CHECKING:
    from diffbench.evaluation import Dataset
    from diffbench.matrix import Cell


class Component(Options, ABC):
    """Base of every kind: options are its fields, checked at birth; the registered name is the class name in snake case."""

    kind: ClassVar[str] = ""
    aliases: ClassVar[tuple[str, ...]] = ()           # other names under which a matrix may ask for it
    default_of_kind: ClassVar[bool] = False           # taken where a matrix is silent about this kind
    version: ClassVar[int | str] = 1                     # raise it when results change: released components are cached under it
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)         # options, as in a matrix, that the conformance suite makes it with
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}           # published sets of options: `unet: {preset: small}`

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
        """The time a network is trained at for t in (0, 1]: t itself, or on a grid of T points the next i/T above. float64, same shape."""
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
        return torch.as_tensor(2 * level.sigma * (level.alpha * level.d_sigma - level.sigma * level.d_alpha) / level.alpha)

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

    def c_out(self, level: Level) -> Tensor:
        """d x0_hat / d F, shaped like level.alpha: |x0_hat - x_0|² = c_out² |F - target|². Read off `decode`, which is affine."""
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
        """The law of t: maps u, float64 uniform in [0, 1) of shape [..., B], to training times of that shape, in (0, 1]."""

    @abstractmethod
    def loss(self, out: Tensor, noised: Noised, schedule: NoiseSchedule, parameterization: Parameterization) -> Tensor:
        """Loss per sample, [B]; out is the network's own output, [B, C, H, W], or [B, 2 C, H, W] with a learned variance."""


class Backbone(Component):
    """Hyper-parameters of a network; `build` makes it."""

    kind = "backbone"
    ports: ClassVar[frozenset[str]] = frozenset()     # the sockets it has: some of "maps", "tokens", "vector"
    starts_at_zero: ClassVar[bool] = False            # claims that an untrained network's output is 0

    @property
    @abstractmethod
    def signal_width(self) -> int:
        """Width D of the vectors and tokens it takes."""

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
        """How a backbone attends to the tokens: as keys and values of layers of their own, or within the sequence of the image."""
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
        """Whether `guide` uses a classifier of noised images, which the harness trains once per data set and noise schedule."""
        return False

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
        """Claimed network evaluations of one guided prediction, a doubled batch counting two; the harness counts the real ones."""
        return 1

    def costs_as(self) -> Conditioning:
        """A conditioning whose sampling takes the same time, where options only change numbers: throughput is measured once for both."""
        return self

    @abstractmethod
    def build(self, io: Io) -> nn.Module:
        """A module: forward(cond [B, ...] or None, drop bool [B]) -> Signals."""

    def guide(self, denoise: DenoiseCondition, cond: Tensor | None, helpers: Helpers) -> Denoise:
        """Binds the condition; by default the plain conditional prediction. cond: labels [B], or images in [-1, 1], [B, C, h, w]."""
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
    # Claimed global order of convergence (weak where noise is added) on steps so graded that a multistep start-up does not count;
    # 0: more steps alone do not help. A property where it depends on options.
    order: ClassVar[int] = 1
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
    """The levels at times [n], float64. The bits of each do not depend on the others: rows that do not fill the vector unit would be
    worked out by other code, whose last bits differ, and a run would depend on what was remembered before it."""
    filled = torch.cat([times, times[-1:].expand(-len(times) % _LANES)])
    parts = (torch.as_tensor(part, dtype=torch.float64).expand(filled.shape)[: len(times)].tolist() for part in schedule.level(filled))
    return [Level(*values) for values in zip(*parts, strict=True)]


@functools.lru_cache(maxsize=65536)
def _time(schedule: NoiseSchedule, nsr: float) -> float:
    return min(1.0, float(schedule.t_of_nsr(torch.tensor(nsr, dtype=torch.float64))))     # rounding may carry the last level past 1
