"""Sample grids as files of a run's folder: which samples one shows. Used by the report and by trackers."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

KEY = "diffbench sample"              # text inside the PNG file: the key of its samples
# What Pillow says of files that are no pictures.
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def drawn_from(path: Path) -> str | None:
    """The key of the samples that a grid shows; None where there is no grid, or not one of ours."""
    try:
        with Image.open(path) as picture:
            return picture.info.get(KEY)
    except UNREADABLE:
        return None
