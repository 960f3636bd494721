"""Images whose distribution is known."""

import hashlib
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from numpy.random import Philox
from torch import Tensor

from diffbench import Dataset, Split

COUNTS = {"train": 4000, "reference": 2000, "held_out": 2000}


@dataclass(frozen=True, kw_only=True)
class GaussianMixture(Dataset):
    """A Gaussian mixture whose density is known: grey images, the component is the label.

    x_0 = mean_k + std z, component k uniform; size x size pixels, 4,000 / 2,000 / 2,000 images.
    mean_k(row, column) = separation cos(pi a_k (row + 1/2)/size) cos(pi b_k (column + 1/2)/size): smooth waves, (a, b)
    = (0, 1), (1, 0), (0, 2), ..., orthogonal to each other. Labels go round (image i has label i mod K), so each split
    has each component equally often, and the splits are independent draws.
    Values are clipped to [-1, 1] and rounded to 0..255. The rounding adds a variance of (2/255)²/12 per pixel; the
    clipping changes next to nothing while separation + 3 std < 1.
    `means` [K, H, W], `std` and `weights` [K] are the truth before that; `pixel_moments` is that of the pixels as
    stored, exactly.
    """

    size: Annotated[int, Interval(ge=4, le=64)] = 8           # height and width
    components: Annotated[int, Interval(ge=2, le=12)] = 4     # K, how many Gaussians there are, each a class
    separation: Annotated[float, Interval(gt=0, le=1)] = 0.6  # amplitude of the means
    std: Annotated[float, Interval(ge=0.02, le=1)] = 0.1      # of every pixel around its mean; below 0.02 rounding
                                                              # would make copies
    draw: Annotated[int, Interval(ge=0, lt=2**63)] = 0        # seed of the images

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
        waves = [(a, b) for total in range(1, 8) for a in range(total + 1) for b in [total - a] if max(a, b) < 4][
            : self.components]
        return torch.stack([self.separation * torch.outer((a * place).cos(), (b * place).cos()) for a, b in waves])

    @property
    def weights(self) -> Tensor:
        """Shares of the components, float64 [K]."""
        return torch.full((self.components,), 1 / self.components, dtype=torch.float64)

    @property
    def pixel_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each pixel of component k as stored, clipped and rounded, on the scale of [-1, 1];
        float64 [K, H, W] each.

        Level v_i = i/127.5 - 1, i = 0..255, has the probability of the values that are rounded to it; the outermost
        take all beyond.
        """
        levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1                       # [256]
        inner_edges = (levels[1:] + levels[:-1]) / 2                                      # [255]
        below = torch.special.ndtr((inner_edges - self.means[..., None]) / self.std)      # [K, H, W, 255]
        p = torch.diff(below, prepend=torch.zeros_like(below[..., :1]), append=torch.ones_like(below[..., :1]))
        mean = (p * levels).sum(-1)
        return mean, (p * (levels - mean[..., None]).square()).sum(-1)

    def fingerprint(self) -> str:
        whole = hashlib.sha256()
        for split in self.load().values():
            whole.update(split.images.numpy().tobytes() + split.labels.numpy().astype("<i8").tobytes())
        return whole.hexdigest()

    def load(self) -> dict[str, Split]:
        return {name: self._split(count, index) for index, (name, count) in enumerate(COUNTS.items())}

    def _split(self, count: int, index: int) -> Split:
        labels = torch.arange(count) % self.components
        x_0 = self.means[labels] + self.std * self._normal(index, count)                  # [N, H, W]
        return Split(images=((x_0.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)[:, None], labels=labels)

    def _normal(self, index: int, count: int) -> Tensor:
        """Standard normal numbers, float64 [count, H, W], the same on every processor and with every version of a
        library.

        torch.randn is not: its stream depends on the processor's vector instructions. NumPy's raw Philox bits are a
        fixed stream.
        """
        bits = Philox(key=[self.draw, index]).random_raw(count * self.size**2)
        u = ((bits >> 11).astype("float64") + 0.5) * 2.0**-53                             # in (0, 1)
        return torch.special.ndtri(torch.from_numpy(u)).reshape(count, self.size, self.size)
