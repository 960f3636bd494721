"""U-Net of residual blocks."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Interval, MinLen
from torch import Tensor, nn

from diffbench import Backbone, Io, OptionError, Signals
from diffbench_components.backbones.embeddings import TimeEmbedding


@dataclass(frozen=True, kw_only=True)
class Unet(Backbone):
    """Residual blocks on a pyramid of resolutions with skip connections; every block is modulated by AdaGN.

    AdaGN(h) = (1 + scale) * GroupNorm(h) + shift, with scale and shift from one vector per sample: the embedding of c_noise plus
    `Signals.vector`, both 4 channels wide. The last convolution of each block and of the network start at zero. Each level halves
    the image; blocks attend at the heights named in `attention`, and where any are named the middle attends too.
    DDPM on CIFAR-10 is channels 128, multipliers 1, 2, 2, 2, blocks 2, attention 16, heads 1, dropout 0.1. Departures from it:
    time scales and shifts (DDPM only adds it), cosines come before sines, convolutions start as PyTorch's, and a group of
    channels is never below 4, as in EDM: GroupNorm over single channels would hide the brightness of an image.
    Source: Ho et al. 2020, arXiv:2006.11239, appendix B; AdaGN: Dhariwal & Nichol 2021, arXiv:2105.05233, section 3.
    """

    channels: Annotated[int, Ge(4)] = 64                                               # features at full resolution; even
    multipliers: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (1, 2, 2)   # features of each level, in channels
    blocks: Annotated[int, Ge(1)] = 2                                                  # residual blocks per level; going up one more
    attention: tuple[Annotated[int, Ge(1)], ...] = ()                                  # image heights with attention; empty: nowhere
    heads: Annotated[int, Ge(1)] = 4                                                   # attention heads
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0                              # share of features dropped in each block

    ports: ClassVar[frozenset[str]] = frozenset({"vector"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels % 2:
            raise OptionError(f"channels must be even (a sine and a cosine per frequency of the time embedding), got {self.channels}")
        if self.attention and self.channels % self.heads:
            raise OptionError(f"channels must be divisible by heads, got channels {self.channels} and heads {self.heads}")

    @property
    def signal_width(self) -> int:
        return 4 * self.channels

    def why_not(self, cell):
        _, height, width = cell.dataset.image_shape
        halvings = len(self.multipliers) - 1
        if height % 2**halvings or width % 2**halvings:
            return f"unet halves the image {halvings} times, and {height}x{width} is not divisible by {2**halvings}"
        heights = [height >> level for level in range(halvings + 1)]
        if self.attention and not set(self.attention) & set(heights):
            return (f"unet is to attend at image heights {', '.join(map(str, self.attention))}, "
                    f"and on {height}x{width} its levels have {', '.join(map(str, heights))}")
        return None

    def build(self, io: Io) -> nn.Module:
        return _UnetNetwork(self, io)


class _UnetNetwork(nn.Module):
    def __init__(self, options: Unet, io: Io):
        super().__init__()
        width = options.signal_width
        self.time = TimeEmbedding(options.channels, width)
        self.stem = nn.Conv2d(io.channels, options.channels, 3, padding=1)

        def block(channels_in: int, channels_out: int, attends: bool, after: nn.Module | None = None) -> nn.Module:
            return _Block(channels_in, channels_out, width, options.dropout, options.heads if attends else 0, after or nn.Identity())

        levels = [(options.channels * m, io.height >> i in options.attention) for i, m in enumerate(options.multipliers)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels, skips = options.channels, [options.channels]
        for depth, (channels_out, attends) in enumerate(levels):
            for _ in range(options.blocks):
                self.down.append(block(channels, channels_out, attends))
                channels = channels_out
                skips.append(channels)
            if depth < len(levels) - 1:
                self.down.append(_Halve(channels))
                skips.append(channels)
        self.middle = nn.ModuleList([block(channels, channels, bool(options.attention)), block(channels, channels, False)])
        for depth, (channels_out, attends) in reversed(list(enumerate(levels))):
            for index in range(options.blocks + 1):
                is_last = index == options.blocks and depth > 0
                self.up.append(block(channels + skips.pop(), channels_out, attends, _double(channels_out) if is_last else None))
                channels = channels_out
        self.last_norm = _norm(channels)
        self.last = _zeroed(nn.Conv2d(channels, io.channels, 3, padding=1))

    def forward(self, x: Tensor, c_noise: Tensor, signals: Signals) -> Tensor:
        c = self.time(c_noise)                                                     # [B, D]
        if signals.vector is not None:
            c = c + signals.vector
        c = F.silu(c)
        h = self.stem(x)                                                           # [B, F, H, W]
        skips = [h]
        for step in self.down:
            h = step(h, c)                                                         # [B, F m, H/2^level, W/2^level]
            skips.append(h)
        for step in self.middle:
            h = step(h, c)
        for step in self.up:
            h = step(torch.cat([h, skips.pop()], dim=1), c)
        return self.last(F.silu(self.last_norm(h)))                                # [B, C, H, W]


class _Block(nn.Module):
    """A residual block, self-attention where heads > 0, then a change of resolution where there is one."""

    def __init__(self, channels_in: int, channels: int, width: int, dropout: float, heads: int, after: nn.Module):
        super().__init__()
        self.norm_1, self.conv_1 = _norm(channels_in), nn.Conv2d(channels_in, channels, 3, padding=1)
        self.modulation = nn.Linear(width, 2 * channels)
        self.norm_2, self.dropout = _norm(channels), nn.Dropout(dropout)
        self.conv_2 = _zeroed(nn.Conv2d(channels, channels, 3, padding=1))
        self.shortcut = nn.Conv2d(channels_in, channels, 1) if channels_in != channels else nn.Identity()
        self.attention = _Attention(channels, heads) if heads else nn.Identity()
        self.after = after

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        scale, shift = self.modulation(c)[:, :, None, None].chunk(2, dim=1)        # [B, F, 1, 1] each
        h = self.conv_1(F.silu(self.norm_1(x)))                                    # [B, F, H, W]
        h = self.norm_2(h) * (1 + scale) + shift
        h = self.conv_2(self.dropout(F.silu(h)))
        return self.after(self.attention(self.shortcut(x) + h))


class _Attention(nn.Module):
    """Self-attention over the pixels, added to its input: [B, F, H, W] -> [B, F, H, W]."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = _norm(channels)
        self.qkv, self.project = nn.Conv2d(channels, 3 * channels, 1), _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1))  # [B, 3, heads, F/heads, H W]
        q, k, v = qkv.transpose(3, 4).unbind(1)                                    # [B, heads, H W, F/heads] each
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.project(h.transpose(2, 3).flatten(1, 2).unflatten(2, x.shape[2:]))


class _Halve(nn.Module):
    """A strided convolution; takes the modulation vector only to be called like a block."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.conv(x)                                                        # [B, F, H/2, W/2]


def _double(channels: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(channels, channels, 3, padding=1))


def _norm(channels: int) -> nn.GroupNorm:
    """As many groups as divide the channels into groups of at least 4, and at most 32."""
    return nn.GroupNorm(max(g for g in range(1, 33) if channels % g == 0 and channels >= 4 * g), channels)


def _zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv
