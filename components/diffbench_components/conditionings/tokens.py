"""What `cross_attention` and `in_context` share: the condition as a short sequence of tokens."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from diffbench import Condition, Conditioning, Io, Signals
from diffbench_components.conditionings.labels import LabelTable, needs_condition


@dataclass(frozen=True, kw_only=True)
class Tokens(Conditioning):
    """Tokens of a condition, [B, L, D]: learned ones per label, or one for each patch of an image."""

    tokens: Annotated[int, Ge(1)] = 4  # L of a label; attention to a single token could not tell queries apart
    patch: Annotated[int, Ge(1)] = 2   # edge of a patch, in pixels of the condition, where that is an image

    @property
    def ports(self) -> frozenset[str]:
        return frozenset({"tokens"})

    def why_not(self, cell):
        shape = cell.dataset.condition_shape
        if shape is not None and (shape[1] % self.patch or shape[2] % self.patch):
            return (f"{self.component_name()} cuts the condition into patches of {self.patch}x{self.patch}, "
                    f"and {shape[1]}x{shape[2]} is not divisible by {self.patch}")
        return needs_condition(self.component_name(), cell)

    def build(self, io: Io) -> nn.Module:
        return _LabelTokens(io, self.tokens) if io.condition_shape is None else _ImageTokens(io, self.patch)


class _LabelTokens(nn.Module):
    def __init__(self, io: Io, tokens: int):
        super().__init__()
        self.tokens = tokens
        self.labels = LabelTable(io.classes, tokens * io.signal_width, std=0.5)

    def forward(self, cond: Condition | None, drop: Tensor) -> Signals:
        return Signals(tokens=self.labels(cond, drop).unflatten(1, (self.tokens, -1)))           # [B, L, D]


class _ImageTokens(nn.Module):
    def __init__(self, io: Io, patch: int):
        super().__init__()
        channels, height, width = io.condition_shape
        self.stem = nn.Conv2d(channels, io.signal_width, patch, stride=patch)
        count = (height // patch) * (width // patch)
        self.positions = nn.Parameter(0.02 * torch.randn(count, io.signal_width))                # [L, D]
        self.null = nn.Parameter(torch.zeros(io.signal_width))                                   # [D]

    def forward(self, cond: Condition | None, drop: Tensor) -> Signals:
        null = self.null.expand(len(drop), len(self.positions), -1)                              # [B, L, D]
        if cond is None:
            return Signals(tokens=null + self.positions)
        seen = self.stem(cond.image).flatten(2).transpose(1, 2)
        return Signals(tokens=torch.where(drop[:, None, None], null, seen) + self.positions)
