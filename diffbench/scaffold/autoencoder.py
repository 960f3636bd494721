"""Squares of pixels as channels."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from diffbench import Autoencoder, Cell, Encoded


@dataclass(frozen=True, kw_only=True)
class Newcomer(Autoencoder):
    """Space to depth: [C, H, W] to [C side², H/side, W/side], without loss. side = 1 is `none`."""

    side: Annotated[int, Ge(1)] = 2   # pixels of a square's side

    @property
    def bounds(self) -> tuple[float, float]:
        return -1.0, 1.0

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        channels, height, width = shape
        return channels * self.side**2, height // self.side, width // self.side

    def module(self, shape: tuple[int, ...]) -> nn.Module:
        return _Squares(self.side)

    def why_not(self, cell: Cell) -> str | None:
        _, height, width = cell.dataset.shape
        if height % self.side or width % self.side:
            return f"{height}x{width} is not made of squares of {self.side}x{self.side}"
        return None


class _Squares(nn.Module):
    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def encode(self, x: Tensor) -> Encoded:
        return Encoded(F.pixel_unshuffle(x, self.side))

    def decode(self, z: Tensor) -> Tensor:
        return F.pixel_shuffle(z, self.side)
