"""Pixels as features."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from diffbench import Extractor, Progress, Split, silent


@dataclass(frozen=True, kw_only=True)
class Pixels(Extractor):
    """The pixels themselves, averaged to at most size x size; nothing is fitted.

    Features lie in [0, 1], and no labels are needed.
    For data whose distribution is known in pixels, such as `gaussian_mixture`, and as a check of the others. They say
    little of how images look: a shift by one pixel is far away.
    """

    size: Annotated[int, Ge(1)] = 8                           # largest height and width; d is at most C size²

    def feature_count(self, image_shape: tuple[int, int, int]) -> int:
        channels, height, width = image_shape
        return channels * min(self.size, height) * min(self.size, width)

    def fit(self, train: Split, seed: int, device: torch.device, progress: Progress = silent) -> tuple[
            dict[str, Tensor], dict[str, float | str]]:
        return {}, {}

    def features(self, weights: Mapping[str, Tensor], images: Tensor, device: torch.device) -> Tensor:
        height, width = (min(self.size, side) for side in images.shape[2:])
        scaled = images.to(device).double() / 255
        return F.adaptive_avg_pool2d(scaled, (height, width)).flatten(1).cpu()            # [N, d]
