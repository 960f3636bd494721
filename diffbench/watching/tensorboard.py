"""TensorBoard: the curves of every stage, options against metrics of every cell, and the sample grids,
in <run folder>/tensorboard.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from diffbench import hookimpl
from diffbench.results.columns import MORE_KINDS
from diffbench.results.frame import LEADING, PROVENANCE

# by the key of a running stage: each is a run of its own, so that curves lie over each other
_curves: dict[str, SummaryWriter] = {}


@hookimpl
def diffbench_stage_progress(stage: Any, done: int, figures: dict[str, float], folder: Path) -> None:
    """One point of each figure, such as loss and images_per_second, at the units done: training steps, images."""
    if stage.key not in _curves:
        readable = re.sub("[^a-z0-9.]+", "-", stage.label.lower())[:60].strip("-.")
        _curves[stage.key] = SummaryWriter(folder / "tensorboard" / f"{stage.name}-{readable}-{stage.key[:8]}")
    for name, value in figures.items():
        _curves[stage.key].add_scalar(f"{stage.name}/{name}", value, done)


@hookimpl
def diffbench_stage_finished(stage: Any) -> None:
    """The curves are whole."""
    if stage.key in _curves:
        _curves.pop(stage.key).close()


@hookimpl
def diffbench_row_added(row: dict[str, Any], folder: Path) -> None:
    """A cell under HPARAMS: its components and options against what was measured."""
    chosen = {k: v for k, v in row.items() if (k in (*LEADING[3:], *row.get(MORE_KINDS, ())) or "." in k)
              and isinstance(v, str | int | float)}
    measured = {k: float(v) for k, v in row.items() if k not in (*LEADING, *PROVENANCE, *chosen)
                and isinstance(v, int | float)}
    with SummaryWriter(folder / "tensorboard" / "cells") as writer:
        writer.add_hparams(chosen, measured, run_name=row["cell_id"])


@hookimpl
def diffbench_run_finished(folder: Path) -> None:
    """The sample grids, which are drawn when all rows are there."""
    with SummaryWriter(folder / "tensorboard" / "samples") as writer:
        for path in sorted((folder / "samples").glob("*.png")):
            writer.add_image(path.stem, numpy.asarray(Image.open(path).convert("RGB")), dataformats="HWC")
    while _curves:
        _curves.popitem()[1].close()
