"""CIFAR-10 through torchvision."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from diffbench import DataError, Dataset, Split, incidental_option
from diffbench_components.datasets.published import content_hash, data_root, published_splits, verified

FOLDER = "cifar-10-batches-py"
MD5 = {                                                       # of the files in the published archive, as torchvision has them
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}


@dataclass(frozen=True, kw_only=True)
class Cifar10(Dataset):
    """60,000 colour images of animals and vehicles in ten classes, 32x32 pixels.

    Splits: train is the published training set (or a stratified part of it), reference and held out are the two stratified halves
    of the published test set, 5,000 images each, less the test images that are copies of others. The files lie in DIFFBENCH_DATA
    (`--data-root`), in torchvision's layout cifar-10-batches-py.
    The published files are Python pickles, which can run code when they are opened. torchvision alone opens them, and only after
    each has the published MD5, that is, after its content is known to be the published one to the last byte.
    Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
    """

    train_count: Annotated[int, Interval(ge=100, le=50_000)] = 50_000     # training images used, stratified by class
    download: bool = incidental_option(False)                 # fetch missing files through torchvision

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (3, 32, 32)

    @property
    def classes(self) -> int:
        return 10

    def fingerprint(self) -> str:
        return content_hash(self._files())

    def load(self) -> dict[str, Split]:
        self._files()                                         # before anything is opened
        return published_splits(_opened(train=True), _opened(train=False), self.train_count)

    def _files(self) -> dict[str, bytes]:
        return verified("cifar10", FOLDER, MD5, _fetch if self.download else None)


def _opened(*, train: bool) -> tuple[Tensor, Tensor]:
    """(images uint8 [N, 3, 32, 32], labels int64 [N])."""
    from torchvision.datasets import CIFAR10

    try:
        source = CIFAR10(str(data_root()), train=train)
    except (RuntimeError, OSError) as error:
        raise DataError(f"cifar10: torchvision cannot read {data_root() / FOLDER}: {error}") from error
    return torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(source.targets)


def _fetch(root: Path) -> None:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import download_and_extract_archive

    download_and_extract_archive(CIFAR10.url, str(root), filename=CIFAR10.filename, md5=CIFAR10.tgz_md5)
