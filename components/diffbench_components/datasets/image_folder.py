"""A folder of one's own images."""

import functools
import hashlib
import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from diffbench import DataError, Dataset, OptionError, Split, incidental_option, split_indices, user_path
from diffbench_components.datasets.decoding import Decoded, decoded

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
# images as well, but not ours to decode
UNREAD = (".avif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg", ".tga")
SHOWN = 20                                                    # unusable files, or classes, named in a message
# Folders that file systems and archivers make, in lower case.
OF_SYSTEMS = ("__macosx", "@eadir", "@__thumb", "#recycle", "@recycle", "$recycle.bin", "system volume information",
              "lost+found")
KINDS = 8                                                     # sizes, or endings, named in a message


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Dataset):
    """Images in a folder and the folders below it.

    With `labels`, the class is the name of the folder directly below `path`.
    Names that begin with a dot, and folders that other programs make (`OF_SYSTEMS`), are left alone at any depth: they
    are neither images nor classes. Every file is looked at before anything is trained, and all that cannot be used are
    named together: damaged ones, other sizes, links that lead out of the folder or to another folder, images beyond
    Pillow's limit against decompression bombs, images with the very pixels of another (they could fall into two
    splits), with `labels` images that lie in no class folder. Files whose ending is no image's are left alone. How each
    kind of file becomes 8-bit pixels is said in `decoding`; how many of each were converted, resized, left out or left
    alone stands in the plan and in every row. Classes are those with usable images; splits are stratified by class, and
    each class must be in all three.
    """

    path: str = incidental_option()                                # the folder
    size: Annotated[int, Ge(4)] = 64                               # height and width of the images
    channels: Literal[1, 3] = 3                                    # 1 grey, 3 colour
    resize: Literal["none", "crop"] = "none"                       # none: other sizes are refused; crop: shorter side
                                                                   # to size, then the middle
    labels: bool = False                                           # class = name of the subfolder
    damaged: Literal["error", "skip"] = "error"                    # what to do about files that cannot be used
    reference_share: Annotated[float, Interval(gt=0, lt=1)] = 0.2  # of the images that distances are measured to
    held_out_share: Annotated[float, Interval(gt=0, lt=1)] = 0.2   # of the images that give the floor

    examples = ()                                             # none without a folder

    def __post_init__(self):
        super().__post_init__()
        if self.reference_share + self.held_out_share >= 1:
            raise OptionError("reference_share and held_out_share must leave images to train on, got "
                              f"{self.reference_share} and {self.held_out_share}")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.channels, self.size, self.size)

    @property
    def classes(self) -> int | None:
        return len(self._class_names()) if self.labels else None

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(map(_printable, self._class_names())) if self.labels else ()

    def fingerprint(self) -> str:
        self._cut()                                           # too few images are a mistake before anything is trained
        whole = hashlib.sha256()
        for path, _ in self._look().images:
            whole.update(os.fsencode(path.relative_to(self._root())) + b"\0"
                         + hashlib.sha256(path.read_bytes()).digest())
        return whole.hexdigest()

    def remark(self) -> str:
        return self._look().remark

    def load(self) -> dict[str, Split]:
        images = torch.stack([image for _, image in self._look().images]) # [N, C, H, W]
        cut, labels = self._cut()
        return {name: Split(images=images[index], labels=None if labels is None else labels[index])
                for name, index in cut.items()}

    def _cut(self) -> tuple[dict[str, Tensor], Tensor | None]:
        """(indices of the images of each split, labels int64 [N] or None);
        raises DataError where a split or a class in it is empty.
        """
        paths = [path for path, _ in self._look().images]
        shares = {"train": 1 - self.reference_share - self.held_out_share, "reference": self.reference_share,
                  "held_out": self.held_out_share}
        names = self._class_names() if self.labels else ["all images"]
        labels = torch.tensor([names.index(self._class_of(path)) if self.labels else 0 for path in paths])
        cut = split_indices(labels, shares)
        few = [f"{_printable(name)} ({int((labels == k).sum())})" for k, name in enumerate(names)
               if not all((labels[index] == k).any() for index in cut.values())]
        if few:
            more = f" and {len(few) - SHOWN} more" if len(few) > SHOWN else ""
            raise DataError("image_folder: every class must be in each of the three splits, and these of "
                            f"{self._root()} have too few images: "
                            f"{', '.join(few[:SHOWN])}{more}; {math.ceil(2 / min(shares.values()))} always suffice: "
                            "add images or remove the classes")
        return cut, labels if self.labels else None

    def _root(self) -> Path:
        root = user_path(self.path)
        if not root.is_dir():
            raise DataError(f"image_folder: {os.path.abspath(root)} is not a folder")
        return root

    def _class_of(self, path: Path) -> str:
        return path.relative_to(self._root()).parts[0]

    def _class_names(self) -> list[str]:
        names = sorted({self._class_of(path) for path, _ in self._look().images})
        if len(names) < 2:
            raise DataError(f"image_folder: labels: true takes the class from subfolders, and {self._root()} has "
                            f"usable images in {len(names)} of them; make one per class")
        return names

    def _look(self) -> "_Look":
        """Every usable file with its image; raises DataError that names all that are not."""
        paths, unread, passed = [], [], []
        for folder, folders, names in os.walk(self._root(), onerror=unread.append):
            passed += [f"{_printable(name)}/" for name in folders if _is_passed(name)] + [
                "hidden" for name in names if _is_passed(name)
            ]
            folders[:] = [name for name in folders if not _is_passed(name)]
            paths += [Path(folder, name) for name in names if not _is_passed(name)] + [
                p for p in (Path(folder, n) for n in folders) if p.is_symlink()
            ]
        closed = tuple((Path(error.filename), error.strerror) for error in unread)
        return _looked_at(self, tuple((p, *_state(p)) for p in sorted(paths)), closed, tuple(passed))

    def _picture(self, path: Path) -> Decoded:
        """One file in whatever size it has; raises ValueError with the reason where it cannot be used."""
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self._root())):
            raise ValueError("a link that leads out of the folder")
        if path.is_dir():
            raise ValueError("a link to a folder, which is not followed")
        if path.suffix.lower() in UNREAD:
            raise ValueError(f"{path.suffix.lower()} is not read; convert it to .png")
        if self.labels and path.parent == self._root():
            raise ValueError("an image that lies in no class folder")
        return decoded(path, self.channels)

    def _fitted(self, picture: "Image") -> Tensor:
        """A picture as uint8 [C, H, W]; raises ValueError where it has another size and must not be resized."""
        import numpy
        from PIL import Image, ImageOps

        if self.resize == "crop":
            picture = ImageOps.fit(picture, (self.size, self.size), Image.Resampling.LANCZOS)
        elif picture.size != (self.size, self.size):
            raise _OtherSize(
                f"{_by(picture.size)} pixels, expected {_by((self.size, self.size))}; 'resize: crop' makes them alike"
            )
        pixels = torch.from_numpy(numpy.array(picture))       # [H, W] or [H, W, 3]
        return pixels[None] if self.channels == 1 else pixels.permute(2, 0, 1).contiguous()


class _OtherSize(ValueError):
    """A sound picture of another size, which must not be resized."""


class _Look(NamedTuple):
    """What is in a folder."""

    images: tuple[tuple[Path, Tensor], ...]  # usable files, each with uint8 [C, H, W]
    remark: str                              # what was left out and what was converted, "" where nothing


@functools.lru_cache(maxsize=2)
def _looked_at(dataset: ImageFolder, listing: tuple[tuple[Path, int, int], ...], closed: tuple[tuple[Path, str], ...],
               passed: tuple[str, ...]) -> _Look:
    root, wanted = dataset._root(), (dataset.size, dataset.size)
    entries = [path for path, *_ in listing]
    files = [p for p in entries if p.suffix.lower() in SUFFIXES + UNREAD or p.is_dir()]
    good: dict[bytes, tuple[Path, Tensor]] = {}               # by their pixels
    bad = [f"{_said(path, root)}: {why}" for path, why in closed]
    sizes, changes, of_size = Counter[tuple[int, int]](), Counter[str](), dict[str, list[Path]]()
    for path in files:
        try:
            picture, changed = dataset._picture(path)
            sizes[picture.size] += 1
            image = dataset._fitted(picture)
        except _OtherSize as error:
            of_size.setdefault(str(error), []).append(path)
            continue
        except ValueError as error:
            bad.append(f"{_said(path, root)}: {error}")
            continue
        same = good.setdefault(hashlib.sha256(image.numpy().tobytes()).digest(), (path, image))
        if same[0] == path:
            resized = () if picture.size == wanted else (("cropped and enlarged" if min(picture.size) < dataset.size
                                                          else "cropped and reduced"),)
            changes.update((*changed, *resized))
        else:
            bad.append(f"{_said(path, root)}: the very pixels of {_said(same[0], root)}")
    if of_size and wanted not in sizes:
        raise DataError(_no_size_fits(root, wanted, sizes))
    bad += [
        f"{_said(path, root)}{f' and {len(others)} more' if others else ''}: {why}"
        for why, (path, *others) in of_size.items()
    ]
    ignored = Counter([*passed, *(_printable(p.suffix.lower()) or "no ending" for p in set(entries) - set(files))])
    left_alone = f"left alone: {_counted(ignored)}" if ignored else ""
    out_of = f"{len(bad) + sum(len(paths) - 1 for paths in of_size.values())} of {len(files) + len(closed)} files"
    among = f" ({left_alone})" if left_alone else ""
    named = "\n  ".join(bad[:SHOWN]) + (f"\n  and {len(bad) - SHOWN} more" if len(bad) > SHOWN else "")
    if bad and dataset.damaged == "error":
        census = f"\n  sizes: {_counted(_named(sizes))}" if of_size else ""
        raise DataError(f"image_folder: {out_of} in {root} are unusable{among}; mend or remove them, or write "
                        f"'damaged: skip':{census}\n  {named}")
    if len(good) < 5:
        why = f"; {out_of} are unusable:\n  {named}" if bad else ""
        raise DataError(f"image_folder: {root} has {len(good)} usable images, and three splits need at least "
                        f"5{among}{why}")
    parts = (f"{out_of} unusable and left out" if bad else "", left_alone,
             f"converted: {_counted(changes)}" if changes else "")
    return _Look(tuple(good.values()), ", ".join(part for part in parts if part))


def _no_size_fits(root: Path, wanted: tuple[int, int], sizes: Counter[tuple[int, int]]) -> str:
    """One sentence where every picture has another size, with the option that would fit most of them."""
    ((width, height), most), count = sizes.most_common(1)[0], sizes.total()
    fitting = f"write 'size: {width}' or " if width == height >= 4 else "write "
    have = f"all {count} images" if most == count else f"no image has {_by(wanted)} pixels: {most} of {count}"
    others = "" if most == count else f" (sizes: {_counted(_named(sizes))})"
    return (
        f"image_folder: {have} in {root} have {_by((width, height))} pixels{others}, and {_by(wanted)} are expected; "
        f"{fitting}'resize: crop', which makes them {_by(wanted)}"
    )


def _is_passed(name: str) -> bool:
    """Whether a file or folder of this name belongs to a program and not to the images."""
    return name.startswith(".") or name.lower() in OF_SYSTEMS


def _state(path: Path) -> tuple[int, int]:
    """(size, time of the last change), by which a file that was changed is looked at again;
    of a link, those of what it leads to.
    """
    stat = path.stat() if path.exists() else path.lstat()
    return stat.st_size, stat.st_mtime_ns


def _said(path: Path, root: Path) -> str:
    """A path below the folder, in one line of text."""
    return _printable(os.fspath(path.relative_to(root)))


def _printable(name: str) -> str:
    """A name as one line of text, also where its bytes are none or steer a terminal."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _named(sizes: Counter[tuple[int, int]]) -> Counter[str]:
    return Counter({_by(size): count for size, count in sizes.items()})


def _counted(kinds: Counter[str]) -> str:
    """'12 RGBA to RGB, 3 turned by EXIF', the most frequent first."""
    ordered = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    return ", ".join(f"{n} {kind}" for kind, n in ordered[:KINDS]) + (
        f" and {len(ordered) - KINDS} kinds more" if len(ordered) > KINDS else "")
