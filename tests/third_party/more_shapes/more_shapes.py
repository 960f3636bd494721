"""Plane waves, and how many directions of feature space samples fill."""

import hashlib
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval

from diffbench import Dataset, Evidence, Extractor, Measured, Real, SampleMetric, Split, blocks_of, jackknifed

SPLITS = {"train": 1200, "reference": 600, "held_out": 600}
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, kw_only=True)
class Stripes(Dataset):
    """x_0(row, column) = cos(2 pi (f u + p)), u along the direction of the label; grey images of size x size pixels, 1,200 / 600 / 600.

    Label k has the direction pi k/directions. Frequency f, in [1, 2] waves per image, and phase p follow two additive recurrences with irrational
    steps over all splits: they fill their square evenly, no two images are equal, and nothing is drawn.
    """

    size: Annotated[int, Interval(ge=8, le=64)] = 8           # height and width
    directions: Annotated[int, Interval(ge=2, le=12)] = 4     # number of labels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (1, self.size, self.size)

    @property
    def classes(self) -> int:
        return self.directions

    def fingerprint(self) -> str:
        whole = hashlib.sha256()
        for split in self.load().values():
            whole.update(split.images.numpy().tobytes() + split.labels.numpy().astype("<i8").tobytes())
        return whole.hexdigest()

    def load(self) -> dict[str, Split]:
        first, splits = 0, {}
        for name, count in SPLITS.items():
            splits[name], first = self._split(torch.arange(first, first + count)), first + count
        return splits

    def _split(self, number: torch.Tensor) -> Split:
        labels = number % self.directions
        angle = math.pi * labels.double() / self.directions
        frequency, phase = 1 + (number * GOLDEN) % 1, (number * math.sqrt(2)) % 1     # [N] each
        place = (torch.arange(self.size, dtype=torch.float64) + 0.5) / self.size
        u = angle.cos()[:, None, None] * place + angle.sin()[:, None, None] * place[:, None]              # [N, H, W]
        x_0 = torch.cos(2 * math.pi * (frequency[:, None, None] * u + phase[:, None, None]))
        return Split(images=((x_0 + 1) * 127.5).round().to(torch.uint8)[:, None], labels=labels)


@dataclass(frozen=True, kw_only=True)
class RankKept(SampleMetric):
    """Effective rank of the generated features over that of the reference: 1 where samples vary in as many directions, less where modes are lost.

    Effective rank: exp of the entropy of the covariance's eigenvalues, normalised to sum 1; between 1 and d.
    Source: Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality".
    """

    higher_is_better: ClassVar[bool] = False          # above 1 is noise: further from 1 is worse on either side, and "" is |1 - ratio|

    def column(self, extractor: Extractor) -> str:
        return f"rank_kept{extractor.column_suffix}"

    def measure(self, generated: Evidence, real: Real) -> dict[str, Measured]:
        centred = real.reference.features.double() - real.reference.features.double().mean(0)
        whole = self._spread(centred)
        x = generated.features.double()
        ratio = self._spread(x - real.reference.features.double().mean(0)) / whole
        return {"": jackknifed(lambda kept: abs(1 - self._spread(x[kept] - real.reference.features.double().mean(0)) / whole), blocks_of(generated), len(x)),
                "_ratio": ratio}

    @staticmethod
    def _spread(centred: torch.Tensor) -> float:
        """Effective rank of rows seen from the centre of the reference, [N, d]."""
        share = torch.linalg.svdvals(centred).square()
        share = share / share.sum()
        return float(torch.special.entr(share).sum().exp())
