"""Every rectangle that fits a small image."""

import hashlib
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from diffbench import Dataset, Split

# half of the images teach, a quarter is the reference, a quarter is seen by nobody
SPLITS = ("train", "train", "reference", "held_out")


@dataclass(frozen=True, kw_only=True)
class Newcomer(Dataset):
    """All white rectangles on black, size x size pixels, each once: (size (size + 1)/2)² images. Label 1: wider than
    high; 0: the others.

    Rows a..b and columns c..d are white; the splits are dealt out by the numbers of the two intervals, so none is short
    of any shape.
    """

    size: Annotated[int, Interval(ge=4, le=16)] = 8       # height and width; 1,296 images of 8x8

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (1, self.size, self.size)

    @property
    def classes(self) -> int:
        return 2

    def fingerprint(self) -> str:
        """Part of the key of all that is learnt from these images: other images, another key."""
        whole = hashlib.sha256()
        for split in self.load().values():
            whole.update(split.images.numpy().tobytes() + split.labels.numpy().astype("<i8").tobytes())
        return whole.hexdigest()

    def load(self) -> dict[str, Split]:
        place = torch.arange(self.size)
        intervals = torch.combinations(place, 2, with_replacement=True)               # [I, 2], I = size (size + 1)/2
        covers = (place >= intervals[:, :1]) & (place <= intervals[:, 1:])            # [I, size]
        length, number = covers.sum(1), torch.arange(len(intervals))
        rows, columns = torch.meshgrid(number, number, indexing="ij")
        rows, columns = rows.flatten(), columns.flatten()                             # [I²] each
        images = (255 * (covers[rows, :, None] & covers[columns, None, :])).to(torch.uint8)[:, None]     # [I², 1, H, W]
        labels = (length[columns] > length[rows]).long()
        turn = (rows + columns) % len(SPLITS)
        return {name: self._dealt(images, labels, torch.isin(
            turn, torch.tensor([i for i, n in enumerate(SPLITS) if n == name])))
                for name in dict.fromkeys(SPLITS)}

    @staticmethod
    def _dealt(images: Tensor, labels: Tensor, mine: Tensor) -> Split:
        return Split(images=images[mine], labels=labels[mine])
