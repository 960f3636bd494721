"""Follows a run: one line of losses.csv per report of a stage, one of rows.csv per cell, in the folder of the results.

A tracker is a module of hooks. It is imported where a run asks for it, by `--tracker newcomer` or `run: {trackers:
[newcomer]}`; an implementation takes those arguments of its hook that it needs. One that raises, or never returns,
costs the run nothing.
"""

import csv
from pathlib import Path
from typing import Any

from diffbench import hookimpl


@hookimpl
def diffbench_stage_progress(stage: Any, done: int, of: int, figures: dict[str, float], folder: Path) -> None:
    """done: training steps or images; figures: such as loss and images_per_second."""
    _append(folder / "losses.csv", [stage.name, stage.label, done, of,
                                    *(f"{name}={value:g}" for name, value in figures.items())])


@hookimpl
def diffbench_row_added(row: dict[str, Any], folder: Path) -> None:
    """row: a line of the result table."""
    _append(folder / "rows.csv", [row["cell_id"], row["status"], row["reason"]])


def _append(path: Path, cells: list[Any]) -> None:
    with open(path, "a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(cells)
