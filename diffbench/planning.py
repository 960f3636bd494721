"""The plan: from cells to stages, each named by the hash of what it depends on, so that work is shared and never repeated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from typing import Any

from diffbench.errors import DataError
from diffbench.machine import fingerprint
from diffbench.matrix import Cell, Matrix
from diffbench.registry import Registry
from diffbench.settings import settings_json
from diffbench.specs import describe, digest, identity, label, rebuild

# Raised when a stage's own code changes what it computes; it is part of every key.
VERSIONS = {"extractor": 1, "classifier": 1, "noisy_classifier": 1, "reference": 1, "train": 2, "sample": 3, "features": 1, "evaluate": 1, "throughput": 1}
JUDGE_SEED = 1                        # the judge and the extractor are two trainings: neither may mark its own work
EXTRACTOR_SEED = 0
GUIDE_SEED = 2                        # nor may the classifier that guides
TRAINING_PARTS = ("backbone", "noise_schedule", "parameterization", "objective", "conditioning")


@dataclass(frozen=True)
class Stage:
    """One piece of work, done by one worker process and published under its key."""

    name: str                         # "train", "sample", ...
    key: str                          # SHA-256 of `identity`
    identity: dict[str, Any]
    task: dict[str, Any]              # what the worker needs to do it
    parents: dict[str, str]           # role -> key of a stage that must be done first
    label: str                        # for people

    @property
    def is_exclusive(self) -> bool:
        """Whether it must have its device to itself."""
        return self.name == "throughput"

    @property
    def gpus(self) -> int:
        """GPUs it works on at once, all of one machine; where it runs on a CPU, processes."""
        return self.task["cell"]["train"]["gpus"] if self.name == "train" else 1


@dataclass
class CellPlan:
    """A cell, why it is skipped or which stages make its row."""

    cell_id: str
    cell: Cell
    skipped: str | None = None
    stages: dict[str, str] = field(default_factory=dict)      # role -> key; "evaluate:fid", "throughput:sampling", ...


@dataclass
class Plan:
    """Every stage a matrix needs, parents before children, and the cells they serve."""

    matrix: Matrix
    registry: Registry
    device: str
    cells: list[CellPlan] = field(default_factory=list)
    stages: dict[str, Stage] = field(default_factory=dict)
    floors: dict[str, str] = field(default_factory=dict)      # dataset label and metric -> stage that measures held-out real images
    notes: list[str] = field(default_factory=list)

    def skip(self, cell_id: str, reason: str) -> None:
        """Makes a cell a skipped row; used by the hook `diffbench_modify_plan`."""
        for planned in self.cells:
            if planned.cell_id == cell_id:
                planned.skipped, planned.stages = reason, {}

    def needed(self) -> dict[str, Stage]:
        """The stages of cells that are not skipped, and their ancestors, parents first."""
        wanted: set[str] = set()
        waiting = [key for planned in self.cells for key in planned.stages.values()] + list(self.floors.values())
        while waiting:
            key = waiting.pop()
            if key not in wanted:
                wanted.add(key)
                waiting.extend(self.stages[key].parents.values())
        return {key: stage for key, stage in self.stages.items() if key in wanted}

    def saved_train_steps(self) -> tuple[int, int]:
        """(training steps to take, training steps if every cell were trained alone)."""
        alone = sum(p.cell.train.steps for p in self.cells if not p.skipped)
        shared = {p.stages["train"]: p.cell.train.steps for p in self.cells if not p.skipped}
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
        return {
            "cells": len(self.cells), "skipped": sum(skipped.values()), "skipped_because": dict(skipped),
            "excluded": [{"count": e.count, "why": e.why} for e in self.matrix.excluded],
            "stages": dict(Counter(stage.name for stage in self.needed().values())),
            "train_steps": steps, "train_steps_if_every_cell_were_trained_alone": alone, "equal_cells": self.equal_cells(), "notes": self.notes,
        }


def make_plan(matrix: Matrix, registry: Registry, device: str) -> Plan:
    """The plan of a matrix on a device ("cpu" or "cuda:0"); raises DataError where data are missing."""
    plan = Plan(matrix=matrix, registry=registry, device=device)
    builder = _Builder(plan)
    for cell_id, cell in zip(matrix.cell_ids, matrix.cells, strict=True):
        builder.content_of(cell)                          # before anything else: missing data are a mistake, not a skipped row
        planned = CellPlan(cell_id, cell, skipped=why_not(cell, matrix, registry))
        plan.cells.append(planned)
        if planned.skipped is None:
            planned.stages = builder.stages_of(cell)
    registry.answers("diffbench_modify_plan", plan=plan)
    return plan


def why_not(cell: Cell, matrix: Matrix, registry: Registry) -> str | None:
    """Why a cell cannot work, or None: first what does not fit together, then what a component refuses."""
    missing = cell.conditioning.ports - cell.backbone.ports
    if missing:
        has = ", ".join(sorted(cell.backbone.ports)) or "no socket"
        return (f"{label(cell.conditioning, registry)} fills the socket {', '.join(sorted(missing))}, "
                f"and {registry.ref_of(cell.backbone).full_name} has {has}")
    # The spacing first: others ask it for its times, which it may not have for this schedule.
    for component in (cell.spacing, *cell.components().values(), *((matrix.extractor,) if matrix.metrics else ())):
        reason = component.why_not(cell)
        if reason:
            return reason
    return None


def describe_cell(cell: Cell, registry: Registry) -> dict[str, Any]:
    """A cell as JSON, to be rebuilt by a worker."""
    return {kind: describe(c, registry) for kind, c in cell.components().items()} | {
        "train": settings_json(cell.train), "sample": settings_json(cell.sample), "seed": cell.seed}


def rebuild_cell(description: dict[str, Any], registry: Registry) -> Cell:
    """The cell that `describe_cell` described."""
    parts: dict[str, Any] = {}
    for f in fields_of(Cell):
        value = description[f.name]
        if f.name == "seed":
            parts[f.name] = value
        elif f.name in ("train", "sample"):
            from diffbench.matrix import BLOCKS

            parts[f.name] = BLOCKS[f.name](**value)
        else:
            parts[f.name] = rebuild(f.name, value, registry)
    return Cell(**parts)


class _Builder:
    """Adds the stages of one cell after another; equal ones fall together by their keys."""

    def __init__(self, plan: Plan):
        self.plan, self.matrix, self.registry = plan, plan.matrix, plan.registry
        self.fingerprints: dict[Any, str] = {}

    def stages_of(self, cell: Cell) -> dict[str, str]:
        described = {"cell": describe_cell(cell, self.registry)}
        metrics = [m for m in self.matrix.metrics if self._applies(m, cell)]
        needs_judge = any(m.needs_judge for m in metrics)
        parts = {kind: identity(getattr(cell, kind), self.registry, ("training",)) for kind in TRAINING_PARTS}
        dataset = self.content_of(cell)
        trained = {"dataset": dataset, **parts, "train": settings_json(cell.train, identity=True), "seed": cell.seed}
        train = self._add("train", trained, described, {}, self._train_label(cell))

        sampling = {kind: identity(getattr(cell, kind), self.registry, ("training", "sampling")) for kind in ("conditioning", "spacing", "scheduler")}
        parents = {"train": train}
        if cell.conditioning.needs_classifier:
            parents["noisy_classifier"] = self._noisy_classifier(cell, dataset, parts["noise_schedule"])
        sample = self._add("sample", {**parents, **sampling, "sample": settings_json(cell.sample, identity=True), "seed": cell.seed}, described,
                           parents, self._sample_label(cell))
        stages = {"train": train, "sample": sample}
        if metrics:
            stages |= self._measured(cell, dataset, sample, metrics, needs_judge)
        stages |= self._throughput(cell, described)
        return stages

    def _noisy_classifier(self, cell: Cell, dataset: Any, schedule: Any) -> str:
        task = {"dataset": describe(cell.dataset, self.registry), "noise_schedule": describe(cell.noise_schedule, self.registry), "seed": GUIDE_SEED}
        name = f"{self.registry.ref_of(cell.dataset).full_name} under {label(cell.noise_schedule, self.registry)}"
        return self._add("noisy_classifier", {"dataset": dataset, "noise_schedule": schedule, "seed": GUIDE_SEED}, task, {}, name)

    def _measured(self, cell: Cell, dataset: Any, sample: str, metrics: list[Any], needs_judge: bool) -> dict[str, str]:
        data = {"dataset": describe(cell.dataset, self.registry)}
        name = self.registry.ref_of(cell.dataset).full_name
        extractor_task = data | {"extractor": describe(self.matrix.extractor, self.registry)}
        extractor_identity = {"dataset": dataset, "extractor": identity(self.matrix.extractor, self.registry, ("measuring",))}
        eyes = {"extractor": self._add("extractor", extractor_identity | {"seed": EXTRACTOR_SEED}, extractor_task | {"seed": EXTRACTOR_SEED}, {}, name)}
        if needs_judge:
            eyes["classifier"] = self._add("classifier", {"dataset": dataset, "seed": JUDGE_SEED}, data | {"seed": JUDGE_SEED}, {}, f"judge for {name}")
        reference = self._add("reference", {"dataset": dataset, **eyes}, extractor_task, eyes, name)
        features = self._add("features", {"sample": sample, **eyes}, extractor_task, {"sample": sample, **eyes}, self._sample_label(cell))
        stages = {"features": features}
        for metric in metrics:
            column = metric.column(self.matrix.extractor)
            measured = {"metric": identity(metric, self.registry, ("measuring",)), "reference": reference}
            task = {"metric": describe(metric, self.registry)}
            stages[f"evaluate:{column}"] = self._add("evaluate", {"features": features, **measured}, task, {"features": features, "reference": reference},
                                                     f"{column} of {self._sample_label(cell)}")
            self.plan.floors[f"{label(cell.dataset, self.registry)}:{column}"] = self._add(
                "evaluate", {"features": "held_out", **measured}, task, {"reference": reference}, f"{column} of held-out real images")
        return stages

    def _throughput(self, cell: Cell, described: dict[str, Any]) -> dict[str, str]:
        settings, machine = self.matrix.throughput, fingerprint(self.plan.device)
        around = {"image_shape": list(cell.dataset.image_shape), "classes": cell.dataset.classes, "condition_shape": cell.dataset.condition_shape,
                  "throughput": settings_json(settings), "machine": machine,
                  "backbone": identity(cell.backbone, self.registry, ("training",)), "precision": cell.train.precision,
                  "parameterization": identity(cell.parameterization, self.registry, ("training",))}
        task = described | {"throughput": settings_json(settings)}
        training = around | {"objective": identity(cell.objective, self.registry, ("training",)), "batch_size": cell.train.batch_size,
                             "conditioning": identity(cell.conditioning, self.registry, ("training",))}
        sampling = around | {"conditioning": identity(cell.conditioning.costs_as(), self.registry, ("training", "sampling")), "clip": cell.sample.clip,
                             "scheduler": identity(cell.scheduler, self.registry, ("sampling",))}
        backbone, scheduler = label(cell.backbone, self.registry), label(cell.scheduler, self.registry)
        return {
            "throughput:training": self._add("throughput", training | {"of": "training"}, task | {"of": "training"}, {}, f"training {backbone}"),
            "throughput:sampling": self._add("throughput", sampling | {"of": "sampling"}, task | {"of": "sampling"}, {},
                                             f"{scheduler} on {backbone}, {label(cell.conditioning, self.registry)}"),
        }

    def content_of(self, cell: Cell) -> dict[str, Any]:
        """The identity of a cell's data set, its content included; raises DataError where it is missing or damaged."""
        if cell.dataset not in self.fingerprints:
            try:
                self.fingerprints[cell.dataset] = cell.dataset.fingerprint()
            except OSError as error:
                raise DataError(f"dataset {self.registry.ref_of(cell.dataset).full_name}: {error}") from error
        return identity(cell.dataset, self.registry, ("training",)) | {"content": self.fingerprints[cell.dataset]}

    def _applies(self, metric: Any, cell: Cell) -> bool:
        reason = metric.why_not(cell)
        note = f"{metric.component_name()} is not measured: {reason}"
        if reason and note not in self.plan.notes:
            self.plan.notes.append(note)
        return reason is None

    def _add(self, name: str, content: dict[str, Any], task: dict[str, Any], parents: dict[str, str], shown: str) -> str:
        whole = {"stage": name, "schema": VERSIONS[name], **content}
        key = digest(whole)
        if key not in self.plan.stages:
            self.plan.stages[key] = Stage(name, key, whole, task, parents, shown)
        return key

    def _train_label(self, cell: Cell) -> str:
        return ", ".join(self._named(cell, ("backbone", "noise_schedule", "parameterization", "conditioning"))) + f", seed {cell.seed}"

    def _sample_label(self, cell: Cell) -> str:
        return ", ".join(self._named(cell, ("backbone", "noise_schedule", "conditioning", "scheduler"))) + f", seed {cell.seed}"

    def _named(self, cell: Cell, kinds: tuple[str, ...]) -> Iterator[str]:
        return (self.registry.ref_of(getattr(cell, kind)).full_name if kind == "backbone" else label(getattr(cell, kind), self.registry) for kind in kinds)
