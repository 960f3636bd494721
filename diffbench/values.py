"""The values that components exchange with each other and with the harness.

One equation fixes every convention: x_t = alpha(t) x_0 + sigma(t) eps, t in [0, 1], t = 0 is data, t = 1 is noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from diffbench.errors import DataError

if TYPE_CHECKING:
    from diffbench.contracts import NoiseSchedule
    from diffbench.frechet import Moments


def form(x: object) -> str:
    """What a value is, in a few words, such as 'float32 [250, 3, 32, 32]' or 'tuple'."""
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__


class Level(NamedTuple):
    """One noise level of a schedule: x_t = alpha x_0 + sigma eps, and how fast both scales change with t.

    In sampling all are floats (float64 on the host); in training they are tensors that broadcast with images.
    """

    t: float | Tensor
    alpha: float | Tensor
    sigma: float | Tensor
    d_alpha: float | Tensor
    d_sigma: float | Tensor


class Prediction(NamedTuple):
    """A denoiser's answer at one level, each [B, C, H, W]; x0 is defined where eps is not (sigma = 0) and the other way round (alpha = 0)."""

    x0: Tensor
    eps: Tensor
    variance: Tensor | None = None    # learned variance: its place between the logs of the small (0) and the large one (1)


class Noised(NamedTuple):
    """One training batch: clean images, noise, what the network sees of them, and the level of each."""

    x_0: Tensor                       # [B, C, H, W]
    eps: Tensor                       # [B, C, H, W]
    x_t: Tensor                       # [B, C, H, W]
    level: Level                      # tensors [B, 1, 1, 1]
    previous: Level | None = None     # the next cleaner grid point, tensors [B, 1, 1, 1]; given where the objective learns the variance


class Progress(Protocol):
    """Is told how far a piece of work is."""

    def __call__(self, done: int, of: int, **figures: float) -> None:
        """Units done, of how many, and figures such as loss or images_per_second."""


def silent(done: int, of: int, **figures: float) -> None:
    """The progress of work that nobody watches."""


Denoise = Callable[[Tensor, float], Prediction]               # denoise(x_t, t); the condition is already bound
NoisyClassifier = Callable[[Tensor, float], Tensor]           # classifier(x_t, t) -> logits [B, K]; differentiable in x_t


class DenoiseCondition(Protocol):
    """The network under a condition, before guidance."""

    def __call__(self, x_t: Tensor, t: float, cond: Tensor | None, drop: Tensor) -> Prediction:
        """x_t: [B, C, H, W]; cond: [B, ...] or None; drop: bool [B], True where the condition is withheld."""


class Noise(Protocol):
    """Standard normal noise of one step, a function of (seed, sample, step, draw) alone."""

    def __call__(self, draw: int = 0) -> Tensor:
        """[B, C, H, W]; a step that needs several independent draws numbers them 0, 1, ..."""


@dataclass(frozen=True, kw_only=True)
class Helpers:
    """What a guidance may use besides the network."""

    schedule: NoiseSchedule
    classifier: NoisyClassifier | None = None                 # trained on the same data and schedule, where the conditioning asks for it


@dataclass(frozen=True, kw_only=True)
class Signals:
    """The sockets between a conditioning and a backbone; a conditioning fills those it names in `ports`."""

    maps: Tensor | None = None        # [B, C', H, W], stacked onto the image
    tokens: Tensor | None = None      # [B, L, D], for attention
    vector: Tensor | None = None      # [B, D], for the modulation of blocks


@dataclass(frozen=True, kw_only=True)
class Io:
    """What stands around a network in one cell: the image, the condition, and the sockets that will be filled."""

    channels: int                     # C of the images
    height: int
    width: int
    signal_width: int                 # D of Signals.vector and Signals.tokens
    classes: int | None = None        # number of labels, or None where the data set has none
    condition_shape: tuple[int, int, int] | None = None       # (C, h, w) of the condition where it is an image, else None
    ports: frozenset[str] = frozenset()                       # sockets the conditioning fills: a network builds no others
    map_channels: int = 0             # C' of Signals.maps
    tokens_enter: Literal["cross_attention", "in_context"] = "cross_attention"    # how Signals.tokens are attended to
    learned_variance: bool = False    # whether the objective trains C further outputs

    @property
    def out_channels(self) -> int:
        """Channels of the network's output: C, or 2 C with a learned variance, which comes last."""
        return self.channels * (2 if self.learned_variance else 1)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images of one split: uint8 [N, C, H, W]; their labels, int64 [N], and the images that are their condition, uint8 [N, C, h, w].

    Raises DataError for anything else: floats in [0, 1] taken for grey levels would be images that are nearly black.
    """

    images: Tensor
    labels: Tensor | None = None
    conditions: Tensor | None = None

    def __post_init__(self) -> None:
        for name, dtype, dims in (("images", torch.uint8, 4), ("labels", torch.int64, 1), ("conditions", torch.uint8, 4)):
            given = getattr(self, name)
            if given is None and name != "images":
                continue
            if not isinstance(given, Tensor) or given.dtype != dtype or given.ndim != dims or len(given) != len(self.images):
                wanted = {"images": "uint8 [N, C, H, W]", "labels": f"int64 [{len(self.images)}]", "conditions": f"uint8 [{len(self.images)}, C, h, w]"}
                raise DataError(f"{name} of a split must be {wanted[name]}, got {form(given)}")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All a metric may see of a set of images."""

    images: Tensor                    # uint8 [N, C, H, W]
    labels: Tensor | None             # int64 [N]: the condition asked for, or the true label
    features: Tensor                  # float64 [N, d]
    predicted: Tensor | None          # int64 [N]: what the judge (a classifier used for nothing else) sees
    logits: Tensor | None = None      # float64 [N, K]: of the extractor, where its network classifies
    moments: Moments | None = None    # of the features, where many sets are compared with this one


@dataclass(frozen=True, kw_only=True)
class Real:
    """What is known of the real images that generated ones are measured against."""

    reference: Evidence               # distances are measured to it
    held_out: Evidence                # seen by nobody: the value that good samples would have
    train: Evidence | None = None     # what the denoiser learnt from, where a metric asks for it


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """All a metric may see of a trained denoiser; nothing here belongs to sampling, so that cells with one training share the numbers."""

    denoise: Callable[[Tensor], Denoise]      # of rows of held_out, int64 [B]: the network under their own conditions, without guidance
    schedule: NoiseSchedule
    held_out: Split                   # images the network has not seen, on the host
    device: torch.device              # where images are to be denoised, in any floating dtype
    seed: int                         # of the cell: cells of one seed are to draw the same random numbers
