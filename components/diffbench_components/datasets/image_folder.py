"""A folder of one's own images."""

import functools
import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from diffbench import DataError, Dataset, OptionError, Split, incidental_option, split_indices
from diffbench_components.datasets.decoding import decoded

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
UNREAD = (".avif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg", ".tga")          # images as well, but not ours to decode
SHOWN = 20                                                    # unusable files, or classes, named in a message
FEWEST = 5                                                    # distinct images in all


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Dataset):
    """Images in a folder and the folders below it; with `labels`, the class is the name of the folder directly below `path`.

    Every file is looked at before anything is trained, and all that cannot be used are named together: damaged ones, links that
    lead out of the folder or to another folder, several pictures in one file, 32-bit pixels, with `labels` images that lie in
    no class's folder. Files whose ending is no image's are left alone. How each kind of file becomes 8-bit pixels, such as
    16-bit grey and transparency, is one rule each in `decoding`.
    Classes are the subfolders with at least one usable image, in alphabetical order. Splits are stratified by class, and every
    class must be in each. Images of equal pixels are kept, but stay together in one split, so that none is in two.
    """

    path: str = incidental_option()                           # the folder
    size: Annotated[int, Ge(4)] = 64                          # height and width of the images
    channels: Literal[1, 3] = 3                               # 1 grey, 3 colour
    resize: Literal["none", "crop"] = "none"                  # none: other sizes are refused; crop: shorter side to size, then the middle
    labels: bool = False                                      # class = name of the subfolder
    damaged: Literal["error", "skip"] = "error"               # what to do about files that cannot be used
    reference_share: Annotated[float, Interval(gt=0, lt=1)] = 0.2     # of the images that distances are measured to
    held_out_share: Annotated[float, Interval(gt=0, lt=1)] = 0.2      # of the images that give the floor

    def __post_init__(self):
        super().__post_init__()
        if self.reference_share + self.held_out_share >= 1:
            raise OptionError(f"reference_share and held_out_share must leave images to train on, got {self.reference_share} and {self.held_out_share}")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.channels, self.size, self.size)

    @property
    def classes(self) -> int | None:
        return len(self._class_names()) if self.labels else None

    def fingerprint(self) -> str:
        pairs = self._images()
        self._cut(pairs)                                      # so that too few images are found before anything is trained
        whole = hashlib.sha256()
        for path, _ in pairs:
            whole.update(os.fsencode(path.relative_to(self._root())) + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        return whole.hexdigest()

    def load(self) -> dict[str, Split]:
        pairs = self._images()
        cut, labels = self._cut(pairs)
        images = torch.stack([image for _, image in pairs])   # [N, C, H, W]
        return {name: Split(images=images[index], labels=None if labels is None else labels[index]) for name, index in cut.items()}

    def _root(self) -> Path:
        root = Path(self.path).expanduser()
        if not root.is_dir():
            raise DataError(f"image_folder: {root.resolve()} is not a folder")
        return root

    def _class_of(self, path: Path) -> str:
        return path.relative_to(self._root()).parts[0]

    def _class_names(self) -> list[str]:
        files, _, _ = self._files()
        # Where every file must be usable, its name is enough; else each is decoded, once for each state of the folder.
        return list(_usable_classes(self, _state(files))) if self.damaged == "skip" else self._classes_of(files)

    def _classes_of(self, files: Iterable[Path]) -> list[str]:
        names = sorted({self._class_of(path) for path in files})
        if len(names) < 2:
            raise DataError(f"image_folder: labels: true takes the class from subfolders with images in them, and {self._root()} has {len(names)}; "
                            "make one per class")
        return names

    def _files(self) -> tuple[list[Path], list[str], Counter]:
        """(image files in order, what else was meant as an image and why it cannot be used, endings of the files left alone)."""
        root, unread = self._root(), []
        files, bad, ignored = [], [], Counter()
        for folder, folders, names in os.walk(root, onerror=unread.append):
            bad += [f"{self._shown(path)}: a link to a folder, which is not followed" for path in (Path(folder, f) for f in folders) if path.is_symlink()]
            for path in (Path(folder, name) for name in names):
                ending = path.suffix.lower()
                if ending in UNREAD:
                    bad.append(f"{self._shown(path)}: {ending} is not read; convert it to .png")
                elif ending not in SUFFIXES:
                    ignored[ending or "no ending"] += 1
                elif self.labels and path.parent == root:
                    bad.append(f"{self._shown(path)}: in no subfolder, from which labels: true takes the class")
                else:
                    files.append(path)
        bad += [f"{self._shown(Path(error.filename))}: {error.strerror}" for error in unread]
        return sorted(files), bad, ignored

    def _shown(self, path: Path) -> str:
        return os.fsencode(path.relative_to(self._root())).decode(errors="backslashreplace")

    def _images(self) -> list[tuple[Path, Tensor]]:
        """Every usable file with its image, uint8 [C, H, W]; raises DataError that names all that are not."""
        files, bad, ignored = self._files()
        count, good = len(files) + len(bad), []
        for path in files:
            try:
                good.append((path, self._image(path)))
            except ValueError as error:
                bad.append(f"{self._shown(path)}: {error}")
        left_alone = f" ({', '.join(f'{n} {ending}' for ending, n in sorted(ignored.items()))} left alone)" if ignored else ""
        if bad and self.damaged == "error":
            more = f"\n  and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
            raise DataError(f"image_folder: {len(bad)} of {count} files in {self._root()} are unusable{left_alone}; mend or remove them, "
                            f"or write 'damaged: skip':\n  " + "\n  ".join(sorted(bad)[:SHOWN]) + more)
        distinct = len(set(_digests(good)))
        if distinct < FEWEST:
            copies = f", {distinct} of them distinct" if distinct < len(good) else ""
            raise DataError(f"image_folder: {self._root()} has {len(good)} usable images{copies}, and three splits need at least {FEWEST}{left_alone}")
        return good

    def _image(self, path: Path) -> Tensor:
        """One file as uint8 [C, H, W]; raises ValueError with the reason where it cannot be used."""
        import numpy
        from PIL import Image, ImageOps

        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self._root())):
            raise ValueError("a link that leads out of the folder")
        picture = decoded(path, self.channels)
        if self.resize == "crop":
            picture = ImageOps.fit(picture, (self.size, self.size), Image.Resampling.LANCZOS)
        elif picture.size != (self.size, self.size):
            raise ValueError(f"{picture.width}x{picture.height} pixels, expected {self.size}x{self.size}; 'resize: crop' makes them alike")
        pixels = torch.from_numpy(numpy.array(picture))       # [H, W] or [H, W, 3]
        return pixels[None] if self.channels == 1 else pixels.permute(2, 0, 1).contiguous()

    def _cut(self, pairs: list[tuple[Path, Tensor]]) -> tuple[dict[str, Tensor], Tensor | None]:
        """(indices of each split, labels int64 [N] or None); equal images fall into the same split. Raises DataError where a class or a split goes empty."""
        shares = {"train": 1 - self.reference_share - self.held_out_share, "reference": self.reference_share, "held_out": self.held_out_share}
        digests = _digests(pairs)
        first = {digest: i for i, digest in reversed(list(enumerate(digests)))}
        originals = torch.tensor(sorted(first.values()))
        names = self._classes_of(path for path, _ in pairs) if self.labels else ["all images"]
        labels = torch.tensor([names.index(self._class_of(path)) if self.labels else 0 for path, _ in pairs])
        split_of = {int(originals[i]): name for name, index in split_indices(labels[originals], shares).items() for i in index}
        homes = [split_of[first[digest]] for digest in digests]
        cut = {name: torch.tensor([i for i, home in enumerate(homes) if home == name], dtype=torch.int64) for name in shares}
        present = torch.stack([torch.bincount(labels[index], minlength=len(names)) > 0 for index in cut.values()]).all(0)        # [K]
        if not present.all():
            distinct = torch.bincount(labels[originals], minlength=len(names))
            short = [f"{name} ({count})" for name, count, there in zip(names, distinct.tolist(), present.tolist(), strict=True) if not there]
            listed = ", ".join(short[:SHOWN]) + (f" and {len(short) - SHOWN} more" if len(short) > SHOWN else "")
            what = "each split needs images of every class" if self.labels else "each split needs images"
            raise DataError(f"image_folder: {what}, and too few distinct ones are in {self._root()}: {listed}; "
                            f"{math.ceil(2 / min(shares.values()))} always suffice; add some, or move a class's folder away")
        return cut, labels if self.labels else None


def _digests(pairs: list[tuple[Path, Tensor]]) -> list[bytes]:
    """What tells images apart: SHA-256 of the pixels."""
    return [hashlib.sha256(image.numpy().tobytes()).digest() for _, image in pairs]


def _state(files: list[Path]) -> str:
    """Changes whenever a file comes, goes or is written."""
    facts = ((os.fsencode(path), *((path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else ())) for path in files)
    return hashlib.sha256(repr(list(facts)).encode()).hexdigest()


@functools.lru_cache(maxsize=64)
def _usable_classes(dataset: ImageFolder, state: str) -> tuple[str, ...]:
    return tuple(dataset._classes_of(path for path, _ in dataset._images()))
