"""How noise becomes an image: what the network of a cell was given at some of its evaluations, what it took the clean image to be, and the end."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from diffbench import drawing, training
from diffbench.denoiser import to_pixels
from diffbench.planning import rebuild_cell
from diffbench.registry import Registry
from diffbench.report import grids
from diffbench.store import Store, write_atomically
from diffbench.values import Denoise, Prediction

IMAGES = 3                            # samples drawn, the first of the run
FRAMES = 10                           # evaluations shown, evenly spread, the first and the last of them


class Frame(NamedTuple):
    """One evaluation of the network, or the end, where t is 0 and both are x_0."""

    t: float
    x_t: Tensor                       # float32 [B, C, H, W], scaled to the variance of data of variance one
    x0_hat: Tensor                    # float32 [B, C, H, W]


def frames(store: Store, sample_key: str, registry: Registry, count: int = IMAGES) -> list[Frame]:
    """Draws the first samples of a sample stage once more, on the CPU, and keeps what passes the network, guidance and clipping included.

    The images agree with those of the run to rounding, for noise depends on seed, sample and step alone. Raises Damaged where the weights are no
    longer in the store, UnknownComponent where a plug-in of the run is not installed.
    """
    said = store.read_json("sample", sample_key, "task.json")
    cell = rebuild_cell(said["task"]["cell"], registry)
    cpu, kept = torch.device("cpu"), []
    weights = {role: store.read_tensors(role, key, "weights.safetensors") for role, key in said["parents"].items()}
    model = training.build(cell, cpu).eval()
    model.load_state_dict(weights["train"])
    helpers = drawing.helpers_for(cell, cpu, weights.get("noisy_classifier"))

    def watch(denoise: Denoise) -> Denoise:
        def watched(x_t: Tensor, t: float) -> Prediction:
            found = denoise(x_t, t)
            alpha, sigma = cell.noise_schedule.scales(float(t))
            kept.append(Frame(float(t), x_t / (alpha**2 + sigma**2) ** 0.5, found.x0))
            return found
        return watched

    cond, _ = drawing.asked_for(cell)
    x_0 = drawing.draw(cell, model, cond, helpers, cpu, range(min(count, cell.sample.count)), watch=watch)
    return [*kept, Frame(0.0, x_0, x_0)]


def write(store: Store, sample_key: str, path: Path, registry: Registry) -> None:
    """The picture of a cell: for each sample a line of x_t above a line of x0_hat. One that shows these samples already is not drawn again."""
    if grids.drawn_from(path) == sample_key:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    data, note = io.BytesIO(), PngImagePlugin.PngInfo()
    found = frames(store, sample_key, registry)
    note.add_text(grids.KEY, sample_key)
    note.add_text(grids.FRAME_COUNT, str(len(_shown(found))))
    Image.fromarray(strip(found)).save(data, "PNG", pnginfo=note)
    write_atomically(path, data.getvalue())


def strip(found: list[Frame]) -> numpy.ndarray:
    """uint8 [H', W'] or [H', W', 3]: a column for each of at most FRAMES evaluations and the end, two lines for each sample."""
    columns = _shown(found)
    images = torch.stack([torch.stack([to_pixels(f.x_t), to_pixels(f.x0_hat)], dim=1) for f in columns], dim=2)      # [B, 2, columns, C, H, W]
    lines = images.flatten(0, 1).numpy()
    channels, height, width = lines.shape[2:]
    scale = max(1, -(-grids.SMALLEST // min(height, width)))
    step_y, step_x = height * scale + 2, width * scale + 2
    picture = numpy.full((len(lines) * step_y + 2, len(columns) * step_x + 2, channels), 128, numpy.uint8)
    for row, line in enumerate(lines):
        for column, image in enumerate(line):
            big = image.transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1)
            picture[2 + row * step_y:][: height * scale, 2 + column * step_x:][:, : width * scale] = big
    return picture[:, :, 0] if channels == 1 else picture


def _shown(found: list[Frame]) -> list[Frame]:
    """Evaluations that are evenly spread, and the end."""
    *passed, end = found
    places = sorted({round(i * (len(passed) - 1) / max(1, FRAMES - 1)) for i in range(FRAMES)}) if passed else []
    return [*(passed[i] for i in places), end]
