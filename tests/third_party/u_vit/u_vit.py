"""U-ViT: a vision transformer with the long skip connections of a U-Net."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from diffbench import Backbone, Io, OptionError, Signals


@dataclass(frozen=True, kw_only=True)
class UVit(Backbone):
    """Everything is a token: the noise level, the condition and the patches of the image, in one sequence with learned positions.

    depth/2 blocks, one in the middle, depth/2 more; block i of the second half takes Linear(concat(h, h of block depth - i of the first half)).
    Blocks: h + attention(LN(h)), h + MLP(LN(h)). Then the patches alone: LN, linear to pixels, and a 3x3 convolution across their borders.
    The level's token is its sinusoids, unlearned, as in the released code. `Signals.vector` (the label) is one token; `Signals.tokens`
    join the sequence and are not attended to apart: a conditioning whose tokens enter by cross-attention is refused.
    Source: Bao et al. 2023, "All are Worth Words", arXiv:2209.12152, section 3 and figure 1.
    """

    patch: Annotated[int, Ge(1)] = 2                  # edge of a patch in pixels
    depth: Annotated[int, Ge(2)] = 12                 # blocks beside the one in the middle; even
    width: Annotated[int, Ge(2)] = 512                # features per token; divisible by heads, and even
    heads: Annotated[int, Ge(1)] = 8                  # attention heads
    mlp_ratio: Annotated[float, Ge(1)] = 4.0          # hidden features of each MLP, in widths

    ports: ClassVar[frozenset[str]] = frozenset({"tokens", "vector"})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "S": {"depth": 12, "width": 512, "heads": 8},         # 13 layers, 44 M parameters
        "M": {"depth": 16, "width": 768, "heads": 12},        # 17 layers, 131 M
        "L": {"depth": 20, "width": 1024, "heads": 16},       # 21 layers, 287 M
    }
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({"depth": 2, "width": 16, "heads": 2, "patch": 4}, {"depth": 4, "width": 32, "heads": 1, "patch": 2})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth % 2:
            raise OptionError(f"depth must be even, for each block of the first half has one in the second, got {self.depth}")
        if self.width % self.heads or self.width % 2:
            raise OptionError(f"width must be even and divisible by heads, got width {self.width} and heads {self.heads}")

    @property
    def signal_width(self) -> int:
        return self.width

    def why_not(self, cell):
        _, height, width = cell.dataset.image_shape
        if height % self.patch or width % self.patch:
            return f"u_vit cuts images into patches of {self.patch}x{self.patch}, and {height}x{width} is not divisible by {self.patch}"
        if "tokens" in cell.conditioning.ports and cell.conditioning.tokens_enter == "cross_attention":
            return f"u_vit has the condition within its sequence, and the tokens of {cell.conditioning.component_name()} enter by cross-attention; use in_context"
        return None

    def build(self, io: Io) -> nn.Module:
        return _UVitNetwork(self, io)


class _UVitNetwork(nn.Module):
    def __init__(self, options: UVit, io: Io):
        super().__init__()
        self.patch, self.width = options.patch, options.width
        self.rows, self.columns = io.height // options.patch, io.width // options.patch
        self.stem = nn.Conv2d(io.channels, options.width, options.patch, stride=options.patch)
        # A token of the condition has no place of its own: how many there are is known when they come.
        extras = 1 + ("vector" in io.ports)
        self.positions = nn.Parameter(0.02 * torch.randn(extras + self.rows * self.columns, options.width))      # [E + L, D]
        self.first = nn.ModuleList(_Block(options) for _ in range(options.depth // 2))
        self.middle = _Block(options)
        self.second = nn.ModuleList(_Block(options) for _ in range(options.depth // 2))
        self.joins = nn.ModuleList(nn.Linear(2 * options.width, options.width) for _ in range(options.depth // 2))
        self.norm = nn.LayerNorm(options.width)
        self.to_pixels = nn.Linear(options.width, options.patch**2 * io.out_channels)
        self.last = nn.Conv2d(io.out_channels, io.out_channels, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, c_noise: Tensor, signals: Signals) -> Tensor:
        patches = self.stem(x).flatten(2).transpose(1, 2)                           # [B, L, D], L = rows * columns
        extras = [_sinusoids(c_noise, self.width).to(patches.dtype)] + ([] if signals.vector is None else [signals.vector])
        h = torch.cat([torch.stack(extras, dim=1), patches], dim=1) + self.positions
        if signals.tokens is not None:
            h = torch.cat([signals.tokens, h], dim=1)                               # [B, M + E + L, D]
        skipped = []
        for block in self.first:
            h = block(h)
            skipped.append(h)
        h = self.middle(h)
        for join, block in zip(self.joins, self.second, strict=True):
            h = block(join(torch.cat([h, skipped.pop()], dim=2)))
        h = self.to_pixels(self.norm(h))[:, -self.rows * self.columns:]             # [B, L, p p C_out]
        h = h.unflatten(2, (self.patch, self.patch, -1)).unflatten(1, (self.rows, self.columns))
        return self.last(h.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3))   # [B, C_out, H, W]


class _Block(nn.Module):
    """[B, T, D] -> [B, T, D]."""

    def __init__(self, options: UVit):
        super().__init__()
        width, hidden = options.width, round(options.mlp_ratio * options.width)
        self.heads = options.heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm_1(h)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)      # [B, heads, T, D/heads] each
        h = h + self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return h + self.mlp(self.norm_2(h))


def _sinusoids(c_noise: Tensor, width: int) -> Tensor:
    """cos and sin of c_noise at frequencies 10000^(-i/(width/2)), float32 [B, width]: bfloat16 cannot tell level 999 from 1000."""
    half = width // 2
    phase = c_noise.float()[:, None] * torch.exp(-math.log(10000) / half * torch.arange(half, device=c_noise.device, dtype=torch.float32))
    return torch.cat([phase.cos(), phase.sin()], dim=1)
