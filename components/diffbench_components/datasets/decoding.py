"""One image file as 8-bit pixels, or the reason why it cannot be used; shared by data sets made of files."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

WHITE_16 = 65535
ORIENTATION, BITS_PER_SAMPLE, PHOTOMETRIC = 0x0112, 258, 262              # numbers of TIFF tags; EXIF uses them too


def decoded(path: Path, channels: int) -> Image:
    """The picture in a file as mode L (channels = 1) or RGB (channels = 3); raises ValueError with the reason where there is none.

    One rule for each kind of file, none of which looks at the values of the pixels:
    - 16-bit grey (PNG, TIFF; PGM of more than 8 bits): 65535 is white, so v becomes round(v/257).
    - 32-bit integers and floats are refused: their formats do not say which value is white.
    - Palettes, 1 bit, CMYK and other colour spaces are converted by Pillow; colour profiles are not applied.
    - Transparency is laid on black. Rotations in EXIF are applied; EXIF that cannot be read is as none.
    - A file of several pictures (animation, pages) is refused; of a camera's MPO file (JPEG with previews) the first counts.
    - More pixels than Pillow's limit (Image.MAX_IMAGE_PIXELS, 89 million) are refused before they are decoded.
    """
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise ValueError("a broken link" if path.is_symlink() else "not a regular file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")                   # what cannot be decoded raises; Pillow warns of oddities such as broken EXIF
            with Image.open(path) as opened:
                pixels, limit = opened.width * opened.height, Image.MAX_IMAGE_PIXELS
                if limit is not None and pixels > limit:
                    raise ValueError(f"{opened.width}x{opened.height} pixels, more than Pillow's limit of {limit}")
                frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
                if frames > 1:
                    raise ValueError(f"{frames} pictures in one file; save one")
                opened.load()
                return _turned(_converted(opened, "L" if channels == 1 else "RGB"), opened)
    except UnidentifiedImageError:
        raise ValueError("not an image, or empty") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"more pixels than Pillow's limit of {Image.MAX_IMAGE_PIXELS}") from error
    except Exception as error:                                # decoders of damaged files raise nearly anything: struct.error, KeyError, MemoryError
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ValueError(said or f"cannot be decoded ({type(error).__name__})") from error


def _converted(picture: Image, mode: str) -> Image:
    from PIL import Image

    if picture.mode in ("I", "F") and picture.format != "PPM":            # Pillow scales a PGM of more than 8 bits to 16 bits
        raise ValueError(f"32-bit pixels (Pillow's mode {picture.mode}), whose format does not say which value is white; save 8 or 16 bits")
    if picture.mode.startswith("I"):
        picture = _from_16_bits(picture)
    if "A" in picture.getbands() or "transparency" in picture.info:
        shown = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", shown.size, (0, 0, 0, 255)), shown)
    return picture.convert(mode)


def _from_16_bits(picture: Image) -> Image:
    """Grey 0..65535 to 0..255; a plain convert of Pillow would saturate at 255."""
    import numpy
    from PIL import Image

    tags = getattr(picture, "tag_v2", {})
    if tags.get(BITS_PER_SAMPLE, (16,)) != (16,) or tags.get(PHOTOMETRIC, 1) != 1:
        raise ValueError("a grey TIFF of 12 bits, or whose white is 0; save 8 bits, or 16 bits with black at 0")
    values = numpy.asarray(picture).astype(numpy.float64)
    grey = (values * (255 / WHITE_16)).round().clip(0, 255)
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
    turns = {2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
             6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90}
    return picture.transpose(turns[orientation]) if orientation in turns else picture
