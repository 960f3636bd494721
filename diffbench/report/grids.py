"""Sample grids: the first images of a cell, one column per class, as PNG."""

from __future__ import annotations

import io
from pathlib import Path

import numpy
from PIL import Image, PngImagePlugin

from diffbench.results.grid_files import KEY, drawn_from
from diffbench.store.artefacts import Store, write_atomically

ROWS = 8
COLUMNS_UNLABELLED = 10
LINE = "diffbench line"               # text inside the PNG file: the pixels from one line of images to the next,
FRAME_COUNT = "diffbench frames"      # and of a trajectory how many columns it has
SMALLEST = 32                         # pixels an image is enlarged to at least, by a whole factor


def write(store: Store, sample_key: str, path: Path) -> None:
    """The grid of a sample artefact. Images are in the order of their indices, so that all cells show the same noise.

    The picture carries the key of its samples, so that one which is there already is not drawn again.
    """
    if drawn_from(path) == sample_key:
        return
    tensors = {name: tensor.numpy() for name, tensor in store.read_tensors(
        "sample", sample_key, "images.safetensors").items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    data, texts = io.BytesIO(), PngImagePlugin.PngInfo()
    texts.add_text(KEY, sample_key)
    texts.add_text(LINE, str(_step(*tensors["images"].shape[2:])[1]))
    Image.fromarray(grid(tensors["images"], tensors.get("labels"))).save(data, "PNG", pnginfo=texts)
    write_atomically(path, data.getvalue())


def grid(images: numpy.ndarray, labels: numpy.ndarray | None) -> numpy.ndarray:
    """uint8 [N, C, H, W] to one picture [H', W'] or [H', W', 3]; one column per class where there are labels."""
    count, channels, height, width = images.shape
    if labels is None:
        chosen = numpy.arange(min(count, ROWS * COLUMNS_UNLABELLED))
        columns = min(len(chosen), COLUMNS_UNLABELLED)
        cells = [(i // columns, i % columns, i) for i in chosen]
    else:
        classes = numpy.unique(labels)[:COLUMNS_UNLABELLED * 2]
        cells = [(row, column, i) for column, c in enumerate(classes)
                 for row, i in enumerate(numpy.flatnonzero(labels == c)[:ROWS])]
        columns = len(classes)
    rows = 1 + max(row for row, _, _ in cells)
    scale, step_y, step_x = _step(height, width)
    picture = numpy.full((rows * step_y + 2, columns * step_x + 2, channels), 128, numpy.uint8)
    for row, column, i in cells:
        big = images[i].transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1)
        picture[2 + row * step_y:][: height * scale, 2 + column * step_x:][:, : width * scale] = big
    return picture[:, :, 0] if channels == 1 else picture


def _step(height: int, width: int) -> tuple[int, int, int]:
    """(the factor images are enlarged by, pixels to the next line, to the next column)."""
    scale = max(1, -(-SMALLEST // min(height, width)))
    return scale, height * scale + 2, width * scale + 2
