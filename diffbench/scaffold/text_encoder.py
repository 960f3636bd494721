"""Texts as their letters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from diffbench import TextEncoder, Tokens


@dataclass(frozen=True, kw_only=True)
class Newcomer(TextEncoder):
    """A token is a byte of UTF-8, a state a learned vector for it, and the pooled vector the mean of the states."""

    width: Annotated[int, Ge(1)] = 16   # of states

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        written = [list(text.encode()) for text in texts]
        length = max(map(len, written), default=0)
        ids = torch.tensor([[*letters, *[0] * (length - len(letters))] for letters in written], dtype=torch.int64)
        visible = torch.tensor([[i < len(letters) for i in range(length)] for letters in written])
        return Tokens(ids, visible)

    def module(self) -> nn.Module:
        return _Letters(self.width)


class _Letters(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.states = nn.Embedding(256, width)

    def forward(self, ids: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        states = self.states(ids)                                              # [B, L, D]
        shares = visible / visible.sum(1, keepdim=True).clamp(min=1)           # [B, L]
        return states, (shares[:, :, None] * states).sum(1)
