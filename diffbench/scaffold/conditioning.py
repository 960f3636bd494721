"""A label as a vector, through a small network."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from diffbench import Condition, Conditioning, Io, Signals


@dataclass(frozen=True, kw_only=True)
class Newcomer(Conditioning):
    """The label, one-hot of K + 1 (the last is no label), through one hidden layer to the vector that steers a
    backbone's blocks.

    It fills the socket `vector`. `cfg: {inner: newcomer, scale: 3}` wraps it for classifier-free guidance.
    """

    hidden: Annotated[int, Ge(1)] = 64                # features of the hidden layer

    @property
    def ports(self) -> frozenset[str]:
        return frozenset({"vector"})

    def why_not(self, cell):
        """Why it cannot be used in a cell: the reason of a skipped row."""
        if cell.dataset.condition_shape is not None or cell.dataset.classes is None:
            return f"newcomer takes labels, and {cell.dataset.component_name()} has none that are the condition"
        return None

    def build(self, io: Io) -> nn.Module:
        return _LabelNetwork(io.classes, self.hidden, io.signal_width)


class _LabelNetwork(nn.Module):
    def __init__(self, classes: int, hidden: int, width: int):
        super().__init__()
        self.classes = classes
        self.layers = nn.Sequential(nn.Linear(classes + 1, hidden), nn.SiLU(), nn.Linear(hidden, width))

    def forward(self, cond: Condition | None, drop: Tensor) -> Signals:
        """cond: what is told about B samples, or None where nothing is;
        drop: bool [B], True where the condition is withheld, in training or for guidance.
        """
        null = torch.full(drop.shape, self.classes, device=drop.device)
        label = null if cond is None else torch.where(drop, null, cond.label)                             # [B]
        one_hot = nn.functional.one_hot(label, self.classes + 1).to(self.layers[0].weight.dtype)         # [B, K + 1]
        return Signals(vector=self.layers(one_hot))                                                      # [B, D]
