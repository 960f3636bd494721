"""MNIST through torchvision."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from diffbench import DataError, Dataset, Split, incidental_option, split_indices

MD5 = {                                                       # as published with the data
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@dataclass(frozen=True, kw_only=True)
class Mnist(Dataset):
    """70,000 grey images of handwritten digits in ten classes, 28x28 pixels, padded with black to 32x32 by default.

    Splits: train is the published training set (or a stratified part of it), reference and held out are the two stratified halves
    of the published test set, 5,000 images each. The files lie in DIFFBENCH_DATA (`--data-root`), in torchvision's layout MNIST/raw.
    Source: LeCun, Cortes & Burges 1998; CC BY-SA 3.0.
    """

    pad: bool = True                                          # to 32x32, which four halvings divide; false leaves 28x28
    train_count: Annotated[int, Interval(ge=100, le=60_000)] = 60_000     # training images used, stratified by class
    download: bool = incidental_option(False)                 # fetch missing files through torchvision

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (1, 32, 32) if self.pad else (1, 28, 28)

    @property
    def classes(self) -> int:
        return 10

    def fingerprint(self) -> str:
        raw = self._root() / "MNIST" / "raw"
        if self.download and not all((raw / name).is_file() for name in MD5):
            self._published(train=True)
        whole = hashlib.sha256()
        for name, expected in MD5.items():
            path = raw / name
            if not path.is_file():
                raise DataError(f"mnist: {name} is not in {raw}; say where the data lie with --data-root or DIFFBENCH_DATA, "
                                "or write 'mnist: {download: true}'")
            content = path.read_bytes()
            found = hashlib.md5(content, usedforsecurity=False).hexdigest()
            if found != expected:
                raise DataError(f"mnist: {path} is damaged: its MD5 is {found}, the published one {expected}; delete it and fetch it again")
            whole.update(content)
        return whole.hexdigest()

    def load(self) -> dict[str, Split]:
        images, labels = self._published(train=True)
        share = self.train_count / len(images)
        used = split_indices(labels, {"train": share, "rest": 1 - share})["train"] if share < 1 else torch.arange(len(images))
        test_images, test_labels = self._published(train=False)
        halves = split_indices(test_labels, {"reference": 0.5, "held_out": 0.5})
        splits = {"train": Split(images=images[used], labels=labels[used])}
        return splits | {name: Split(images=test_images[index], labels=test_labels[index]) for name, index in halves.items()}

    def _published(self, *, train: bool) -> tuple[Tensor, Tensor]:
        from torchvision.datasets import MNIST

        try:
            source = MNIST(str(self._root()), train=train, download=self.download)
        except (RuntimeError, OSError) as error:
            raise DataError(f"mnist cannot be read from {self._root()}: {error}") from error
        images = source.data[:, None]                         # [N, 1, 28, 28]
        return torch.nn.functional.pad(images, (2, 2, 2, 2)) if self.pad else images, source.targets

    def _root(self) -> Path:
        return Path(os.environ.get("DIFFBENCH_DATA") or Path.home() / ".cache" / "diffbench")
