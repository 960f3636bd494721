"""The layers of the U-Net: residual blocks under a modulation, attention over pixels, changes of resolution."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Modulation = Literal["scale_shift", "shift"]


class ResnetBlock(nn.Module):
    """x + conv(silu(modulated norm(conv(silu(norm(x)))))), both 3x3. Source: Ho et al.
    2020, arXiv:2006.11239, their released code.
    """

    def __init__(self, channels_in: int, channels: int, width: int, modulation: Modulation, dropout: float):
        super().__init__()
        self.norm_1, self.conv_1 = group_norm(channels_in), nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm_2 = Modulated(group_norm(channels), channels, width, modulation)
        self.dropout, self.conv_2 = nn.Dropout(dropout), zeroed(nn.Conv2d(channels, channels, 3, padding=1))
        self.shortcut = _shortcut(channels_in, channels)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.norm_2(self.conv_1(F.silu(self.norm_1(x))), c)                    # [B, F, H, W]
        return self.shortcut(x) + self.conv_2(self.dropout(F.silu(h)))


class ConvnextBlock(nn.Module):
    """x + shrink(gelu(expand(modulated norm(depthwise(x))))): 7x7 per channel, then 1x1 to four times the features and
    back.

    The norm is over the features of each pixel. Source: Liu et al. 2022, arXiv:2201.03545, figure 4; where they scale
    the branch by 1e-6 at birth, the last convolution starts at zero.
    """

    def __init__(self, channels_in: int, channels: int, width: int, modulation: Modulation, dropout: float):
        super().__init__()
        self.depthwise = nn.Conv2d(channels_in, channels_in, 7, padding=3, groups=channels_in)
        self.norm = Modulated(_PixelNorm(channels_in), channels_in, width, modulation)
        self.expand, self.shrink = nn.Conv2d(channels_in, 4 * channels, 1), zeroed(nn.Conv2d(4 * channels, channels, 1))
        self.dropout = nn.Dropout(dropout)
        self.shortcut = _shortcut(channels_in, channels)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.norm(self.depthwise(x), c)                                        # [B, F_in, H, W]
        return self.shortcut(x) + self.shrink(self.dropout(F.gelu(self.expand(h))))


class Modulated(nn.Module):
    """A norm steered by c [B, width]: (1 + scale) * norm(h) + shift, or norm(h + shift) where DDPM's plain shift is
    asked for.

    Source: AdaGN, Dhariwal & Nichol 2021, arXiv:2105.05233, section 3; the shift: Ho et al. 2020, appendix B and their
    released code.
    """

    def __init__(self, norm: nn.Module, channels: int, width: int, modulation: Modulation):
        super().__init__()
        self.norm, self.scales = norm, modulation == "scale_shift"
        self.project = nn.Linear(width, (2 if self.scales else 1) * channels)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        steer = self.project(c)[:, :, None, None]                                  # [B, 2 F or F, 1, 1]
        if not self.scales:
            return self.norm(h + steer)
        scale, shift = steer.chunk(2, dim=1)
        return torch.addcmul(shift, self.norm(h), 1 + scale)


class PixelAttention(nn.Module):
    """Attention over the pixels of a normed image, added to it: [B, F, H, W] -> [B, F, H, W]. It adds nothing at birth.
    """

    def __init__(self, attention: nn.Module, channels: int):
        super().__init__()
        self.norm, self.attention = group_norm(channels), attention
        zeroed(attention.project)

    def forward(self, x: Tensor, tokens: Tensor | None) -> Tensor:
        h = self.norm(x).flatten(2).transpose(1, 2)                                # [B, H W, F]
        return x + self.attention(h, tokens).transpose(1, 2).unflatten(2, x.shape[2:])


class Place(nn.Module):
    """One block of the pyramid, the attention layers behind it, and a change of resolution where there is one."""

    def __init__(self, block: nn.Module, attention: list[PixelAttention], after: nn.Module | None = None):
        super().__init__()
        self.block, self.attention, self.after = block, nn.ModuleList(attention), after or nn.Identity()

    def forward(self, x: Tensor, c: Tensor, tokens: Tensor | None) -> Tensor:
        h = self.block(x, c)                                                       # [B, F, H, W]
        for layer in self.attention:
            h = layer(h, tokens)
        return self.after(h)


class Halve(nn.Module):
    """Half the resolution, by a strided convolution or by averages; c and tokens only make it callable like a place."""

    def __init__(self, channels: int, resample: Literal["conv", "pool"]):
        super().__init__()
        self.shrink = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if resample == "conv" else nn.AvgPool2d(2)

    def forward(self, x: Tensor, c: Tensor, tokens: Tensor | None) -> Tensor:
        return self.shrink(x)                                                      # [B, F, H/2, W/2]


def doubled(channels: int, resample: Literal["conv", "pool"]) -> nn.Module:
    """Twice the resolution: every pixel four times, then a convolution unless resampling is all."""
    larger = nn.Upsample(scale_factor=2, mode="nearest")
    return nn.Sequential(larger, nn.Conv2d(channels, channels, 3, padding=1)) if resample == "conv" else larger


def group_norm(channels: int) -> nn.GroupNorm:
    """As many groups as divide the channels into groups of at least 4, and at most 32."""
    return nn.GroupNorm(max(g for g in range(1, 33) if channels % g == 0 and channels >= 4 * g), channels)


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with weight and bias at zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class _PixelNorm(nn.Module):
    """LayerNorm over the features of each pixel, [B, F, H, W]."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, 3)).movedim(3, 1)


def _shortcut(channels_in: int, channels: int) -> nn.Module:
    return nn.Conv2d(channels_in, channels, 1) if channels_in != channels else nn.Identity()
