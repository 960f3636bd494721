"""Handwritten digits, 8x8, inside scikit-learn: real images without a download."""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch

from diffbench import DataError, Dataset, Split, split_indices

SHARES = {"train": 0.56, "reference": 0.22, "held_out": 0.22}


@dataclass(frozen=True, kw_only=True)
class Digits(Dataset):
    """1,797 grey images of 8x8 pixels in ten classes; 0..16 in the source becomes 0..255.

    Splits, stratified by class: 1,006 train, 396 reference, 395 held out. They are too few and too small for claims
    about large images; their worth is that everybody has them.
    Source: Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI; the test part, as scikit-learn ships
    it.
    """

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (1, 8, 8)

    @property
    def classes(self) -> int:
        return 10

    def fingerprint(self) -> str:
        return hashlib.sha256(self._file().read_bytes()).hexdigest()

    def load(self) -> dict[str, Split]:
        rows = torch.from_numpy(numpy.loadtxt(self._file(), delimiter=","))  # [N, 65]: 64 pixels, then the label
        images = (rows[:, :64] * (255 / 16)).round().to(torch.uint8).reshape(-1, 1, 8, 8)     # [N, 1, 8, 8]
        labels = rows[:, 64].long()
        return {name: Split(images=images[index], labels=labels[index])
                for name, index in split_indices(labels, SHARES).items()}

    def _file(self) -> Path:
        spec = importlib.util.find_spec("sklearn")           # found, not imported: that takes seconds
        path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz" if spec and spec.origin else None
        if path is None or not path.is_file():
            raise DataError(
                "digits comes inside scikit-learn, and its file datasets/data/digits.csv.gz is not there; reinstall "
                "scikit-learn"
            )
        return path
