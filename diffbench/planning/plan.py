"""The plan: the stages a matrix needs, each named by the hash of what it depends on, and the cells they serve.
Made by `stage_graph`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from diffbench.contracts.cell import Cell
from diffbench.matrix.describing import planned_nfe
from diffbench.matrix.matrix import Matrix
from diffbench.planning.stage import Stage
from diffbench.registry.describing import Names
from diffbench.registry.registry import Registry


@dataclass
class CellPlan:
    """A cell, why it is skipped or which stages make its row."""

    cell_id: str
    cell: Cell
    skipped: str | None = None
    stages: dict[str, str] = field(default_factory=dict)      # role -> key; "evaluate:fid", "throughput:sampling", ...

    @property
    def evaluations(self) -> int:
        """Network evaluations of its samples, as its scheduler and its conditioning claim them."""
        return self.cell.sample.count * planned_nfe(self.cell)


@dataclass
class Plan:
    """Every stage a matrix needs, parents before children, and the cells they serve."""

    matrix: Matrix
    registry: Registry
    device: str
    cells: list[CellPlan] = field(default_factory=list)
    stages: dict[str, Stage] = field(default_factory=dict)
    floors: dict[str, str] = field(default_factory=dict)   # dataset label and metric -> stage that measures held-out
                                                           # real images
    copies: dict[str, str] = field(default_factory=dict)   # and that measures training images, as a model would give
                                                           # that knows nothing else
    remarks: dict[str, str] = field(default_factory=dict)  # dataset label -> what was left out of it and converted
    classes: dict[str, str] = field(default_factory=dict)  # dataset label -> its classes with their images
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = Names(self.registry)

    def skip(self, cell_id: str, reason: str) -> None:
        """Makes a cell a skipped row; used by the hook `diffbench_modify_plan`."""
        for planned in self.cells:
            if planned.cell_id == cell_id:
                planned.skipped, planned.stages = reason, {}

    def needed(self) -> dict[str, Stage]:
        """The stages of cells that are not skipped, and their ancestors, parents first."""
        wanted = {key for planned in self.cells for key in planned.stages.values()}.union(
            self.floors.values(), self.copies.values())
        for key in reversed(self.stages):
            if key in wanted:
                wanted.update(self.stages[key].parents.values())
        return {key: stage for key, stage in self.stages.items() if key in wanted}

    def most_at_once(self) -> int:
        """Number of its stages that could run at the same time:
        the most of one kind, but for those that need the machine to themselves.
        """
        return max(Counter(stage.name for stage in self.needed().values() if not stage.is_exclusive).values(),
                   default=1)

    def saved_train_steps(self) -> tuple[int, int]:
        """(training steps to take, training steps if every cell were trained alone)."""
        alone = sum(p.cell.train_steps for p in self.cells if not p.skipped)
        shared = {p.stages["train"]: p.cell.train_steps for p in self.cells if not p.skipped}
        return sum(shared.values()), alone

    def saved_evaluations(self) -> tuple[int, int]:
        """(network evaluations of sampling to make, the same if every cell were sampled alone)."""
        alone = sum(p.evaluations for p in self.cells if not p.skipped)
        shared = {p.stages["sample"]: p.evaluations for p in self.cells if not p.skipped}
        return sum(shared.values()), alone

    def equal_cells(self) -> list[list[str]]:
        """Groups of cells whose samples are the same by a reduction between components: run once."""
        groups: dict[str, list[str]] = {}
        for planned in self.cells:
            if not planned.skipped:
                groups.setdefault(planned.stages["sample"], []).append(planned.cell_id)
        return [ids for ids in groups.values() if len(ids) > 1]

    def summary(self) -> dict[str, Any]:
        """The plan in numbers, for `diffbench plan --json` and the first lines of a run."""
        skipped = Counter(p.skipped for p in self.cells if p.skipped)
        steps, alone = self.saved_train_steps()
        evaluations, evaluations_alone = self.saved_evaluations()
        return {
            "cells": len(self.cells), "skipped": sum(skipped.values()), "skipped_because": dict(skipped),
            "excluded": [{"count": e.count, "why": e.why} for e in self.matrix.excluded],
            "stages": dict(Counter(stage.name for stage in self.needed().values())),
            "train_steps": steps, "train_steps_if_every_cell_were_trained_alone": alone,
            "nfe": evaluations, "nfe_if_every_cell_were_sampled_alone": evaluations_alone,
            "equal_cells": self.equal_cells(),
            "classes": self.classes, "notes": self.notes,
        }
