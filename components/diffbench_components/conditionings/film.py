"""Feature-wise modulation by a label."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffbench import Conditioning, Io, Signals


@dataclass(frozen=True, kw_only=True)
class Film(Conditioning):
    """A learned vector per label, by which every block scales and shifts its features: AdaGN in the U-Net, adaLN in the DiT.

    Label K (one past the last) is the null condition; a network trained without condition dropout never learns it.
    Source: Perez et al. 2018, arXiv:1709.07871; AdaGN: Dhariwal & Nichol 2021, arXiv:2105.05233, section 3.
    """

    @property
    def ports(self) -> frozenset[str]:
        return frozenset({"vector"})

    def why_not(self, cell):
        return None if cell.dataset.classes else f"film needs labels, and {cell.dataset.component_name()} has none"

    def build(self, io: Io) -> nn.Module:
        return _LabelVector(io.classes, io.signal_width)


class _LabelVector(nn.Module):
    def __init__(self, classes: int, width: int):
        super().__init__()
        self.table = nn.Embedding(classes + 1, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, cond: Tensor | None, drop: Tensor) -> Signals:
        null = self.table.num_embeddings - 1
        label = torch.full(drop.shape, null, device=drop.device) if cond is None else cond.masked_fill(drop, null)
        return Signals(vector=self.table(label))                  # [B, D]
