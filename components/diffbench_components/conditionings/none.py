"""No condition at all."""

from dataclasses import dataclass

from torch import Tensor, nn

from diffbench import Condition, Conditioning, Io, Signals


@dataclass(frozen=True, kw_only=True)
class None_(Conditioning):
    """No condition: the network sees the image and the noise level only."""

    default_of_kind = True

    def build(self, io: Io) -> nn.Module:
        return _Silent()


class _Silent(nn.Module):
    def forward(self, cond: Condition | None, drop: Tensor) -> Signals:
        return Signals()
