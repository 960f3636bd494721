"""Pictures of a run inside its page, so small that hundreds of cells fit. Used by `page.html`."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from diffbench.report import grids as line_grids
from diffbench.report.page.data import Configurations
from diffbench.report.page.shapes import Film
from diffbench.report.reading import Source
from diffbench.results.grid_files import UNREADABLE

BUDGET = 5_000_000                    # bytes of all sample grids, as they are written into the page
LINES_OF_GRID = 3                     # of the eight a grid has, so that many cells fit on a screen
# (pixels of width at most, quality of WebP), tried until a grid fits its share; None loses nothing
WAYS = ((480, None), (480, 75), (480, 40), (240, 40))
TRAJECTORIES = 6


class Picture(NamedTuple):
    """An image inside the page."""

    uri: str
    width: int                        # pixels
    height: int


def grids(source: Source, lines: Configurations, order: Iterable[int]) -> tuple[dict[int, Picture], int]:
    """(by configuration, the first lines of the grid of its lowest seed;
    how many were left out, the budget being spent). order: who comes first.
    """
    rows = source.rows
    folders = _folders(source)
    seeds = dict(zip(rows["cell_id"], rows["seed"], strict=True))
    pictures: dict[int, Picture] = {}
    left_out, spent = 0, 0
    order = list(order)
    for place in order:
        path = next((p for i in sorted(lines.facts[place]["cells"], key=lambda i: seeds[i])
                     if (p := folders[i] / f"{i}.png").is_file()), None)
        if path is None:
            continue
        picture = _thumbnail(path, BUDGET // len(order))
        if picture is None or spent + len(picture.uri) > BUDGET:
            left_out += 1
            continue
        spent += len(picture.uri)
        pictures[place] = picture
    return pictures, left_out


def films(source: Source, lines: Configurations) -> list[Film]:
    """The trajectories that lie beside the run's grids: one picture each, whose columns are its frames."""
    drawn = []
    for cell_id, folder in _folders(source).items():
        path = folder / f"{cell_id}-trajectory.png"
        if cell_id in lines.of_cell and path.is_file() and len(drawn) < TRAJECTORIES:
            try:
                with Image.open(path) as picture:
                    frames = int(picture.info.get(line_grids.FRAME_COUNT, 0))
                    width, height = picture.size
            except UNREADABLE:
                continue
            if frames > 1:
                drawn.append({"label": lines.labels[lines.of_cell[cell_id]], "cell": cell_id, "frames": frames,
                              "width": width, "height": height,
                              "uri": uri(path.read_bytes(), "image/png")})
    return drawn


def uri(data: bytes, kind: str) -> str:
    """data:kind;base64,..."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _folders(source: Source) -> dict[str, Path]:
    """By cell id, the folder that has its pictures."""
    return {i: run.folder / "samples" for i, run in source.kept.items()}


def _thumbnail(path: Path, share: int) -> Picture | None:
    """None where it cannot be read, or is larger than its share in every quality."""
    try:
        with Image.open(path) as whole:
            whole.load()
            step = int(whole.info.get(line_grids.LINE, whole.height))
            cut = whole.crop((0, 0, whole.width, min(whole.height, LINES_OF_GRID * step + 2)))
    except UNREADABLE:
        return None
    for width, quality in WAYS:
        small = cut if cut.width <= width else cut.resize((width, round(cut.height * width / cut.width)),
                                                          Image.Resampling.LANCZOS)
        data = io.BytesIO()
        small.save(data, "WEBP", **({"lossless": True} if quality is None else {"quality": quality}))
        text = uri(data.getvalue(), "image/webp")
        if len(text) <= share:
            return Picture(text, small.width, small.height)
    return None
