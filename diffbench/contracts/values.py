"""The values that components exchange with each other and with the harness.

One equation fixes every convention: x_t = alpha(t) x_0 + sigma(t) eps, t in [0, 1], t = 0 is data, t = 1 is noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from diffbench.errors import DataError

if TYPE_CHECKING:
    from diffbench.contracts.condition import Condition


def form(x: object) -> str:
    """Short description of a value, such as 'float32 [250, 3, 32, 32]' or 'tuple'."""
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """Numbers of the samples of a batch, [B], in the shape that broadcasts with x, [B, C, *space]: [B, 1, ..., 1]."""
    return values.view(-1, *(1,) * (x.ndim - 1))


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
    """A denoiser's answer at one level, each [B, C, H, W];
    x0 is defined where eps is not (sigma = 0) and the other way round (alpha = 0).
    """

    x0: Tensor
    eps: Tensor
    variance: Tensor | None = None  # learned variance: its place between the logs of the small (0) and the large one
                                    # (1)


class Noised(NamedTuple):
    """One training batch: clean images, noise, what the network sees of them, and the level of each."""

    x_0: Tensor                    # [B, C, H, W]
    eps: Tensor                    # [B, C, H, W]
    x_t: Tensor                    # [B, C, H, W]
    level: Level                   # tensors [B, 1, 1, 1]
    previous: Level | None = None  # the next cleaner grid point, tensors [B, 1, 1, 1]; given where the objective
                                   # learns the variance


class Progress(Protocol):
    """Is told how far a piece of work is."""

    def __call__(self, done: int, of: int, **figures: float) -> None:
        """Units done, of how many, and figures such as loss or images_per_second."""


def silent(done: int, of: int, **figures: float) -> None:
    """The progress of work that nobody watches."""


Denoise = Callable[[Tensor, float], Prediction]               # denoise(x_t, t); the condition is already bound
# classifier(x_t, t) -> logits [B, K]; differentiable in x_t
NoisyClassifier = Callable[[Tensor, float], Tensor]


class DenoiseCondition(Protocol):
    """The network under a condition, before guidance."""

    def __call__(self, x_t: Tensor, t: float, cond: Condition | None, drop: Tensor) -> Prediction:
        """x_t: [B, C, H, W]; cond: of B samples, or None; drop: bool [B], True where the condition is withheld."""


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
    """What stands around a network in one cell: the image, the condition, and the sockets that will be filled."""

    shape: tuple[int, ...]            # (C, *space) of what the network sees, such as (C, H, W)
    signal_width: int                 # D of Signals.vector and Signals.tokens
    classes: int | None = None        # number of labels, or None where the data set has none
    condition_shape: tuple[int, int, int] | None = None       # (C, h, w) of the condition where it is an image, else
                                                              # None
    ports: frozenset[str] = frozenset()                       # sockets the conditioning fills: a network builds no
                                                              # others
    map_channels: int = 0             # C' of Signals.maps
    tokens_enter: Literal["cross_attention", "in_context"] = "cross_attention"    # how Signals.tokens are attended to
    learned_variance: bool = False    # whether the objective trains C further outputs

    @property
    def channels(self) -> int:
        """C of what the network sees."""
        return self.shape[0]

    @property
    def height(self) -> int:
        """H, the last axis but one."""
        return self.shape[-2]

    @property
    def width(self) -> int:
        """W, the last axis."""
        return self.shape[-1]

    @property
    def out_channels(self) -> int:
        """Channels of the network's output: C, or 2 C with a learned variance, which comes last."""
        return self.channels * (2 if self.learned_variance else 1)


class Images(Protocol):
    """Images that are read when they are asked for, such as those of a data set that no memory holds;
    a tensor is one too.
    """

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, rows: Tensor) -> Tensor:
        """The images with these numbers, int64 [n]: uint8 [n, C, H, W]."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images of one split: uint8 [N, C, H, W]; their labels, int64 [N], and the images that are their condition, uint8
    [N, C, h, w].

    Images may be anything that is read by their numbers, see `Images`. Raises DataError for anything else: floats in
    [0, 1] taken for grey levels would be images that are nearly black.
    """

    images: Tensor | Images
    labels: Tensor | None = None
    conditions: Tensor | Images | None = None

    def __post_init__(self) -> None:
        for name, dtype, dims in (("images", torch.uint8, 4), ("labels", torch.int64, 1),
                                  ("conditions", torch.uint8, 4)):
            given = getattr(self, name)
            if given is None and name != "images":
                continue
            first = given if isinstance(given, Tensor) or name == "labels" else _first(given)
            if (not isinstance(first, Tensor) or first.dtype != dtype or first.ndim != dims
                or len(given) != len(self.images)):
                wanted = "uint8 [N, C, H, W]" if name == "images" else (
                    f"int64 [{len(self.images)}]" if name == "labels" else f"uint8 [{len(self.images)}, C, h, w]")
                raise DataError(f"{name} of a split must be {wanted}, got {form(first)}")

    def in_memory(self) -> Split:
        """The same with all images read: for whoever needs them at once."""
        return Split(images=_read(self.images), labels=self.labels,
                     conditions=None if self.conditions is None else _read(self.conditions))


def _first(given: Any) -> Any:
    """The first of images that are read by their numbers, or what stands in their place where they cannot be."""
    return (given[torch.arange(min(1, len(given)))] if hasattr(given, "__len__") and hasattr(given, "__getitem__")
            else given)


def _read(images: Tensor | Images) -> Tensor:
    return images if isinstance(images, Tensor) else images[torch.arange(len(images))]
