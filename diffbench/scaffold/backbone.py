"""A small convolutional network."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from diffbench import Backbone, Io, Signals


@dataclass(frozen=True, kw_only=True)
class Newcomer(Backbone):
    """A stack of residual 3x3 convolutions at full resolution; each is steered by the noise level and by the vector of
    the condition.

    It has the socket `vector` (filled by the conditioning `film`). A pair with a conditioning that fills another one is
    a skipped row.
    """

    width: Annotated[int, Ge(4)] = 32                 # features per pixel
    depth: Annotated[int, Ge(1)] = 4                  # residual blocks; each sees two pixels further

    ports: ClassVar[frozenset[str]] = frozenset({"vector"})
    examples = ({"width": 8, "depth": 2},)            # what `diffbench check` makes it with: small is fast

    @property
    def signal_width(self) -> int:
        return self.width

    def build(self, io: Io) -> nn.Module:
        """The harness calls it once per training, with the seed set; io says what stands around the network."""
        return _Network(self, io)


class _Network(nn.Module):
    def __init__(self, options: Newcomer, io: Io):
        super().__init__()
        width = options.width
        self.register_buffer("frequencies", 10000 ** (-torch.arange(16) / 16), persistent=False)         # [16]
        self.level = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
        self.first = nn.Conv2d(io.channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(options.depth))
        self.last = nn.Conv2d(width, io.out_channels, 3, padding=1)

    def forward(self, x: Tensor, c_noise: Tensor, signals: Signals) -> Tensor:
        # float32 also under autocast: bfloat16 cannot tell level 999 from 1000.
        phase = c_noise.float()[:, None] * self.frequencies                     # [B, 16]
        c = self.level(torch.cat([phase.cos(), phase.sin()], dim=1))            # [B, D]
        if signals.vector is not None:
            c = c + signals.vector
        h = self.first(x)                                                       # [B, D, H, W]
        for block in self.blocks:
            h = block(h, c)
        return self.last(h)                                                     # [B, C_out, H, W]


class _Block(nn.Module):
    """h + f(h), where c scales and shifts the features: [B, D, H, W] -> [B, D, H, W]."""

    def __init__(self, width: int):
        super().__init__()
        self.convolve, self.steer = nn.Conv2d(width, width, 3, padding=1), nn.Linear(width, 2 * width)
        self.size = math.sqrt(2.0)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        scale, shift = self.steer(c)[:, :, None, None].chunk(2, dim=1)          # [B, D, 1, 1] each
        return (h + nn.functional.silu((1 + scale) * self.convolve(h) + shift)) / self.size
