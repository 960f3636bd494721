"""The `Matrix`: its cells, how they are measured and reported, the names of its blocks. Used by `planning`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from diffbench.contracts.cell import Cell
from diffbench.contracts.options import Options
from diffbench.contracts.settings import Sample, Train
from diffbench.matrix.settings import Report, Run, Throughput
from diffbench.registry.registry import Registry

if TYPE_CHECKING:
    from diffbench.contracts.evaluation import Extractor, Metric

SCHEMA = 1
BLOCKS: dict[str, type[Options]] = {"train": Train, "sample": Sample, "throughput": Throughput, "run": Run,
                                    "report": Report}
# their options may stand under `axes` as train.lr, sample.count, ...
VARIABLE_BLOCKS = ("train", "sample")
KEYS = ("diffbench", "name", "dataset", "axes", "together", "exclude", "include", "extractor", "metrics", *BLOCKS)


def axis_kinds(registry: Registry) -> list[str]:
    """The kinds of components that may stand under `axes`."""
    return [name for name, kind in registry.kinds.items() if kind.axis]


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """The number of cells that one rule of `exclude` leaves out, and its reason."""

    count: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A valid matrix: its cells in the order of the file, and how to measure and report them."""

    name: str
    cells: tuple[Cell, ...]
    cell_ids: tuple[str, ...]
    excluded: tuple[Excluded, ...]
    extractor: Extractor
    metrics: tuple[Metric, ...]
    throughput: Throughput | None     # None: `throughput: off`, nothing is timed
    run: Run
    report: Report
    document: dict[str, Any]          # the content as read, with --set applied
    path: FilePath | None = None      # its file, absolute; None for a mapping


def unique_ids(ids: list[str]) -> tuple[str, ...]:
    """The ids, made unique: of cells that are equal by a reduction (ddim at eta 1 = ddpm) the second gets a suffix."""
    counts: dict[str, int] = {}
    result = []
    for cell_id in ids:
        counts[cell_id] = counts.get(cell_id, 0) + 1
        result.append(cell_id if counts[cell_id] == 1 else f"{cell_id}-{counts[cell_id]}")
    return tuple(result)
