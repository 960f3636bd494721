"""CIFAR-10."""

import hashlib
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from diffbench import DataError, Dataset, Split, incidental_option
from diffbench_components.datasets.published import data_root, split_published, verified


@dataclass(frozen=True, kw_only=True)
class Cifar10(Dataset):
    """60,000 colour images of 32x32 pixels in ten classes.

    Splits: train is the published training set of 50,000 (or a stratified part of it), reference and held out are the
    two stratified halves of the published test set, 5,000 images each, less test images that are copies of others. The
    Python version of the data lies in DIFFBENCH_DATA (`--data-root`), in torchvision's layout cifar-10-batches-py. Its
    files are pickles, which can run code when they are opened: torchvision alone opens them, and only after each was
    found to be the published one, by its MD5.
    Source: Krizhevsky 2009, Learning multiple layers of features from tiny images.
    """

    train_count: Annotated[int, Interval(ge=100, le=50_000)] = 50_000     # training images used, stratified by class
    download: bool = incidental_option(False)                             # fetch missing files through torchvision

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (3, 32, 32)

    @property
    def classes(self) -> int:
        return 10

    def fingerprint(self) -> str:
        from torchvision.datasets import CIFAR10
        from torchvision.datasets.utils import download_and_extract_archive

        # CIFAR10(download=True) would also open what it fetched
        def fetch():
            download_and_extract_archive(CIFAR10.url, str(data_root()), filename=CIFAR10.filename, md5=CIFAR10.tgz_md5)

        md5s = dict([*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])])
        whole = hashlib.sha256()
        for content in verified("cifar10", data_root() / CIFAR10.base_folder, md5s,
                                fetch if self.download else None).values():
            whole.update(content)
        return whole.hexdigest()

    def load(self) -> dict[str, Split]:
        # nothing is unpickled that is not the published file
        self.fingerprint()
        return split_published(self._published(train=True), self._published(train=False), self.train_count)

    def _published(self, *, train: bool) -> tuple[Tensor, Tensor]:
        from torchvision.datasets import CIFAR10

        try:
            source = CIFAR10(str(data_root()), train=train)
        except (RuntimeError, OSError) as error:
            raise DataError(f"cifar10: torchvision cannot read {data_root() / CIFAR10.base_folder}: {error}") from error
        # [N, 3, 32, 32]
        return torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(source.targets)
