"""Pictures of trajectories: inputs of a cell's network at some evaluations, its estimates of the image, the end."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from diffbench.contracts.condition import Condition
from diffbench.contracts.needs import given_to
from diffbench.contracts.values import Denoise, Prediction
from diffbench.diffusion.latents import Latents
from diffbench.diffusion.pixels import to_pixels
from diffbench.errors import DiffbenchError
from diffbench.matrix.describing import rebuild_cell
from diffbench.registry.registry import Registry, load_registry
from diffbench.report import grids
from diffbench.report.reading import ReportedRun
from diffbench.report.written_files import Written
from diffbench.results.frame import counted
from diffbench.results.grid_files import KEY, drawn_from
from diffbench.stages import drawing, training_loop
from diffbench.store.artefacts import Store, write_atomically

IMAGES = 3                            # samples drawn, the first of the run
FRAMES = 10                           # evaluations shown, evenly spread, the first and the last of them
BEST = 4                              # cells whose trajectories are drawn for the notebook of samples


class Frame(NamedTuple):
    """One evaluation of the network, or the end, where t is 0 and both are x_0."""

    t: float
    x_t: Tensor     # float32 [B, C, H, W], scaled to the variance of data of variance one; both decoded
    x0_hat: Tensor  # float32 [B, C, H, W]


def frames(store: Store, sample_key: str, registry: Registry, count: int = IMAGES) -> list[Frame]:
    """Draws the first samples of a sample stage once more, on the CPU, and keeps what passes the network, guidance and
    clipping included.

    The images agree with those of the run to rounding, for noise depends on seed, sample and step alone. Raises Damaged
    where the weights are no longer in the store, UnknownComponent where a plug-in of the run is not installed.
    """
    task = store.read_json("sample", sample_key, "task.json")

    def read(role: str, file: str) -> dict[str, Tensor]:
        return store.read_tensors(role.partition(":")[0], task["parents"][role], file)

    cell = rebuild_cell(task["task"]["cell"], registry).each(lambda component: given_to(component, "sample", read))
    cpu, kept = torch.device("cpu"), []
    model = training_loop.build(cell, cpu).eval()
    model.load_state_dict(read("train", "weights.safetensors"))
    latents = Latents(cell, cpu)
    helpers = drawing.helpers_for(cell, cpu, read("noisy_classifier", "weights.safetensors")
                                  if cell.conditioning.needs_classifier else None)

    def watch(denoise: Denoise) -> Denoise:
        def watched(x_t: Tensor, t: float) -> Prediction:
            prediction = denoise(x_t, t)
            alpha, sigma = cell.noise_schedule.scales(float(t))
            kept.append(Frame(float(t), latents.decode(x_t / (alpha**2 + sigma**2) ** 0.5),
                              latents.decode(prediction.x0)))
            return prediction
        return watched

    if cell.dataset.condition_shape is None:              # as they were asked for: the data need not be here
        labels = store.read_tensors("sample", sample_key, "images.safetensors").get("labels")
        cond = None if labels is None else Condition(label=labels)
    else:
        cond, _ = drawing.asked_for(cell)
    x_0 = drawing.draw(cell, model, cond, helpers, cpu, range(min(count, cell.sample.count)), watch=watch)
    return [*kept, Frame(0.0, x_0, x_0)]


def write(store: Store, sample_key: str, path: Path, registry: Registry) -> None:
    """The picture of a cell: for each sample a line of x_t above a line of x0_hat.
    One that shows these samples already is not drawn again.
    """
    if drawn_from(path) == sample_key:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    data, note = io.BytesIO(), PngImagePlugin.PngInfo()
    drawn = frames(store, sample_key, registry)
    note.add_text(KEY, sample_key)
    note.add_text(grids.FRAME_COUNT, str(len(_shown(drawn))))
    Image.fromarray(strip(drawn)).save(data, "PNG", pnginfo=note)
    write_atomically(path, data.getvalue())


def write_best(run: ReportedRun, done: Written) -> None:
    """One cell of each scheduler, that of the best value in the lowest seed, as long as there are no more than four;
    where the store has their weights.
    """
    rows, sheets, stages, store = run.rows, run.sheets, run.stages_of_cells(), Store.default()
    if not sheets:
        done.notes.append("no trajectories: no row has a measured value")
        return
    sheet, _ = sheets[0]
    ranked_by = sheet.quantity.name if sheet.quantity.is_debiased else sheet.column
    there = counted(rows, ranked_by)
    best = (
        there[there["seed"] == there["seed"].min()]
        .sort_values(ranked_by, ascending=sheet.better != "higher")
        .drop_duplicates("scheduler")
    )
    for cell_id in best["cell_id"].head(BEST):
        path, key = run.folder / "samples" / f"{cell_id}-trajectory.png", stages.get(cell_id, {}).get("sample")
        if key is None:
            done.notes.append(f"no trajectory of {cell_id}: the plan of the run does not say how it was sampled")
            continue
        try:
            write(store, key, path, load_registry())
        except (DiffbenchError, FileNotFoundError) as error:
            done.notes.append(f"no trajectory of {cell_id}: {error}")
        else:
            done.files.append(path)


def strip(drawn: list[Frame]) -> numpy.ndarray:
    """uint8 [H', W'] or [H', W', 3]: a column for each of at most FRAMES evaluations and the end,
    two lines for each sample.
    """
    columns = _shown(drawn)
    # [B, 2, columns, C, H, W]
    images = torch.stack([torch.stack([to_pixels(f.x_t), to_pixels(f.x0_hat)], dim=1) for f in columns], dim=2)
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


def _shown(drawn: list[Frame]) -> list[Frame]:
    """Evaluations that are evenly spread, and the end."""
    *passed, end = drawn
    places = sorted({round(i * (len(passed) - 1) / max(1, FRAMES - 1)) for i in range(FRAMES)}) if passed else []
    return [*(passed[i] for i in places), end]
