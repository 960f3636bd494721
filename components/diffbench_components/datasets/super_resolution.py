"""Images with a smaller copy of themselves as their condition."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from diffbench import DataError, Dataset, Split


@dataclass(frozen=True, kw_only=True)
class SuperResolution(Dataset):
    """Super-resolution: the images of another data set, each under a small copy of itself.

    The condition of each image is its average over blocks of factor x factor pixels.
    Labels are the inner data set's: a judge may read them, the network is told the small image only. Samples are drawn
    under the small images of the reference split, which no training has seen.
    Source: Saharia et al. 2021, arXiv:2104.07636 (SR3), there with bicubic reduction.
    """

    inner: Dataset                                            # the images
    factor: Annotated[int, Ge(2)] = 2                         # how many times smaller the condition is

    examples = ({"inner": "digits"},)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.inner.image_shape

    @property
    def classes(self) -> int | None:
        return self.inner.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.inner.class_names

    @property
    def condition_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.image_shape
        return (channels, height // self.factor, width // self.factor)

    def why_not(self, cell):
        return self._misfit() or self.inner.why_not(cell)

    def fingerprint(self) -> str:
        return self.inner.fingerprint()

    def remark(self) -> str:
        return self.inner.remark()

    def load(self) -> dict[str, Split]:
        if misfit := self._misfit():
            raise DataError(misfit)
        return {name: replace(split, conditions=self._reduced(split.in_memory().images))
                for name, split in self.inner.load().items()}

    def _reduced(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] to [N, C, h, w]: the block's mean, in whole numbers, halves rounded up."""
        _, height, width = self.condition_shape
        # [N, C, h, f, w, f]
        blocks = images.unflatten(3, (width, self.factor)).unflatten(2, (height, self.factor))
        area = self.factor**2
        return ((2 * blocks.sum((3, 5), dtype=torch.int32) + area) // (2 * area)).to(torch.uint8)

    def _misfit(self) -> str | None:
        _, height, width = self.image_shape
        if height % self.factor or width % self.factor:
            return f"super_resolution reduces by {self.factor}, and {height}x{width} is not divisible by it"
        if self.inner.condition_shape is not None:
            return (f"super_resolution around {self.inner.component_name()} would replace the image that is its "
                    "condition")
        return None
