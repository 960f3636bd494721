"""Samples of a run, from the PNG files in its folder: grids, the same noise in many cells, trajectories.

Used by notebooks.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import paired
import pandas as pd

GREY = 128 / 255                      # of the lines between images
CELLS = 24                            # of one figure


def best_first(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """One row for each configuration, that of the lowest seed, the lowest (best) value first."""
    values, axes = paired.numbers(rows, column)
    first = values.sort_values(paired.SEEDS).drop_duplicates(axes or "seed") if len(values) else values
    words = first[axes].agg(", ".join, axis=1) if axes else pd.Series("", index=first.index)
    quantity = paired.quantity(rows[rows["status"] == "ok"], column)
    return rows.loc[first.index].assign(label=words, shown_value=first["value"],
                                        quantity=quantity).sort_values("shown_value")


def grids(run: str | Path, cells: pd.DataFrame) -> plt.Figure:
    """The sample grids of at most six cells of `best_first`, side by side. All have the same noise."""
    cells = _with_files(run, cells).head(6)
    across = min(3, len(cells))
    down = -(-len(cells) // across)
    figure, panels = plt.subplots(down, across, figsize=(4.2 * across, 4.1 * down), squeeze=False, layout="constrained")
    for panel in panels.ravel():
        panel.axis("off")
    for panel, (_, row) in zip(panels.ravel(), cells.iterrows(), strict=False):
        _show(panel, plt.imread(_path(run, row)))
        panel.set_title(_plain(f"{row['label']}\n{row['quantity']} {row['shown_value']:.3g}\n{row['cell_id']}"),
                        fontsize=8)
    return figure


def same_noise(run: str | Path, cells: pd.DataFrame) -> plt.Figure:
    """The first image of each class, a line for each of at most 24 cells of `best_first`, all with the same noise."""
    cells = _with_files(run, cells).head(CELLS)
    pictures = [first_line(plt.imread(_path(run, row))) for _, row in cells.iterrows()]
    figure, panel = plt.subplots(figsize=(9, 0.5 * len(cells) + 0.3), layout="constrained")
    for place, picture in enumerate(pictures):            # each one unit high, the first on top
        _show(panel, picture, extent=(0, picture.shape[1] / picture.shape[0], -place - 0.97, -place))
    panel.set(xlim=(0, max(p.shape[1] / p.shape[0] for p in pictures)), ylim=(-len(cells), 0), xticks=[])
    labels = [_plain(f"{row['label']}: {row['shown_value']:.3g}") for _, row in cells.iterrows()]
    panel.set_yticks([-place - 0.5 for place in range(len(cells))], labels, fontsize=8)
    panel.tick_params(length=0)
    panel.set_title(_plain(f"numbers: {cells['quantity'].iloc[0]}, lower is better"), fontsize=9, loc="right")
    panel.spines[:].set_visible(False)
    return figure


def trajectories(run: str | Path, cells: pd.DataFrame) -> plt.Figure | None:
    """The trajectories that were drawn, from noise on the left to images on the right; None where there are none.

    Upper lines: the input of the network. Lower lines: its prediction of the clean image.
    """
    cells = cells[[_path(run, row, "-trajectory").exists() for _, row in cells.iterrows()]].head(6)
    if cells.empty:
        return None
    pictures = [plt.imread(_path(run, row, "-trajectory")) for _, row in cells.iterrows()]
    heights = [9 * picture.shape[0] / picture.shape[1] + 0.35 for picture in pictures]
    figure, panels = plt.subplots(len(cells), 1, figsize=(9, sum(heights)), squeeze=False, height_ratios=heights,
                                  layout="constrained")
    for panel, picture, (_, row) in zip(panels.ravel(), pictures, cells.iterrows(), strict=True):
        _show(panel, picture)
        panel.axis("off")
        panel.set_title(_plain(row["label"]), fontsize=9, loc="left")
    return figure


def first_line(picture: object) -> object:
    """The first line of images of a grid, [H, W] or [H, W, 3] in [0, 1], to the second of its grey lines."""
    is_line = abs(picture.reshape(len(picture), -1) - GREY).max(axis=1) < 1e-3
    end = next((y for y in range(3, len(picture)) if is_line[y]), len(picture))
    return picture[: end + 2]


def _with_files(run: str | Path, cells: pd.DataFrame) -> pd.DataFrame:
    with_files = cells[[_path(run, row).exists() for _, row in cells.iterrows()]]
    if with_files.empty:
        raise FileNotFoundError(f"{run} has no samples/<cell_id>.png of these cells: this notebook needs the whole "
                                "folder of a run")
    return with_files


def _path(run: str | Path, row: pd.Series, suffix: str = "") -> Path:
    run = Path(run)
    return (run if run.is_dir() else run.parent) / "samples" / f"{row['cell_id']}{suffix}.png"


def _show(panel: plt.Axes, picture: object, **place: object) -> None:
    panel.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", **place)


def _plain(text: object) -> str:
    return str(text).replace("$", r"\$")
