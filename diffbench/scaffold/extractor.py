"""Brightness and contrast of the parts of an image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from diffbench import Extractor, Progress, Split, silent


@dataclass(frozen=True, kw_only=True)
class Newcomer(Extractor):
    """Mean and standard deviation of the pixels in each of cells x cells parts of each channel, in [0, 1]: d = 2 C
    cells².

    Nothing is fitted. A distance on these features has the column `fd_newcomer`; the name `fid` is Inception's alone.
    """

    cells: Annotated[int, Ge(1)] = 4                  # parts along each edge; fewer where the image has fewer pixels

    def fit(self, train: Split, seed: int, device: torch.device, progress: Progress = silent) -> tuple[
            dict[str, Tensor], dict[str, float | str]]:
        """(weights by name, facts about the fit):
        an extractor that learns does it here, once for all cells of a matrix.
        """
        return {}, {}

    def features(self, weights: Mapping[str, Tensor], images: Tensor, device: torch.device) -> Tensor:
        x = images.to(device).double() / 255                                          # [N, C, H, W]
        cells = tuple(min(self.cells, side) for side in x.shape[2:])
        mean = F.adaptive_avg_pool2d(x, cells)                                        # [N, C, cells, cells]
        # Rounding may bring the variance of a constant part a little below 0.
        std = (F.adaptive_avg_pool2d(x**2, cells) - mean**2).clamp(min=0).sqrt()
        return torch.cat([mean.flatten(1), std.flatten(1)], dim=1).cpu()              # [N, d]
