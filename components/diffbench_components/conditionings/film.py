"""Feature-wise modulation by a label."""

from dataclasses import dataclass

from torch import Tensor, nn

from diffbench import Condition, Conditioning, Io, Signals
from diffbench_components.conditionings.labels import LabelTable, needs_labels


@dataclass(frozen=True, kw_only=True)
class Film(Conditioning):
    """FiLM: a learned vector per label scales and shifts the features of every block.

    It is AdaGN in the U-Net and adaLN in the DiT.
    Label K (one past the last) is the null condition; a network trained without condition dropout never learns it.
    Source: Perez et al. 2018, arXiv:1709.07871; AdaGN: Dhariwal & Nichol 2021, arXiv:2105.05233, section 3.
    """

    @property
    def ports(self) -> frozenset[str]:
        return frozenset({"vector"})

    def why_not(self, cell):
        return needs_labels("film", cell)

    def build(self, io: Io) -> nn.Module:
        return _LabelVector(io)


class _LabelVector(nn.Module):
    def __init__(self, io: Io):
        super().__init__()
        self.labels = LabelTable(io.classes, io.signal_width, std=0.02)

    def forward(self, cond: Condition | None, drop: Tensor) -> Signals:
        return Signals(vector=self.labels(cond, drop))            # [B, D]
