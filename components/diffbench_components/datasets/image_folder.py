"""A folder of one's own images."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from diffbench import DataError, Dataset, OptionError, Split, incidental_option, split_indices

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
SHOWN = 20                                                    # unusable files named in a message
GREY_16 = ("I;16", "I;16B", "I;16L", "I", "F")


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Dataset):
    """Images in a folder and the folders below it; with `labels`, the class is the name of the folder directly below `path`.

    Every file is looked at before anything is trained, and all that cannot be used are named together. Rotations in EXIF are
    applied, transparency is laid on black, 16-bit grey is scaled to 8 bits, palettes and CMYK are converted. Files whose
    ending is no image's are left alone; links that lead out of the folder are refused. Splits are stratified by class.
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
        whole = hashlib.sha256()
        for path, _ in self._images():
            whole.update(f"{path.relative_to(self._root()).as_posix()}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
        return whole.hexdigest()

    def load(self) -> dict[str, Split]:
        pairs = list(self._images())
        images = torch.stack([image for _, image in pairs])   # [N, C, H, W]
        labels = None
        if self.labels:
            names = self._class_names()
            labels = torch.tensor([names.index(path.relative_to(self._root()).parts[0]) for path, _ in pairs])
        shares = {"train": 1 - self.reference_share - self.held_out_share, "reference": self.reference_share, "held_out": self.held_out_share}
        cut = split_indices(len(images) if labels is None else labels, shares)
        return {name: Split(images=images[index], labels=None if labels is None else labels[index]) for name, index in cut.items()}

    def _root(self) -> Path:
        root = Path(self.path).expanduser()
        if not root.is_dir():
            raise DataError(f"image_folder: {root.resolve()} is not a folder")
        return root

    def _class_names(self) -> list[str]:
        names = sorted(p.name for p in self._root().iterdir() if p.is_dir())
        if len(names) < 2:
            raise DataError(f"image_folder: labels: true takes the class from subfolders, and {self._root()} has {len(names)}; make one per class")
        return names

    def _files(self) -> tuple[list[Path], Counter]:
        """(image files in order, the endings of all other files)."""
        files = sorted(p for p in self._root().rglob("*") if p.is_file() or p.is_symlink())
        if self.labels:
            files = [p for p in files if len(p.relative_to(self._root()).parts) > 1]
        return [p for p in files if p.suffix.lower() in SUFFIXES], Counter(p.suffix.lower() or "no ending" for p in files if p.suffix.lower() not in SUFFIXES)

    def _images(self) -> Iterator[tuple[Path, Tensor]]:
        """Every usable file with its image, uint8 [C, H, W]; raises DataError that names all that are not."""
        files, ignored = self._files()
        good, bad = [], []
        for path in files:
            try:
                good.append((path, self._image(path)))
            except (OSError, ValueError, SyntaxError, Warning) as error:
                bad.append(f"{path.relative_to(self._root())}: {error}")
        left_alone = f" ({', '.join(f'{n} {ending}' for ending, n in sorted(ignored.items()))} left alone)" if ignored else ""
        if bad and self.damaged == "error":
            more = f"\n  and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
            raise DataError(f"image_folder: {len(bad)} of {len(files)} files in {self._root()} are unusable{left_alone}; mend or remove them, "
                            f"or write 'damaged: skip':\n  " + "\n  ".join(bad[:SHOWN]) + more)
        if len(good) < 5:
            raise DataError(f"image_folder: {self._root()} has {len(good)} usable images, and three splits need at least 5{left_alone}")
        yield from good

    def _image(self, path: Path) -> Tensor:
        """One file as uint8 [C, H, W]; raises ValueError or OSError with the reason where it cannot be used."""
        import numpy
        from PIL import Image, ImageOps, UnidentifiedImageError

        if not path.resolve().is_relative_to(self._root().resolve()):
            raise ValueError("a link that leads out of the folder")
        try:
            with Image.open(path) as opened:
                opened.load()
                picture = ImageOps.exif_transpose(opened)
        except UnidentifiedImageError:
            raise ValueError("not an image, or empty") from None
        except Image.DecompressionBombError as error:
            raise ValueError(str(error)) from None
        if picture.mode in GREY_16:
            if picture.mode in ("I", "F") and picture.getextrema()[1] <= 255:
                picture = picture.convert("L")
            else:                                             # 16 bits: 65535 is white; a plain convert would saturate
                picture = Image.fromarray((numpy.asarray(picture, dtype=numpy.float64) / 257).round().clip(0, 255).astype(numpy.uint8))
        if "A" in picture.getbands() or "transparency" in picture.info:
            shown = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", shown.size, (0, 0, 0, 255)), shown)
        picture = picture.convert("L" if self.channels == 1 else "RGB")
        if self.resize == "crop":
            picture = ImageOps.fit(picture, (self.size, self.size), Image.Resampling.LANCZOS)
        elif picture.size != (self.size, self.size):
            raise ValueError(f"{picture.width}x{picture.height} pixels, expected {self.size}x{self.size}; 'resize: crop' makes them alike")
        pixels = torch.from_numpy(numpy.array(picture))       # [H, W] or [H, W, 3]
        return pixels[None] if self.channels == 1 else pixels.permute(2, 0, 1).contiguous()
