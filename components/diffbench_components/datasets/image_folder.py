"""A folder of one's own images."""

import functools
import hashlib
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from diffbench import DataError, Dataset, OptionError, Split, incidental_option, split_indices

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
SHOWN = 20                                                    # unusable files named in a message
INTEGERS = ("I;16", "I;16B", "I;16L", "I")                    # grey with more than 8 bits


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Dataset):
    """Images in a folder and the folders below it; with `labels`, the class is the name of the folder directly below `path`.

    Every file is looked at before anything is trained, and all that cannot be used are named together: damaged ones, other sizes, links that
    lead out of the folder, images beyond Pillow's limit against decompression bombs, images with the very pixels of another (they could
    fall into two splits), with `labels` images that lie in no class folder. Files whose ending is no image's are left alone.
    Rotations in EXIF are applied, transparency is laid on black, palettes and CMYK are converted, of several frames the first is taken. Integers
    of more than 8 bits are read as 0..65535, floats as 0..1; other values are refused. Classes are those with usable images; splits are
    stratified by class, and each class must be in all three.
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
        pairs, labels = self._images(), None
        images = torch.stack([image for _, image in pairs])   # [N, C, H, W]
        if self.labels:
            names = self._class_names()
            labels = torch.tensor([names.index(self._class_of(path)) for path, _ in pairs])
        shares = {"train": 1 - self.reference_share - self.held_out_share, "reference": self.reference_share, "held_out": self.held_out_share}
        cut = split_indices(len(images) if labels is None else labels, shares)
        if labels is not None:
            few = [f"{name} ({int((labels == k).sum())})" for k, name in enumerate(names) if not all((labels[index] == k).any() for index in cut.values())]
            if few:
                raise DataError(f"image_folder: every class must be in each of the three splits, and these of {self._root()} have too few images: "
                                f"{', '.join(few[:SHOWN])}; add images or remove the classes")
        return {name: Split(images=images[index], labels=None if labels is None else labels[index]) for name, index in cut.items()}

    def _root(self) -> Path:
        root = Path(self.path).expanduser()
        if not root.is_dir():
            raise DataError(f"image_folder: {root.resolve()} is not a folder")
        return root

    def _class_of(self, path: Path) -> str:
        return path.relative_to(self._root()).parts[0]

    def _class_names(self) -> list[str]:
        names = sorted({self._class_of(path) for path, _ in self._images()})
        if len(names) < 2:
            raise DataError(f"image_folder: labels: true takes the class from subfolders, and {self._root()} has usable images in {len(names)} of them; "
                            "make one per class")
        return names

    def _images(self) -> tuple[tuple[Path, Tensor], ...]:
        """Every usable file with its image, uint8 [C, H, W]; raises DataError that names all that are not."""
        files = sorted(p for p in self._root().rglob("*") if p.is_file() or p.is_symlink())
        return _looked_at(self, tuple((p, *_state(p)) for p in files))

    def _image(self, path: Path) -> Tensor:
        """One file as uint8 [C, H, W]; raises ValueError or what Pillow raises where it cannot be used."""
        import numpy
        from PIL import Image, ImageOps, UnidentifiedImageError

        if not path.resolve().is_relative_to(self._root().resolve()):
            raise ValueError("a link that leads out of the folder")
        if self.labels and path.parent == self._root():
            raise ValueError("an image that lies in no class folder")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)       # Pillow refuses only what is twice as large
                with Image.open(path) as opened:
                    opened.load()
                    picture = ImageOps.exif_transpose(opened)
        except UnidentifiedImageError:
            raise ValueError("not an image, or empty") from None
        if picture.mode in INTEGERS or picture.mode == "F":
            white = 1.0 if picture.mode == "F" else 65535.0
            values = numpy.asarray(picture, dtype=numpy.float64)
            if not (numpy.isfinite(values).all() and values.min() >= 0 and values.max() <= white):
                raise ValueError(f"values from {values.min():g} to {values.max():g}, expected 0 to {white:g}")
            picture = Image.fromarray((values * (255 / white)).round().astype(numpy.uint8))
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


def _state(path: Path) -> tuple[int, int]:
    """(size, time of the last change), by which a file that was changed is looked at again."""
    stat = path.lstat()
    return stat.st_size, stat.st_mtime_ns


@functools.lru_cache(maxsize=2)
def _looked_at(dataset: ImageFolder, listing: tuple[tuple[Path, int, int], ...]) -> tuple[tuple[Path, Tensor], ...]:
    root = dataset._root()
    found = [path for path, *_ in listing]
    files = [p for p in found if p.suffix.lower() in SUFFIXES]
    ignored = Counter(p.suffix.lower() or "no ending" for p in found if p.suffix.lower() not in SUFFIXES)
    good: dict[bytes, tuple[Path, Tensor]] = {}               # by their pixels
    bad = []
    for path in files:
        try:
            image = dataset._image(path)
            same = good.setdefault(hashlib.sha256(image.numpy().tobytes()).digest(), (path, image))
            if same[0] != path:
                raise ValueError(f"the very pixels of {same[0].relative_to(root)}")
        except Exception as error:  # noqa: BLE001  a file may make Pillow raise anything
            said = str(error) or "no message"
            bad.append(f"{path.relative_to(root)}: {said if isinstance(error, ValueError | OSError) else f'{type(error).__name__}: {said}'}")
    left_alone = f" ({', '.join(f'{n} {ending}' for ending, n in sorted(ignored.items()))} left alone)" if ignored else ""
    if bad and dataset.damaged == "error":
        more = f"\n  and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise DataError(f"image_folder: {len(bad)} of {len(files)} files in {root} are unusable{left_alone}; mend or remove them, "
                        f"or write 'damaged: skip':\n  " + "\n  ".join(bad[:SHOWN]) + more)
    if len(good) < 5:
        raise DataError(f"image_folder: {root} has {len(good)} usable images, and three splits need at least 5{left_alone}")
    return tuple(good.values())
