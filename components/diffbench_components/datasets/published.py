"""What data sets that come as published files share: where they lie, whether they are whole, and how they are split."""

import gzip
import hashlib
import os
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy
import torch
from annotated_types import Interval
from torch import Tensor

from diffbench import DataError, Dataset, Split, incidental_option, split_indices, user_path


def data_root() -> Path:
    """Folder of published data: DIFFBENCH_DATA (`--data-root`), else the user's cache."""
    return user_path(os.environ.get("DIFFBENCH_DATA") or "~/.cache/diffbench")


def verified(name: str, folder: Path, md5s: dict[str, str], fetch: Callable[[], object] | None) -> dict[str, bytes]:
    """The content of the published files of a data set, each compared with its MD5; raises DataError with what to do.
    """
    if fetch is not None and not all((folder / file).is_file() for file in md5s):
        try:
            fetch()
        except (RuntimeError, OSError, EOFError) as error:    # RuntimeError is how torchvision reports a wrong MD5
            raise DataError(f"{name} cannot be fetched into {folder}: {error}; put the files there yourself") from error
    contents = {}
    for file, expected in md5s.items():
        path = folder / file
        if not path.is_file():
            raise DataError(f"{name}: {file} is not in {folder}; say where the data lie with --data-root or "
                            f"DIFFBENCH_DATA, or write '{name}: {{download: true}}'")
        contents[file] = path.read_bytes()
        md5 = hashlib.md5(contents[file], usedforsecurity=False).hexdigest()
        if md5 != expected:
            raise DataError(f"{name}: {path} is damaged: its MD5 is {md5}, the published one {expected}; delete it "
                            "and fetch it again")
    return contents


def split_published(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], train_count: int) -> dict[str, Split]:
    """Train: the published training set or a stratified part of it; reference and held out: stratified halves of the
    test set.

    train, test: (images uint8 [N, C, H, W], labels int64 [N]). A test image with the very pixels of a training image,
    or of an earlier test image, is left out: the splits share no image, so a half may be a few images short.
    """
    images, labels = train
    share = train_count / len(images)
    used = split_indices(labels, {"train": share, "rest": 1 - share})[
        "train"] if share < 1 else torch.arange(len(images))
    seen, new = {image.tobytes() for image in images.numpy()}, []
    for i, image in enumerate(test[0].numpy()):
        if (pixels := image.tobytes()) not in seen:
            seen.add(pixels)
            new.append(i)
    test_images, test_labels = (part[torch.tensor(new, dtype=torch.int64)] for part in test)
    halves = split_indices(test_labels, {"reference": 0.5, "held_out": 0.5})
    splits = {"train": Split(images=images[used], labels=labels[used])}
    return splits | {half: Split(images=test_images[index], labels=test_labels[index])
                     for half, index in halves.items()}


@dataclass(frozen=True, kw_only=True)
class IdxImages(Dataset):
    """70,000 grey images in ten classes, 28x28 pixels, in the four IDX files of MNIST's format."""

    pad: bool = True                                          # to 32x32, which four halvings divide; false leaves 28x28
    train_count: Annotated[int, Interval(ge=100, le=60_000)] = 60_000     # training images used, stratified by class
    download: bool = incidental_option(False)                 # fetch missing files through torchvision

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (1, 32, 32) if self.pad else (1, 28, 28)

    @property
    def classes(self) -> int:
        return 10

    @abstractmethod
    def files(self) -> dict[str, str]:
        """MD5 by file name: training images, training labels, test images, test labels, in this order."""

    @abstractmethod
    def torchvision_class(self) -> type:
        """The class of torchvision that knows where the files are fetched from."""

    def fingerprint(self) -> str:
        whole = hashlib.sha256()
        for content in self._contents().values():
            whole.update(content)
        return whole.hexdigest()

    def load(self) -> dict[str, Split]:
        train_images, train_labels, test_images, test_labels = (_idx(content) for content in self._contents().values())
        return split_published((self._padded(train_images), train_labels.long()),
                               (self._padded(test_images), test_labels.long()), self.train_count)

    def _contents(self) -> dict[str, bytes]:
        folder = data_root() / self.folder() / "raw"
        contents = verified(self.component_name(), folder, self.files(),
                            (lambda: self._fetch(folder)) if self.download else None)
        return {file: gzip.decompress(content) if file.endswith(".gz") else content
                for file, content in contents.items()}

    @abstractmethod
    def folder(self) -> str:
        """Its folder in the data root, torchvision's name for it."""

    def _fetch(self, folder: Path) -> None:
        """All files from the first of torchvision's mirrors that has them;
        each .gz stays beside what it holds, as torchvision leaves it.
        """
        from torchvision.datasets.utils import download_and_extract_archive

        source, failures = self.torchvision_class(), []
        for mirror in source.mirrors:
            try:
                for file, md5 in source.resources:
                    download_and_extract_archive(mirror + file, download_root=str(folder), filename=file, md5=md5)
                return
            except (RuntimeError, OSError) as error:
                failures.append(f"{mirror}: {error}")
        raise OSError("; ".join(failures))

    def _padded(self, images: Tensor) -> Tensor:
        # [N, 1, H, W]
        return torch.nn.functional.pad(images[:, None], (2, 2, 2, 2)) if self.pad else images[:, None]


def _idx(content: bytes) -> Tensor:
    """A file in IDX format as uint8: two zero bytes, the type (8, unsigned bytes), the number of dimensions,
    their sizes big-endian, the data.
    """
    if content[:3] != b"\0\0\x08":
        raise DataError(f"an IDX file of unsigned bytes begins with 0, 0, 8, found {list(content[:3])}")
    shape = numpy.frombuffer(content, ">i4", content[3], offset=4)
    return torch.from_numpy(numpy.frombuffer(content, numpy.uint8, offset=4 + 4 * content[3]).reshape(shape).copy())
