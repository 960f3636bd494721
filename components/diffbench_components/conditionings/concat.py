"""The condition as further channels of the image."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from diffbench import Condition, Conditioning, Dataset, Io, Signals, per_sample
from diffbench_components.conditionings.labels import LabelTable, needs_condition

SIDE = 8                              # of the learned map of a label, enlarged to the image


@dataclass(frozen=True, kw_only=True)
class Concat(Conditioning):
    """Concatenation: the condition as maps stacked onto the noisy image.

    A condition that is an image is enlarged to its size; a label has a learned map of its own.
    Images are enlarged bilinearly, as for super-resolution; a label's map is 8x8 numbers per channel, enlarged in the
    same way. The null condition is one learned number per channel for an image, a map of its own for labels.
    Source: Saharia et al. 2021, arXiv:2104.07636 (SR3); label maps: Mirza & Osindero 2014, arXiv:1411.1784.
    """

    channels: Annotated[int, Ge(1)] = 4                           # maps per label; an image brings its own channels

    @property
    def ports(self) -> frozenset[str]:
        return frozenset({"maps"})

    def map_channels(self, dataset: Dataset) -> int:
        return self.channels if dataset.condition_shape is None else dataset.condition_shape[0]

    def why_not(self, cell):
        return needs_condition("concat", cell)

    def build(self, io: Io) -> nn.Module:
        return _LabelMaps(io) if io.condition_shape is None else _ImageMaps(io)


class _LabelMaps(nn.Module):
    def __init__(self, io: Io):
        super().__init__()
        self.size, self.side = (io.height, io.width), (min(SIDE, io.height), min(SIDE, io.width))
        self.labels = LabelTable(io.classes, io.map_channels * self.side[0] * self.side[1], std=1.0)

    def forward(self, cond: Condition | None, drop: Tensor) -> Signals:
        maps = self.labels(cond, drop).unflatten(1, (-1, *self.side))            # [B, C', 8, 8]
        return Signals(maps=_enlarged(maps, self.size))                          # [B, C', H, W]


class _ImageMaps(nn.Module):
    def __init__(self, io: Io):
        super().__init__()
        self.size = (io.height, io.width)
        self.null = nn.Parameter(torch.zeros(io.map_channels))

    def forward(self, cond: Condition | None, drop: Tensor) -> Signals:
        null = self.null[None, :, None, None].expand(len(drop), -1, *self.size)  # [B, C', H, W]
        if cond is None:
            return Signals(maps=null)
        return Signals(maps=torch.where(per_sample(drop, null), null, _enlarged(cond.image, self.size)))


def _enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if tuple(maps.shape[2:]) == size else F.interpolate(maps, size=size, mode="bilinear",
                                                                    align_corners=False)
