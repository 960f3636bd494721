"""matrix.yaml: from a file to the cells it names, every mistake in it found at once."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from diffbench import yaml_file
from diffbench.errors import MatrixError
from diffbench.options import Options
from diffbench.registry import Registry
from diffbench.settings import Report, Run, Sample, Throughput, Train, settings_json
from diffbench.specs import Names, Reader

if TYPE_CHECKING:
    from diffbench.contracts import (
        Backbone,
        Conditioning,
        NoiseSchedule,
        Objective,
        Parameterization,
        Scheduler,
        Spacing,
    )
    from diffbench.evaluation import Dataset, Extractor, Metric

SCHEMA = 1
MAX_CELLS = 10_000
BLOCKS: dict[str, type[Options]] = {"train": Train, "sample": Sample, "throughput": Throughput, "run": Run, "report": Report}
VARIABLE_BLOCKS = ("train", "sample")                     # their options may stand under `axes` as train.lr, sample.count, ...
KEYS = ("diffbench", "name", "dataset", "axes", "together", "exclude", "include", "extractor", "metrics", *BLOCKS)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One point of the matrix: a training half, a sampling half and a seed."""

    dataset: Dataset
    backbone: Backbone
    noise_schedule: NoiseSchedule
    parameterization: Parameterization
    objective: Objective
    conditioning: Conditioning
    spacing: Spacing
    scheduler: Scheduler
    train: Train
    sample: Sample
    seed: int

    @property
    def noise_seed(self) -> int:
        """Seed of the noise that its samples are drawn from."""
        return self.seed if self.sample.seed == "cell" else int(self.sample.seed)

    def components(self) -> dict[str, Any]:
        """Its components by kind, in the order of the result table."""
        return {name: getattr(self, name) for name in _component_kinds()}

    def identity(self, names: Names) -> dict[str, Any]:
        """What makes two cells the same."""
        parts = {kind: names.identity(c, "training", "sampling", "measuring") for kind, c in self.components().items()}
        return parts | {"train": settings_json(self.train, identity=True), "sample": settings_json(self.sample, identity=True) | {"seed": self.noise_seed},
                        "seed": self.seed}


@functools.cache
def _component_kinds() -> tuple[str, ...]:
    return tuple(f.name for f in fields(Cell) if f.name not in ("train", "sample", "seed"))


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """Cells left out on purpose."""

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
    throughput: Throughput
    run: Run
    report: Report
    document: dict[str, Any]          # the content as read, with --set applied
    path: FilePath | None = None      # its file, absolute; None for a mapping


def load(source_: str | FilePath | Mapping[str, Any], registry: Registry, *, changes: Iterable[str] = (), only: Iterable[str] = (), smoke: bool = False,
         max_cells: int = MAX_CELLS) -> Matrix:
    """The matrix in a file (or a mapping); raises MatrixError with every mistake in it.

    changes: 'PATH=VALUE' of --set; only: 'AXIS=VALUE' of --only; smoke: every code path in seconds.
    """
    from diffbench.expansion import Expansion

    document = yaml_file.Document("matrix", copy.deepcopy(dict(source_))) if isinstance(source_, Mapping) else yaml_file.read(source_)
    document = _changed(document, changes)
    reader = Reader(registry)
    matrix = Expansion(document.data, reader, max_cells, tuple(only), smoke).matrix()
    if matrix is None or reader.problems:
        raise MatrixError(document.render_all(reader.problems))
    return matrix if isinstance(source_, Mapping) else replace(matrix, path=FilePath(source_).absolute())


def _changed(document: yaml_file.Document, changes: Iterable[str]) -> yaml_file.Document:
    """The document with 'PATH=VALUE' applied; VALUE is read as YAML."""
    data = document.data
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals or not path:
            raise MatrixError([f"--set {change}: write PATH=VALUE, such as train.steps=100 or axes.seed=[0]"])
        value = yaml_file.parse(text, f"--set {path}").data
        parts = path.split(".")
        if parts[0] == "axes":                            # axes have dotted names: axes.train.lr
            parts = ["axes", ".".join(parts[1:])] if len(parts) > 1 else parts
        here = data
        for part in parts[:-1]:
            if not isinstance(here.get(part), dict):
                here[part] = {}
            here = here[part]
        here[parts[-1]] = value
    return document

def unique_ids(ids: list[str]) -> tuple[str, ...]:
    """Cells that are equal by a reduction (ddim at eta 1 = ddpm) keep a row each: the second gets a suffix."""
    seen: dict[str, int] = {}
    result = []
    for cell_id in ids:
        seen[cell_id] = seen.get(cell_id, 0) + 1
        result.append(cell_id if seen[cell_id] == 1 else f"{cell_id}-{seen[cell_id]}")
    return tuple(result)
