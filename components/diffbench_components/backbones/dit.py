"""Diffusion transformer."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from diffbench import Backbone, Io, OptionError, Signals
from diffbench_components.backbones.embeddings import TimeEmbedding

FREQUENCIES = 256                                                 # features of the time embedding, in every published size


@dataclass(frozen=True, kw_only=True)
class Dit(Backbone):
    """A vision transformer on patches, each block modulated by adaLN-Zero: h + gate * f((1 + scale) * LN(h) + shift).

    shift, scale and gate come from one vector per sample, the embedding of c_noise plus `Signals.vector` (where DiT adds its
    label). Modulations and the last layer start at zero, so every block is the identity and the output is 0 at birth.
    Published sizes, patch 2, 4 or 8: S is depth 12, width 384, heads 6 (the default); B 12, 768, 12; L 24, 1024, 16; XL 28, 1152, 16.
    Departure: the output has the image's channels; the published networks double them for a learned variance.
    Source: Peebles & Xie 2023, arXiv:2212.09748, section 3.2 and their released code.
    """

    patch: Annotated[int, Ge(1)] = 2              # edge of a patch in pixels; halving it costs four times as much or more
    depth: Annotated[int, Ge(1)] = 12             # transformer blocks
    width: Annotated[int, Ge(4)] = 384            # features per patch; divisible by 4 and by heads
    heads: Annotated[int, Ge(1)] = 6              # attention heads, each width/heads wide
    mlp_ratio: Annotated[float, Ge(1)] = 4.0      # hidden features of each MLP, in widths

    ports: ClassVar[frozenset[str]] = frozenset({"vector"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise OptionError(f"width must be divisible by heads, got width {self.width} and heads {self.heads}")
        if self.width % 4:
            raise OptionError(f"width must be divisible by 4 (sine and cosine of row and column), got {self.width}")

    @property
    def signal_width(self) -> int:
        return self.width

    def why_not(self, cell):
        _, height, width = cell.dataset.image_shape
        if height % self.patch or width % self.patch:
            return f"dit cuts images into patches of {self.patch}x{self.patch}, and {height}x{width} is not divisible by {self.patch}"
        return None

    def build(self, io: Io) -> nn.Module:
        return _DitNetwork(self, io)


class _DitNetwork(nn.Module):
    def __init__(self, options: Dit, io: Io):
        super().__init__()
        self.patch, width = options.patch, options.width
        self.rows, self.columns = io.height // options.patch, io.width // options.patch
        self.stem = nn.Conv2d(io.channels, width, options.patch, stride=options.patch)
        self.register_buffer("positions", _positions(self.rows, self.columns, width), persistent=False)       # [L, D]
        self.time = TimeEmbedding(FREQUENCIES, width)
        self.blocks = nn.ModuleList(_Block(width, options.heads, round(options.mlp_ratio * width)) for _ in range(options.depth))
        self.last_norm = _norm(width)
        self.last_modulation = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, options.patch**2 * io.channels)
        self._initialise()

    def forward(self, x: Tensor, c_noise: Tensor, signals: Signals) -> Tensor:
        h = self.stem(x).flatten(2).transpose(1, 2) + self.positions                # [B, L, D], L = rows * columns
        c = self.time(c_noise)                                                      # [B, D]
        if signals.vector is not None:
            c = c + signals.vector
        c = F.silu(c)
        for block in self.blocks:
            h = block(h, c)
        shift, scale = self.last_modulation(c)[:, None].chunk(2, dim=2)             # [B, 1, D] each
        h = self.last(_modulate(self.last_norm(h), shift, scale))                   # [B, L, p p C]
        h = h.unflatten(2, (self.patch, self.patch, -1)).unflatten(1, (self.rows, self.columns))    # [B, rows, columns, p, p, C]
        return h.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)              # [B, C, H, W]

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.flatten(1))
                nn.init.zeros_(module.bias)
        for linear in (self.time.first, self.time.second):
            nn.init.normal_(linear.weight, std=0.02)
        for linear in (*(block.modulation for block in self.blocks), self.last_modulation, self.last):
            nn.init.zeros_(linear.weight)


class _Block(nn.Module):
    """Attention, then MLP, both between adaLN-Zero modulations: [B, L, D] -> [B, L, D]."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * width)
        self.norm_1, self.norm_2 = _norm(width), _norm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(c)[:, None].chunk(6, dim=2)      # [B, 1, D] each
        h = h + gate_1 * self.attend(_modulate(self.norm_1(h), shift_1, scale_1))
        return h + gate_2 * self.mlp(_modulate(self.norm_2(h), shift_2, scale_2))

    def attend(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(h).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()               # [B, heads, L, D/heads]
        return self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def _modulate(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return h * (1 + scale) + shift


def _positions(rows: int, columns: int, width: int) -> Tensor:
    """Sines then cosines of the column, then of the row, in patches; [rows * columns, width], row by row.

    Column first, as in the code DiT took from MAE (He et al. 2022, arXiv:2111.06377).
    """
    w = 10000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    phases = [place.flatten()[:, None] * w for place in (column, row)]
    return torch.cat([part for phase in phases for part in (phase.sin(), phase.cos())], dim=1).float()
