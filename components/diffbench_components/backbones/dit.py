"""Diffusion transformer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from diffbench import Backbone, Io, OptionError, Signals
from diffbench_components.backbones.attention import CrossAttention, SelfAttention
from diffbench_components.backbones.embeddings import TimeEmbedding

# features of the time embedding, in every published size
FREQUENCIES = 256
STEERED = {"adaln_zero": ("shift", "scale", "gate"), "adaln": ("shift", "scale"), "cross_attention": (),
           "in_context": ()}


@dataclass(frozen=True, kw_only=True)
class Dit(Backbone):
    """DiT: a vision transformer on patches of the image.

    The kind of its blocks says how the noise level and `Signals.vector` (DiT's label) enter.
    adaln: h + f((1 + scale) * LN(h) + shift), shift and scale linear in silu(time + vector), around attention f and MLP
    f alike.
    adaln_zero: h + gate * f(...), the gate from the same vector; zero at first, so that every block starts as the
    identity.
    cross_attention: time and vector are two tokens, to which a layer between attention and MLP attends.
    in_context: time and vector are two more tokens of the sequence, taken off it before the last layer.
    `Signals.maps` are stacked onto the image. `Signals.tokens` enter by cross-attention: beside time and vector in that
    kind of block, else in one more layer per block that adds nothing at birth (PixArt); or in context, in the sequence,
    in every kind. The last layer starts at zero, and with it the output. In `adaln`, too, shift and scale start at
    zero: the paper does not say.
    Departure: where time would be the only token to attend to, a learned one stands beside it.
    Source: Peebles & Xie 2023, arXiv:2212.09748, section 3.2 and their released code, which has adaln_zero only;
    PixArt-alpha: Chen et al. 2023, arXiv:2310.00426.
    """

    patch: Annotated[int, Ge(1)] = 2              # edge of a patch in pixels; halving it costs four times as much or
                                                  # more
    depth: Annotated[int, Ge(1)] = 12             # transformer blocks
    width: Annotated[int, Ge(4)] = 384            # features per patch; divisible by 4 and by heads
    heads: Annotated[int, Ge(1)] = 6              # attention heads, each width/heads wide
    mlp_ratio: Annotated[float, Ge(1)] = 4.0      # hidden features of each MLP, in widths
    block: Literal["adaln_zero", "adaln", "cross_attention", "in_context"] = "adaln_zero"  # how time and vector enter

    ports: ClassVar[frozenset[str]] = frozenset({"maps", "tokens", "vector"})
    starts_at_zero: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "S": {"depth": 12, "width": 384, "heads": 6},
        "B": {"depth": 12, "width": 768, "heads": 12},
        "L": {"depth": 24, "width": 1024, "heads": 16},
        "XL": {"depth": 28, "width": 1152, "heads": 16},
    }
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"depth": 2, "width": 16, "heads": 1, "patch": 4},
        {"depth": 1, "width": 12, "heads": 3, "patch": 1, "mlp_ratio": 1.5},
        {"depth": 2, "width": 16, "heads": 2, "block": "adaln"},
        {"depth": 2, "width": 16, "heads": 2, "block": "cross_attention"},
        {"depth": 2, "width": 16, "heads": 2, "block": "in_context"},
    )

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
        _, height, width = cell.data_shape
        if height % self.patch or width % self.patch:
            return (f"dit cuts images into patches of {self.patch}x{self.patch}, and {height}x{width} is not divisible "
                    f"by {self.patch}")
        if (height, width) == (self.patch, self.patch):
            return f"dit sees {height}x{width} as a single patch, and attention needs two"
        return None

    def build(self, io: Io) -> nn.Module:
        return _DitNetwork(self, io)


class _DitNetwork(nn.Module):
    def __init__(self, options: Dit, io: Io):
        super().__init__()
        self.patch, self.block, width = options.patch, options.block, options.width
        self.rows, self.columns = io.height // options.patch, io.width // options.patch
        self.stem = nn.Conv2d(io.channels + io.map_channels, width, options.patch, stride=options.patch)
        self.register_buffer("positions", _positions(self.rows, self.columns, width), persistent=False)       # [L, D]
        self.time = TimeEmbedding(FREQUENCIES, width)
        self.tokens_cross = "tokens" in io.ports and io.tokens_enter == "cross_attention"
        crosses = self.tokens_cross or self.block == "cross_attention"
        is_alone = self.block == "cross_attention" and not self.tokens_cross and "vector" not in io.ports
        self.beside_time = nn.Parameter(0.02 * torch.randn(width)) if is_alone else None
        self.blocks = nn.ModuleList(_Block(options, crosses) for _ in range(options.depth))
        self.last_norm = _Norm(width, [part for part in STEERED[self.block] if part != "gate"])
        self.last = nn.Linear(width, options.patch**2 * io.out_channels)
        self._initialise()

    def forward(self, x: Tensor, c_noise: Tensor, signals: Signals) -> Tensor:
        if signals.maps is not None:
            x = torch.cat([x, signals.maps], dim=1)                                 # [B, C + C', H, W]
        h = self.stem(x).flatten(2).transpose(1, 2) + self.positions                # [B, L, D], L = rows * columns
        patches = h.shape[1]
        c, joined, attended = self._condition(self.time(c_noise), signals)
        h = torch.cat([h, *joined], dim=1)                                          # [B, L + M, D]
        attended = torch.cat(attended, dim=1) if attended else None                 # [B, M', D]
        for block in self.blocks:
            h = block(h, c, attended)
        h, _ = self.last_norm(h[:, :patches], c)                                    # [B, L, D]
        h = self.last(h)                                                            # [B, L, p p C_out]
        # [B, rows, columns, p, p, C_out]
        h = h.unflatten(2, (self.patch, self.patch, -1)).unflatten(1, (self.rows, self.columns))
        return h.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)              # [B, C_out, H, W]

    def _condition(self, time: Tensor, signals: Signals) -> tuple[Tensor | None, list[Tensor], list[Tensor]]:
        """c [B, D] of the modulations, tokens that join the sequence, tokens that cross-attention attends to:
        each [B, ., D].
        """
        c, joined, attended = None, [], []
        if STEERED[self.block]:
            c = F.silu(time if signals.vector is None else time + signals.vector)
        else:
            place = attended if self.block == "cross_attention" else joined
            place.extend(part[:, None] for part in (time, signals.vector) if part is not None)
        if self.beside_time is not None:
            attended.append(self.beside_time.expand(len(time), 1, -1))
        if signals.tokens is not None:
            (attended if self.tokens_cross else joined).append(signals.tokens)
        return c, joined, attended

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.flatten(1))
                nn.init.zeros_(module.bias)
        for linear in (self.time.first, self.time.second):
            nn.init.normal_(linear.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, _Norm) and module.steer is not None:
                nn.init.zeros_(module.steer.weight)
        for block in self.blocks if self.block != "cross_attention" else ():
            if block.cross is not None:
                nn.init.zeros_(block.cross.project.weight)
        nn.init.zeros_(self.last.weight)


class _Block(nn.Module):
    """Attention, cross-attention where there is any, and MLP, each normed and added to the sequence:
    [B, L, D] -> [B, L, D].
    """

    def __init__(self, options: Dit, crosses: bool):
        super().__init__()
        width, hidden = options.width, round(options.mlp_ratio * options.width)
        self.norm_1, self.attention = _Norm(width, STEERED[options.block]), SelfAttention(width, options.heads)
        self.cross_norm, self.cross = ((_Norm(width), CrossAttention(width, options.heads, width)) if crosses
                                       else (None, None))
        self.norm_2 = _Norm(width, STEERED[options.block])
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))

    def forward(self, h: Tensor, c: Tensor | None, attended: Tensor | None) -> Tensor:
        normed, gate = self.norm_1(h, c)
        h = _added(h, self.attention(normed), gate)
        if self.cross is not None:
            normed, _ = self.cross_norm(h)
            h = h + self.cross(normed, attended)
        normed, gate = self.norm_2(h, c)
        return _added(h, self.mlp(normed), gate)


class _Norm(nn.Module):
    """(1 + scale) * LN(h) + shift and a gate, those that are steered linear in c;
    with none, LN has a scale and a shift of its own.
    """

    def __init__(self, width: int, steered: tuple[str, ...] | list[str] = ()):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=not steered)
        self.steer = nn.Linear(width, len(steered) * width) if steered else None

    def forward(self, h: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        if self.steer is None:
            return self.norm(h), None
        shift, scale, *gate = self.steer(c)[:, None].split(h.shape[2], dim=2)       # [B, 1, D] each
        return torch.addcmul(shift, self.norm(h), 1 + scale), gate[0] if gate else None


def _added(h: Tensor, out: Tensor, gate: Tensor | None) -> Tensor:
    return h + out if gate is None else torch.addcmul(h, gate, out)


def _positions(rows: int, columns: int, width: int) -> Tensor:
    """Sines then cosines of the column, then of the row, in patches; [rows * columns, width], row by row.

    Column first, as in the code DiT took from MAE (He et al. 2022, arXiv:2111.06377).
    """
    w = 10000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    phases = [place.flatten()[:, None] * w for place in (column, row)]
    return torch.cat([part for phase in phases for part in (phase.sin(), phase.cos())], dim=1).float()
