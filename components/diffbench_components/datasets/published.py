"""What data sets of published files share: where the files lie, the check of their MD5s, and the splits."""

import hashlib
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from diffbench import DataError, Split, split_indices


def data_root() -> Path:
    """DIFFBENCH_DATA (`--data-root`), or a cache in the home folder; below it torchvision's layout."""
    return Path(os.environ.get("DIFFBENCH_DATA") or Path.home() / ".cache" / "diffbench")


def verified(name: str, folder: str, md5: Mapping[str, str], fetch: Callable[[Path], object] | None) -> dict[str, bytes]:
    """The content of each file, in the order of `md5`, its MD5 compared with the published one.

    name: the data set's; folder: of its files, below the data root; md5: published sums by file name; fetch: given the data root,
    downloads what is missing, or None where nothing may be downloaded. Raises DataError that says what to do.
    """
    root = data_root()
    if fetch is not None and not all((root / folder / file).is_file() for file in md5):
        try:
            fetch(root)
        except (RuntimeError, OSError, EOFError) as error:    # RuntimeError is how torchvision reports a wrong MD5
            raise DataError(f"{name} cannot be downloaded to {root}: {error}; put the files into {root / folder} yourself") from error
    contents = {}
    for file, expected in md5.items():
        path = root / folder / file
        if not path.is_file():
            raise DataError(f"{name}: {file} is not in {path.parent}; say where the data lie with --data-root or DIFFBENCH_DATA, "
                            f"or write '{name}: {{download: true}}'")
        try:
            contents[file] = path.read_bytes()
        except OSError as error:
            raise DataError(f"{name}: {path} cannot be read: {error.strerror}") from error
        found = hashlib.md5(contents[file], usedforsecurity=False).hexdigest()
        if found != expected:
            raise DataError(f"{name}: {path} is damaged: its MD5 is {found}, the published one {expected}; delete it and fetch it again")
    return contents


def content_hash(contents: Mapping[str, bytes]) -> str:
    """SHA-256 (hex) of all files, one after the other."""
    whole = hashlib.sha256()
    for content in contents.values():
        whole.update(content)
    return whole.hexdigest()


def from_idx(content: bytes) -> Tensor:
    """An IDX file of bytes as uint8 of its shape: magic 00 00 08 and the number of axes, each length as big-endian int32, then the values.

    Source: LeCun, Cortes & Burges 1998, "The IDX file format".
    """
    lengths = [int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(content[3])]
    values = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=4 + 4 * len(lengths), count=math.prod(lengths))
    return values.reshape(lengths)


def grey_images(images: bytes, labels: bytes, *, pad: bool) -> tuple[Tensor, Tensor]:
    """(uint8 [N, 1, 28, 28], or [N, 1, 32, 32] with a border of black, and int64 [N]) of a pair of IDX files."""
    pixels = from_idx(images)[:, None]
    return torch.nn.functional.pad(pixels, (2, 2, 2, 2)) if pad else pixels, from_idx(labels).long()


def published_splits(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], train_count: int) -> dict[str, Split]:
    """Train: the published training images, or a stratified part of them; reference and held out: stratified halves of the test images.

    train, test: (images uint8 [N, C, H, W], labels int64 [N]). A test image whose pixels are also those of a training image, or
    of an earlier test image, is left out: the splits share no image, so a half may be some images short.
    """
    images, labels = train
    share = train_count / len(images)
    used = split_indices(labels, {"train": share, "rest": 1 - share})["train"] if share < 1 else torch.arange(len(images))
    splits = {"train": Split(images=images[used], labels=labels[used])}

    seen = {image.tobytes() for image in images.numpy()}
    new = []
    for i, image in enumerate(test[0].numpy()):
        pixels = image.tobytes()
        if pixels not in seen:
            seen.add(pixels)
            new.append(i)
    images, labels = (part[torch.tensor(new, dtype=torch.int64)] for part in test)
    halves = split_indices(labels, {"reference": 0.5, "held_out": 0.5})
    return splits | {name: Split(images=images[index], labels=labels[index]) for name, index in halves.items()}
