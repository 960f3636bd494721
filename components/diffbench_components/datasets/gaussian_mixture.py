"""Images whose distribution is known."""

import hashlib
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from diffbench import Dataset, Split

COUNTS = {"train": 4000, "reference": 2000, "held_out": 2000}
VERSION = 1                           # raised when the same options give other images


@dataclass(frozen=True, kw_only=True)
class GaussianMixture(Dataset):
    """x_0 = mean_k + std z, component k uniform and known as the label; grey images of size x size pixels, 4,000 / 2,000 / 2,000.

    mean_k(row, column) = separation cos(pi a_k (row + 1/2)/size) cos(pi b_k (column + 1/2)/size): smooth waves, (a, b) = (0, 1), (1, 0), (0, 2), ...,
    orthogonal to each other. Values in [-1, 1] become 0..255 by rounding, which adds a variance of (2/255)²/12 per pixel; values
    beyond 1 are clipped, so keep separation + 3 std below 1 for the closed form to hold.
    `means` [K, H, W] and `std` are the truth that samples can be compared with.
    """

    size: Annotated[int, Interval(ge=4, le=64)] = 8           # height and width
    components: Annotated[int, Interval(ge=2, le=12)] = 4     # K
    separation: Annotated[float, Gt(0)] = 0.6                 # amplitude of the means
    std: Annotated[float, Gt(0)] = 0.1                        # of every pixel around its mean
    draw: Annotated[int, Ge(0)] = 0                           # seed of the images

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (1, self.size, self.size)

    @property
    def classes(self) -> int:
        return self.components

    @property
    def means(self) -> Tensor:
        """float64 [K, H, W], in [-1, 1]."""
        place = (torch.arange(self.size, dtype=torch.float64) + 0.5) * torch.pi / self.size
        waves = [(a, b) for total in range(1, 8) for a in range(total + 1) for b in [total - a] if max(a, b) < 4][: self.components]
        return torch.stack([self.separation * torch.outer((a * place).cos(), (b * place).cos()) for a, b in waves])

    def fingerprint(self) -> str:
        return hashlib.sha256(f"gaussian_mixture {VERSION} {self!r}".encode()).hexdigest()

    def load(self) -> dict[str, Split]:
        return {name: self._split(count, index) for index, (name, count) in enumerate(COUNTS.items())}

    def _split(self, count: int, index: int) -> Split:
        labels = torch.arange(count) % self.components
        generator = torch.Generator().manual_seed(3 * self.draw + index)
        z = torch.randn(count, self.size, self.size, dtype=torch.float64, generator=generator)
        x_0 = self.means[labels] + self.std * z                                           # [N, H, W]
        return Split(images=((x_0.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)[:, None], labels=labels)
