"""Fashion-MNIST, in torchvision's layout."""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from diffbench import Dataset, Split, incidental_option
from diffbench_components.datasets.published import content_hash, grey_images, published_splits, verified

FOLDER = "FashionMNIST/raw"
MD5 = {                                                       # as published with the data, of the compressed files
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}


@dataclass(frozen=True, kw_only=True)
class FashionMnist(Dataset):
    """70,000 grey images of clothes in ten classes, 28x28 pixels, padded with black to 32x32 by default.

    Splits: train is the published training set (or a stratified part of it), reference and held out are the two stratified halves
    of the published test set, 5,000 images each, less the test images that are copies of others. The files lie in DIFFBENCH_DATA
    (`--data-root`), in torchvision's layout FashionMNIST/raw; the compressed ones are read, since their MD5s are published.
    Source: Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747; MIT licence.
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
        train_images, train_labels, test_images, test_labels = map(gzip.decompress, self._files().values())
        train = grey_images(train_images, train_labels, pad=self.pad)
        return published_splits(train, grey_images(test_images, test_labels, pad=self.pad), self.train_count)

    def _files(self) -> dict[str, bytes]:
        return verified("fashion_mnist", FOLDER, MD5, _fetch if self.download else None)


def _fetch(root: Path) -> None:
    from torchvision.datasets import FashionMNIST
    from torchvision.datasets.utils import download_url

    for file, md5 in MD5.items():                             # not FashionMNIST(download=True), which is content with the uncompressed files
        download_url(FashionMNIST.mirrors[0] + file, str(root / FOLDER), file, md5)
