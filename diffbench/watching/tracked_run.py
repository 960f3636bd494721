"""A run as trackers of experiments log it: rows with parameters and measurements, curves, the report.

Used by the trackers of W&B and MLflow, so that both say the same of a row by the same names: those of the table of
results.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench.contracts.cell import Cell
from diffbench.matrix.describing import SETTINGS, describe_cell
from diffbench.results.columns import LEFT_OUT, MORE_KINDS
from diffbench.results.columns_of_plan import option_value, varying_options
from diffbench.results.folder import RunFolder
from diffbench.results.frame import LEADING
from diffbench.results.grid_files import drawn_from
from diffbench.results.speed_columns import RAW
from diffbench.store import output_folder
from diffbench.watching.event_log import KEY_LETTERS
from diffbench.watching.reading import Logs

if TYPE_CHECKING:
    from diffbench.planning.plan import Plan
    from diffbench.planning.stage import Stage

LOSS = "loss"                         # the figure that tells a training from other stages
ENDED_WELL = ("ok", "skipped")        # statuses of rows that are no failures
REPORT_FILES = ("report.html", "results.csv", "fid.md", "throughput.md", "matrix.json", "environment.json")

Curve = dict[int, dict[str, float]]   # by training step, the figures such as loss by name


@dataclass(frozen=True)
class TrackedRow:
    """A row as it is logged.

    `identity` is the same whenever the row is told again, `digest` the same while nothing in it changes.
    """

    cell_id: str
    identity: str
    digest: str
    name: str                         # what tells it from the other rows, for people
    status: str
    reason: str
    parameters: dict[str, Any]        # components, all their options, settings, seeds
    numbers: dict[str, float]         # columns that were measured or counted
    texts: dict[str, str]             # columns such as device, torch, git_commit

    @property
    def is_well(self) -> bool:
        """Whether the row is no failure."""
        return self.status in ENDED_WELL


class TrackedRun:
    """A run of a plan into a folder. Made when the run has started, told of progress, asked for rows."""

    def __init__(self, plan: Plan, folder: Path):
        run = RunFolder(folder)
        self.folder, self.name = folder.resolve(), plan.matrix.name
        self.matrix, self.environment = run.matrix, run.environment
        self.plan, self.cells = plan, {planned.cell_id: planned for planned in plan.cells}
        self.folder_identity = output_folder.identity(folder) or str(self.folder)
        self.digests: dict[str, str] = {}                 # of rows told, by cell
        self._curves: dict[str, Curve] = {}               # by the first letters of a stage's key
        self._varying = [name for name in varying_options(plan) if name.partition(".")[0] in SETTINGS]
        self._labels = {planned.cell_id: self._components(planned.cell) for planned in plan.cells}
        self._varying_labels = _differing(self._labels.values())
        for _, event in Logs(folder).read():              # also of earlier runs: trainings found done are there
            if event["event"] == "stage_progress":
                self._add(event["stage"], event["key"], event["done"], event["figures"])

    @property
    def commit(self) -> str | None:
        """Of diffbench, where it is installed for development."""
        state = self.environment["git"]["diffbench"]
        return state and state["commit"]

    def identity(self, what: str) -> str:
        """16 letters that name a row, a training or the report of this folder of results, wherever it lies."""
        return hashlib.sha256(f"{self.folder_identity} {what}".encode()).hexdigest()[:16]

    def add_progress(self, stage: Stage, done: int, figures: Mapping[str, float]) -> dict[str, float]:
        """One point of a stage's curve, by names such as train/loss; nothing of a stage that reports no loss."""
        return self._add(stage.name, stage.key, done, figures)

    def curve(self, cell_id: str) -> Curve:
        """Of all trainings that are stages of a cell, as far as they are known, in the order of their steps."""
        curve: Curve = {}
        for key in dict.fromkeys(self.cells[cell_id].stages.values()):
            for step, figures in self._curves.get(key[:KEY_LETTERS], {}).items():
                curve.setdefault(step, {}).update(figures)
        return dict(sorted(curve.items()))

    def picture(self, cell_id: str) -> Path | None:
        """The grid of a cell's samples, once it is drawn."""
        path = self.folder / "samples" / f"{cell_id}.png"
        key = self.cells[cell_id].stages.get("sample")
        return path if key is not None and drawn_from(path) == key else None

    def report_files(self) -> list[Path]:
        """Files of the report that exist."""
        return [path for path in (self.folder / name for name in REPORT_FILES) if path.is_file()]

    def report_digest(self) -> str:
        """The same while no row changes."""
        return _digest(self.digests)

    def parameters_of_stage(self, key: str) -> dict[str, Any]:
        """The parameters that all cells of a stage share: of a training those that it depends on."""
        cells = [planned.cell for planned in self.cells.values() if key in planned.stages.values()]
        first, *others = [self._parameters(cell) for cell in cells] or [{}]
        return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}

    def row(self, row: Mapping[str, Any]) -> TrackedRow:
        """A row of the run, as the hook `diffbench_row_added` is given it."""
        cell_id, cell = row["cell_id"], self.cells[row["cell_id"]].cell
        parameters = self._parameters(cell)
        described = (*LEADING, *cell.components(), *parameters, LEFT_OUT, MORE_KINDS, *RAW)
        measured = {name: value for name, value in row.items() if name not in described}
        self.digests[cell_id] = _digest(row)
        return TrackedRow(
            cell_id=cell_id, identity=self.identity(cell_id), digest=self.digests[cell_id], name=self._name(cell_id),
            status=row["status"], reason=row["reason"], parameters=parameters,
            numbers={name: value for name, value in measured.items()
                     if isinstance(value, int | float) and math.isfinite(value)},
            texts={name: value for name, value in measured.items() if isinstance(value, str) and value})

    def _add(self, stage: str, key: str, done: int, figures: Mapping[str, float | None]) -> dict[str, float]:
        if LOSS not in figures:
            return {}
        point = {f"{stage}/{name}": value for name, value in figures.items()
                 if value is not None and math.isfinite(value)}
        self._curves.setdefault(key[:KEY_LETTERS], {})[done] = point
        return point

    def _components(self, cell: Cell) -> dict[str, str]:
        """Parts that a name is made of, by column: components with their options, settings and seeds."""
        labels = {kind: self.plan.names.label(component) for kind, component in cell.components().items()}
        settings = {name: f"{name}={option_value(cell, name, self.plan)}" for name in self._varying}
        return labels | settings | {"seed": f"seed {cell.seed}", "noise_seed": f"noise seed {cell.noise_seed}"}

    def _name(self, cell_id: str) -> str:
        labels = self._labels[cell_id]
        return ", ".join(labels[column] for column in labels if column in self._varying_labels) or labels["scheduler"]

    def _parameters(self, cell: Cell) -> dict[str, Any]:
        parameters = dict(_flat(describe_cell(cell, self.plan.names)))
        derived = {"steps": cell.scheduler.steps, "guidance_scale": cell.conditioning.guidance_scale,
                   "noise_seed": cell.noise_seed, "train_steps": cell.train_steps}
        return {name: value for name, value in (parameters | derived).items() if value is not None}


def _flat(values: Mapping[str, Any], owner: str = "") -> Iterator[tuple[str, Any]]:
    """("scheduler", "ddim"), ("scheduler.eta", 0.5), ...: the description of a cell by the names that columns have."""
    for name, value in values.items():
        if not isinstance(value, Mapping):
            yield owner + name, value
        elif value.keys() == {"component", "options"}:
            yield owner + name, value["component"]
            yield from _flat(value["options"], f"{owner}{name}.")
        else:
            yield from _flat(value, f"{owner}{name}.")


def _differing(described: Iterable[Mapping[str, str]]) -> set[str]:
    """The names that have more than one value."""
    values: dict[str, set[str]] = {}
    for each in described:
        for name, value in each.items():
            values.setdefault(name, set()).add(value)
    return {name for name, of_name in values.items() if len(of_name) > 1}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
