"""MNIST, in torchvision's layout."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from diffbench import Dataset, Split, incidental_option
from diffbench_components.datasets.published import content_hash, grey_images, published_splits, verified

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
        return content_hash(self._files())

    def load(self) -> dict[str, Split]:
        train_images, train_labels, test_images, test_labels = self._files().values()
        train = grey_images(train_images, train_labels, pad=self.pad)
        return published_splits(train, grey_images(test_images, test_labels, pad=self.pad), self.train_count)

    def _files(self) -> dict[str, bytes]:
        return verified("mnist", "MNIST/raw", MD5, _fetch if self.download else None)


def _fetch(root: Path) -> None:
    from torchvision.datasets import MNIST

    MNIST(str(root), download=True)
