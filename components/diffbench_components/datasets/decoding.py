"""One image file as 8-bit pixels, or the reason why it cannot be used; shared by data sets made of files."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

ORIENTATION, BITS_PER_SAMPLE, PHOTOMETRIC = 0x0112, 258, 262              # numbers of TIFF tags; EXIF uses them too

PNG, TEXTS = (
    b"\x89PNG\r\n\x1a\n",
    (b"tEXt", b"zTXt", b"iTXt", b"iCCP"),
)  # how a PNG begins, and its chunks that no pixel depends on


class Decoded(NamedTuple):
    """A picture, and what was done to it that a reader of results should know, in a few words each,
    such as 'CMYK to RGB'.
    """

    picture: Image
    changes: tuple[str, ...]


def decoded(path: Path, channels: int) -> Decoded:
    """The picture in a file as mode L (channels = 1) or RGB (channels = 3); raises ValueError with the reason where
    there is none.

    - Grey of more than 8 bits (Pillow's modes I;16 and I) is read as 0..65535, floats (mode F) as 0..1; other values
      are refused. v becomes round(255 v/white), whatever the other pixels are. Of colours of 16 bits Pillow keeps the
      upper 8.
    - Palettes, 1 bit, CMYK and other colour spaces are converted by Pillow; colour profiles are not applied.
    - Transparency is laid on black. Rotations in EXIF are applied; EXIF that cannot be read is as none.
    - Of several frames or pages the first is taken.
    - More pixels than Pillow's limit (Image.MAX_IMAGE_PIXELS, 89 million) are refused before they are decoded.
    - A text or a colour profile of a PNG that Pillow refuses to unpack (more than 1 MiB, or texts of more than 64 MiB)
    is left out, still packed.
    - A file that ends too early is refused, also where Pillow was told to fill up the rest
      (ImageFile.LOAD_TRUNCATED_IMAGES).
    """
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise ValueError("a broken link" if path.is_symlink() else "not a regular file")
    try:
        with warnings.catch_warnings(), _whole_files():
            # what cannot be decoded raises; Pillow warns of oddities such as broken EXIF
            warnings.simplefilter("ignore")
            return _opened(path, "L" if channels == 1 else "RGB")
    except UnidentifiedImageError:
        raise ValueError("not an image, or empty") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"more pixels than Pillow's limit of {Image.MAX_IMAGE_PIXELS}") from error
    except (ValueError, OSError) as error:
        raise ValueError(getattr(error, "strerror", None) or str(error)
                         or f"cannot be decoded ({type(error).__name__})") from error
    except Exception as error:
        # decoders of damaged files raise nearly anything: struct.error, KeyError, MemoryError
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _opened(path: Path, mode: str) -> Decoded:
    from PIL import Image

    try:
        with Image.open(path) as opened:
            return _decoded(opened, mode)
    except ValueError:                                        # so says Pillow of a text or a profile beyond its limits
        smaller = _without_texts(path.read_bytes())
        if smaller is None:
            raise
        with Image.open(io.BytesIO(smaller)) as opened:
            picture, changes = _decoded(opened, mode)
            return Decoded(picture, (*changes, "a large text or profile left out"))


def _without_texts(content: bytes) -> bytes | None:
    """A PNG without its texts and its colour profile, nothing unpacked; None for what is no PNG or has neither."""
    if not content.startswith(PNG):
        return None
    kept, place = [PNG], len(PNG)
    while place < len(content):  # length, type, data, checksum; a chunk that is cut is kept as it is
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        kept += [] if content[place + 4 : place + 8] in TEXTS else [content[place:end]]
        place = end
    smaller = b"".join(kept)
    return smaller if len(smaller) < len(content) else None


def _decoded(opened: Image, mode: str) -> Decoded:
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and opened.width * opened.height > limit:
        raise ValueError(f"{opened.width}x{opened.height} pixels, more than Pillow's limit of {limit}")
    is_wide = opened.mode.startswith("I")
    # how the file holds its pixels; gone once they are loaded
    is_cut = not is_wide and any(";16" in str(tile[-1]) for tile in opened.tile)
    opened.load()
    is_transparent = "A" in opened.getbands() or "transparency" in opened.info
    changes = [change for change, applies in (
        (f"{opened.mode} to {mode}", opened.mode != mode), ("scaled to 8 bits", is_wide or opened.mode == "F"),
        ("16 bits cut to 8", is_cut),
        ("transparency laid on black", is_transparent)) if applies]
    upright = _converted(opened, mode)
    picture = _turned(upright, opened)
    changes += ["turned by EXIF"] if picture is not upright else []
    changes += ["first of several frames"] if getattr(opened, "is_animated", False) else []
    return Decoded(picture, tuple(changes))


@contextmanager
def _whole_files() -> Iterator[None]:
    """A switch of Pillow's that makes damaged files look whole, which other libraries of this process may have set,
    is off.
    """
    from PIL import ImageFile

    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _converted(picture: Image, mode: str) -> Image:
    from PIL import Image

    if picture.mode == "F" or picture.mode.startswith("I"):
        picture = _scaled(picture)
    if "A" in picture.getbands() or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return picture.convert(mode)


def _scaled(picture: Image) -> Image:
    """Grey of more than 8 bits to 0..255; a plain convert of Pillow would saturate at 255."""
    import numpy
    from PIL import Image

    white = 1.0 if picture.mode == "F" else 65535.0
    tags = getattr(picture, "tag_v2", {})                     # of a TIFF; Pillow leaves such values as they are
    if tags.get(BITS_PER_SAMPLE, (16,))[0] < 16 or tags.get(PHOTOMETRIC, 1) == 0:
        raise ValueError("a grey TIFF of 12 bits, or one whose white is 0; save 8 bits, or 16 bits with black at 0")
    values = numpy.asarray(picture).astype(numpy.float64)
    if not (numpy.isfinite(values).all() and values.min() >= 0 and values.max() <= white):
        raise ValueError(f"values from {values.min():g} to {values.max():g}, expected 0 to {white:g}")
    grey = (values * (255 / white)).round()
    if "transparency" in picture.info:                        # the one value that is transparent
        grey[values == picture.info["transparency"]] = 0
    return Image.fromarray(grey.astype(numpy.uint8))


def _turned(picture: Image, opened: Image) -> Image:
    """The picture as it is to be seen, by the file's EXIF orientation."""
    from PIL.Image import Transpose

    try:
        orientation = opened.getexif().get(ORIENTATION, 1)
    except (OSError, ValueError, TypeError, SyntaxError, LookupError, ArithmeticError, AttributeError, struct.error):
        orientation = 1
    turns = {2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
             5: Transpose.TRANSPOSE,
             6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90}
    return picture.transpose(turns[orientation]) if orientation in turns else picture
