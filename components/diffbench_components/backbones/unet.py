"""U-Net of residual blocks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Interval, MinLen
from torch import Tensor, nn

from diffbench import Backbone, Io, OptionError, Signals
from diffbench_components.backbones.attention import CrossAttention, LinearAttention, SelfAttention
from diffbench_components.backbones.embeddings import TimeEmbedding
from diffbench_components.backbones.pyramid import (
    ConvnextBlock,
    Halve,
    PixelAttention,
    Place,
    ResnetBlock,
    doubled,
    group_norm,
    zeroed,
)

BLOCKS = {"resnet": ResnetBlock, "convnext": ConvnextBlock}
CIFAR10 = {"channels": 128, "multipliers": (1, 2, 2, 2)}


@dataclass(frozen=True, kw_only=True)
class Unet(Backbone):
    """U-Net: residual blocks on a pyramid of resolutions, joined by skip connections.

    One vector per sample modulates each block.
    The vector is the embedding of c_noise plus `Signals.vector`, both 4 channels wide. The last convolution of each
    block and of the network start at zero. Each level halves the image. Blocks attend at the heights named in
    `attention` (over all pairs of pixels) and `linear_attention`; where any are named, the middle attends too, over all
    pairs.
    `Signals.maps` are stacked onto the image. `Signals.tokens` enter by cross-attention, queries from the image, behind
    every attention layer and in the middle; or in context, as further keys and values of full attention, which the
    middle then always has.
    `ddpm_cifar10` has DDPM's layers and size (35 746 307 parameters), `iddpm_cifar10` those of improved DDPM (52.5 M
    with its learned variance). Departures from DDPM: cosines come before sines, convolutions start as PyTorch's, and a
    group of channels is never below 4, as in EDM: GroupNorm over single channels would hide the brightness of an image.
    Source: Ho et al. 2020, arXiv:2006.11239, appendix B; Nichol & Dhariwal 2021, arXiv:2102.09672, appendix A; AdaGN:
    Dhariwal & Nichol 2021, arXiv:2105.05233, section 3; cross-attention: Rombach et al. 2022, arXiv:2112.10752, section
    3.3.
    """

    channels: Annotated[int, Ge(4)] = 64  # features at full resolution; even
    multipliers: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (1, 2, 2)  # features of each level, in
                                                                                      # channels
    blocks: Annotated[int, Ge(1)] = 2  # residual blocks per level; going up one more
    block: Literal["resnet", "convnext"] = "resnet"  # two 3x3 convolutions, or 7x7 per channel and an MLP
    modulation: Literal["scale_shift", "shift"] = "scale_shift"  # AdaGN after the norm, or DDPM's sum before it
    attention: tuple[Annotated[int, Ge(1)], ...] = ()  # image heights with full attention; empty: nowhere
    linear_attention: tuple[Annotated[int, Ge(1)], ...] = ()  # image heights with linear attention, for large ones
    heads: Annotated[int, Ge(1)] = 4  # attention heads; they divide channels
    resample: Literal["conv", "pool"] = "conv"  # convolutions, or averages down and nearest pixels up
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0  # share of features dropped in each block

    ports: ClassVar[frozenset[str]] = frozenset({"maps", "tokens", "vector"})
    starts_at_zero: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # seconds on a CPU at 8x8
        "tiny": {"channels": 16, "multipliers": (1, 2), "blocks": 1},
        # one GPU, 8x8 to 32x32
        "small": {"channels": 64, "multipliers": (1, 2, 2), "blocks": 2, "attention": (7, 8)},
        "ddpm_cifar10": {**CIFAR10, "blocks": 2, "modulation": "shift", "attention": (16,), "heads": 1, "dropout": 0.1},
        "iddpm_cifar10": {**CIFAR10, "blocks": 3, "modulation": "scale_shift", "attention": (16, 8), "heads": 4,
                          "dropout": 0.3},
    }
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"channels": 8, "multipliers": (1, 2), "blocks": 1},
        {"channels": 12, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "heads": 2, "dropout": 0.5},
        {"channels": 8, "multipliers": (3,), "blocks": 2, "modulation": "shift", "attention": (8,), "heads": 1},
        {"channels": 8, "multipliers": (1, 2), "blocks": 1, "block": "convnext", "attention": (4,),
         "linear_attention": (8,), "heads": 2,
         "resample": "pool", "dropout": 0.2},
        {"channels": 8, "multipliers": (1, 1), "blocks": 1, "block": "convnext", "modulation": "shift",
         "linear_attention": (8, 4)},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels % 2:
            raise OptionError("channels must be even (a sine and a cosine per frequency of the time embedding), got "
                              f"{self.channels}")
        if self.channels % self.heads:
            raise OptionError(f"channels must be divisible by heads, got channels {self.channels} and heads "
                              f"{self.heads}")
        if both := sorted(set(self.attention) & set(self.linear_attention)):
            raise OptionError(f"a height has full attention or linear attention, got {', '.join(map(str, both))} in "
                              "both")

    @property
    def signal_width(self) -> int:
        return 4 * self.channels

    @property
    def attends(self) -> tuple[int, ...]:
        """All image heights with attention."""
        return self.attention + self.linear_attention

    def why_not(self, cell):
        _, height, width = cell.data_shape
        halvings = len(self.multipliers) - 1
        if height % 2**halvings or width % 2**halvings:
            return (f"unet halves the image {halvings} times, and {height}x{width} is not divisible by "
                    f"{2**halvings if halvings < 64 else f'2**{halvings}'}")
        heights = [height >> level for level in range(halvings + 1)]
        if self.attends and not set(self.attends) & set(heights):
            return (f"unet is to attend at image heights {', '.join(map(str, self.attends))}, "
                    f"and on {height}x{width} its levels have {', '.join(map(str, heights))}")
        return None

    def build(self, io: Io) -> nn.Module:
        return _UnetNetwork(self, io)


class _UnetNetwork(nn.Module):
    def __init__(self, options: Unet, io: Io):
        super().__init__()
        self.options, self.token_width = options, io.signal_width
        self.tokens_enter = io.tokens_enter if "tokens" in io.ports else "nowhere"
        self.time = TimeEmbedding(options.channels, options.signal_width)
        self.stem = nn.Conv2d(io.channels + io.map_channels, options.channels, 3, padding=1)
        levels = [(options.channels * m, io.height >> i) for i, m in enumerate(options.multipliers)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels, skips = options.channels, [options.channels]
        for depth, (channels_out, height) in enumerate(levels):
            for _ in range(options.blocks):
                self.down.append(Place(self._block(channels, channels_out), self._attention(channels_out, height)))
                channels = channels_out
                skips.append(channels)
            if depth < len(levels) - 1:
                self.down.append(Halve(channels, options.resample))
                skips.append(channels)
        self.middle = nn.ModuleList([Place(self._block(channels, channels), self._middle_attention(channels)),
                                     Place(self._block(channels, channels), [])])
        for depth, (channels_out, height) in reversed(list(enumerate(levels))):
            for index in range(options.blocks + 1):
                after = doubled(channels_out, options.resample) if index == options.blocks and depth > 0 else None
                self.up.append(Place(self._block(channels + skips.pop(), channels_out),
                                     self._attention(channels_out, height), after))
                channels = channels_out
        self.last_norm = group_norm(channels)
        self.last = zeroed(nn.Conv2d(channels, io.out_channels, 3, padding=1))

    def forward(self, x: Tensor, c_noise: Tensor, signals: Signals) -> Tensor:
        c = self.time(c_noise)                                                     # [B, D]
        if signals.vector is not None:
            c = c + signals.vector
        c = F.silu(c)
        if signals.maps is not None:
            x = torch.cat([x, signals.maps], dim=1)                                # [B, C + C', H, W]
        h = self.stem(x)                                                           # [B, F, H, W]
        skips = [h]
        for step in self.down:
            h = step(h, c, signals.tokens)                                         # [B, F m, H/2^level, W/2^level]
            skips.append(h)
        for step in self.middle:
            h = step(h, c, signals.tokens)
        for step in self.up:
            h = step(torch.cat([h, skips.pop()], dim=1), c, signals.tokens)
        return self.last(F.silu(self.last_norm(h)))                                # [B, C_out, H, W]

    def _block(self, channels_in: int, channels: int) -> nn.Module:
        options = self.options
        return BLOCKS[options.block](channels_in, channels, options.signal_width, options.modulation, options.dropout)

    def _attention(self, channels: int, height: int) -> list[PixelAttention]:
        """The attention layers behind a block at one image height: none, or self-attention and what the tokens need."""
        if height in self.options.linear_attention:
            return [PixelAttention(LinearAttention(channels, self.options.heads), channels),
                    *self._cross_attention(channels)]
        return self._full_attention(channels) if height in self.options.attention else []

    def _middle_attention(self, channels: int) -> list[PixelAttention]:
        """Wherever tokens enter, they enter here."""
        is_full = self.options.attends or self.tokens_enter == "in_context"
        return self._full_attention(channels) if is_full else self._cross_attention(channels)

    def _full_attention(self, channels: int) -> list[PixelAttention]:
        attention = SelfAttention(channels, self.options.heads,
                                  self.token_width if self.tokens_enter == "in_context" else 0)
        return [PixelAttention(attention, channels), *self._cross_attention(channels)]

    def _cross_attention(self, channels: int) -> list[PixelAttention]:
        if self.tokens_enter != "cross_attention":
            return []
        return [PixelAttention(CrossAttention(channels, self.options.heads, self.token_width), channels)]
