"""From cells to stages: what each stage depends on, and so its key. Parts that cells share are worked out once."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

from diffbench import source
from diffbench.errors import DataError
from diffbench.machine import fingerprint
from diffbench.matrix import Cell, Matrix
from diffbench.options import Options
from diffbench.planning import CellPlan, Plan, Stage, describe_cell, planned_nfe
from diffbench.registry import Registry
from diffbench.settings import settings_json
from diffbench.specs import Names, digest

# Raised when a stage's own code changes what it computes; it is part of every key.
VERSIONS = {"extractor": 2, "classifier": 1, "noisy_classifier": 1, "reference": 3, "train": 4, "sample": 5, "features": 3, "evaluate": 4, "throughput": 3}
# The modules of the harness that compute a stage. Where the harness itself is under development their source is part of the key, as a
# component's is: whoever edits a loss or a step must not be shown the numbers of before.
_NETWORK = ("compiling", "context", "contracts", "denoiser", "discrete", "training", "transitions", "values")
CODE = {
    "train": (*_NETWORK, "checkpoints", "parallel", "splits"),
    "sample": (*_NETWORK, "batching", "checkpoints", "classifier", "drawing", "noise", "sampling", "splits", "stages", "timing"),
    "throughput": (*_NETWORK, "anchor", "classifier", "drawing", "machine_load", "memory", "noise", "nvml", "sampling", "speed", "timing"),
    "noisy_classifier": ("classifier", "contracts", "discrete", "splits"), "classifier": ("classifier", "splits"),
    "extractor": ("classifier", "evaluation", "judging", "splits", "weights"),
    "reference": ("classifier", "frechet", "judging", "splits"), "features": ("classifier", "judging"),
    "evaluate": ("evaluation", "frechet", "judging", "likelihood", "noise", "ode", "uncertainty"),
}
JUDGE_SEED = 1                        # the judge and the extractor are two trainings: neither may mark its own work
EXTRACTOR_SEED = 0
GUIDE_SEED = 2                        # nor may the classifier that guides
TRAINING_PARTS = ("backbone", "noise_schedule", "parameterization", "objective", "conditioning")


def make_plan(matrix: Matrix, registry: Registry, device: str) -> Plan:
    """The plan of a matrix on a device ("cpu", "cuda" or "cuda:N"); raises DataError where data are missing."""
    plan = Plan(matrix=matrix, registry=registry, device=device)
    builder = _Builder(plan)
    for cell_id, cell in zip(matrix.cell_ids, matrix.cells, strict=True):
        builder.content_of(cell)                          # before anything else: missing data are a mistake, not a skipped row
        planned = CellPlan(cell_id, cell, skipped=builder.why_not(cell))
        plan.cells.append(planned)
        if planned.skipped is None:
            planned.stages = builder.stages_of(cell)
    registry.answers("diffbench_modify_plan", plan=plan)
    return plan


def why_not(cell: Cell, matrix: Matrix, names: Names) -> str | None:
    """Why a cell cannot work, or None: first what does not fit together, then what a component refuses."""
    missing = cell.conditioning.ports - cell.backbone.ports
    if missing:
        has = ", ".join(sorted(cell.backbone.ports)) or "no socket"
        return f"{names.label(cell.conditioning)} fills the socket {', '.join(sorted(missing))}, and {names.full(cell.backbone)} has {has}"
    # The spacing first: others ask it for its times, which it may not have for this schedule.
    sees_samples = any(metric.looks_at == "samples" for metric in matrix.metrics)
    for component in (cell.spacing, *cell.components().values(), *((matrix.extractor,) if sees_samples else ())):
        reason = component.why_not(cell)
        if reason:
            return reason
    return None


class _Builder:
    """Adds the stages of one cell after another; equal ones fall together by their keys.

    A matrix builds each component once and its cells share them, so what depends on some parts of a cell is remembered by these
    parts themselves. By the object, not by its value: 1 and 1.0 are equal in Python and differ in JSON.
    """

    def __init__(self, plan: Plan):
        self.plan, self.matrix, self.names = plan, plan.matrix, plan.names
        self.device = plan.device.partition(":")[0]
        self.fingerprints: dict[Any, str] = {}
        self.heads = {name: {"stage": name, "schema": version, **_under_development(name)} for name, version in VERSIONS.items()}
        self.remembered: dict[tuple[Any, ...], Any] = {}

    def why_not(self, cell: Cell) -> str | None:
        """Why a cell cannot work; asked once for cells that differ in the seed alone."""
        return self._once(lambda: why_not(cell, self.matrix, self.names), "why_not", *cell.components().values(), cell.train, cell.sample)

    def stages_of(self, cell: Cell) -> dict[str, str]:
        """The keys of a cell's stages by their role; stages that are new join the plan."""
        described = {"cell": describe_cell(cell, self.names)}
        training_half = (*(getattr(cell, kind) for kind in ("dataset", *TRAINING_PARTS)), cell.train)
        train = self._once(lambda: self._train(cell, described), "train", *training_half, cell.seed)
        sample = self._sample(cell, described, train)
        stages = {"train": train, "sample": sample}
        of_samples, of_denoiser = self._metrics(cell)
        if of_samples:
            stages |= self._measured(cell, sample, of_samples)
        for metric in of_denoiser:
            role = f"evaluate:{metric.column(self.matrix.extractor)}"
            stages[role] = self._once(lambda metric=metric: self._of_denoiser(cell, described, train, metric), "of denoiser", *training_half, cell.seed, metric)
        return stages | self._once(lambda: self._throughput(cell, described), "throughput", *training_half, cell.scheduler, cell.sample)

    def _train(self, cell: Cell, described: dict[str, Any]) -> str:
        parts = {kind: self.names.identity(getattr(cell, kind), "training") for kind in TRAINING_PARTS}
        settings = settings_json(cell.train, identity=True) | {"precision": cell.train.dtype_on(self.device)}      # auto is not one thing
        content = {"dataset": self.content_of(cell), **parts, "train": settings, "seed": cell.seed}
        work = self._work(cell.train.steps * cell.train.batch_size, cell.dataset, cell.backbone, cell.train.batch_size, cell.train.precision)
        return self._add("train", content, described | work, {}, self._train_label(cell))

    def _sample(self, cell: Cell, described: dict[str, Any], train: str) -> str:
        sampling = {kind: self.names.identity(component, "training", "sampling") for kind, component in cell.components().items()}
        parents = {"train": train}
        if cell.conditioning.needs_classifier:
            parents["noisy_classifier"] = self._once(lambda: self._noisy_classifier(cell), "noisy_classifier", cell.dataset, cell.noise_schedule)
        content = {**parents, **sampling, "sample": settings_json(cell.sample, identity=True) | {"seed": cell.noise_seed}, "seed": cell.seed}
        work = self._work(cell.sample.count * planned_nfe(cell), cell.dataset, cell.backbone)
        return self._add("sample", content, described | work, parents, self._sample_label(cell))

    def _noisy_classifier(self, cell: Cell) -> str:
        content = {"dataset": self.content_of(cell), "noise_schedule": self.names.identity(cell.noise_schedule, "training"), "seed": GUIDE_SEED}
        task = {"dataset": self.names.describe(cell.dataset), "noise_schedule": self.names.describe(cell.noise_schedule), "seed": GUIDE_SEED}
        shown = f"{self.names.full(cell.dataset)} under {self.names.label(cell.noise_schedule)}"
        return self._add("noisy_classifier", content, task | self._work(1, cell.dataset), {}, shown)

    def _of_denoiser(self, cell: Cell, described: dict[str, Any], train: str, metric: Any) -> str:
        """A metric of a training: what it sees of the cell is what the training is keyed by, and these three as they act once trained."""
        acting = {kind: self.names.identity(getattr(cell, kind), "training", "sampling") for kind in ("backbone", "noise_schedule", "parameterization")}
        content = {"train": train, "metric": self.names.identity(metric, "measuring"), **acting}
        task = described | {"metric": self.names.describe(metric)} | self._work(1, cell.dataset, cell.backbone, cell.noise_schedule, metric)
        return self._add("evaluate", content, task, {"train": train}, f"{metric.column(self.matrix.extractor)} of {self._train_label(cell)}")

    def _measured(self, cell: Cell, sample: str, metrics: list[Any]) -> dict[str, str]:
        extractor = self.matrix.extractor
        needs = {name: any(getattr(m, name) for m in metrics) for name in ("needs_judge", "needs_training")}
        eyes, reference, task = self._once(lambda: self._reference(cell, **needs), "reference", cell.dataset, *needs.values())
        shown = self._sample_label(cell)
        seen = task | self._work(cell.sample.count, cell.dataset, extractor)
        features = self._add("features", {"sample": sample, **eyes}, seen, {"sample": sample, **eyes}, shown)
        stages = {"features": features}
        for metric in metrics:
            column = metric.column(extractor)
            measured = {"metric": self.names.identity(metric, "measuring"), "reference": reference}
            task = {"metric": self.names.describe(metric)} | self._work(cell.sample.count, cell.dataset, extractor, metric)
            name = f"{self.names.label(cell.dataset)}:{column}"
            floor = self.plan.floors[name] = self._floor("held_out", "held-out real images", cell, metric, column, measured, task)
            parents = {"features": features, "reference": reference} | ({"held_out": floor} if metric.beside_held_out else {})
            stages[f"evaluate:{column}"] = self._add("evaluate", {**measured, **parents}, task, parents, f"{column} of {shown}")
            if metric.prefers_copies and needs["needs_training"]:
                measured |= {"count": cell.sample.count}
                self.plan.copies[name] = self._floor("train", "training images", cell, metric, column, measured, task | {"count": cell.sample.count})
        return stages

    def _floor(self, split: str, what: str, cell: Cell, metric: Any, column: str, measured: dict[str, Any], task: dict[str, Any]) -> str:
        """A metric of real images in place of generated ones."""
        return self._once(lambda: self._add("evaluate", {"features": split, **measured}, task | {"split": split}, {"reference": measured["reference"]},
                                            f"{column} of {what}"), split, cell.dataset, metric, measured["reference"], task.get("count"))

    def _reference(self, cell: Cell, needs_judge: bool, needs_training: bool) -> tuple[dict[str, str], str, dict[str, Any]]:
        """Extractor and, where a metric needs one, judge; what they see in the real images; the task that names both."""
        dataset, extractor, shown = self.content_of(cell), self.matrix.extractor, self.names.full(cell.dataset)
        data = {"dataset": self.names.describe(cell.dataset)}
        task = data | {"extractor": self.names.describe(extractor)}
        look = self._work(1, cell.dataset, extractor)
        content = {"dataset": dataset, "extractor": self.names.identity(extractor, "measuring"), "seed": EXTRACTOR_SEED,
                   "weights": self._once(extractor.fingerprint, "fingerprint", extractor)}
        eyes = {"extractor": self._add("extractor", content, task | look | {"seed": EXTRACTOR_SEED}, {}, shown)}
        if needs_judge:
            judge = data | {"seed": JUDGE_SEED} | self._work(1, cell.dataset)
            eyes["classifier"] = self._add("classifier", {"dataset": dataset, "seed": JUDGE_SEED}, judge, {}, f"judge for {shown}")
        reference = self._add("reference", {"dataset": dataset, **eyes, "train": needs_training}, task | look | {"needs_training": needs_training}, eyes, shown)
        return eyes, reference, task

    def _throughput(self, cell: Cell, described: dict[str, Any]) -> dict[str, str]:
        settings = settings_json(self.matrix.throughput)
        around = {"image_shape": list(cell.dataset.image_shape), "classes": cell.dataset.classes, "condition_shape": cell.dataset.condition_shape,
                  "machine": fingerprint(self.plan.device)}
        repeats, images = self.matrix.throughput.repeats, sum(self.matrix.throughput.batch_size)
        training = around | {kind: self.names.identity(getattr(cell, kind), "training") for kind in TRAINING_PARTS if kind != "noise_schedule"} | {
            "of": "training", "throughput": {"repeats": repeats}, "batch_size": cell.train.batch_size, "dtype": cell.train.dtype_on(self.device)}
        costs = self._once(cell.conditioning.costs_as, "costs", cell.conditioning)
        network = {"backbone": cell.backbone, "parameterization": cell.parameterization, "conditioning": costs}
        sampling = around | {kind: self.names.identity(component, "training", "sampling") for kind, component in network.items()} | {
            "of": "sampling", "throughput": settings, "scheduler": self.names.identity(cell.scheduler, "sampling"), "clip": cell.sample.clip,
            "dtype": "float32", "learned_variance": cell.objective.learns_variance}
        backbone, task = self.names.label(cell.backbone), described | {"throughput": settings}
        shown = f"{self.names.label(cell.scheduler)} on {backbone}, {self.names.label(cell.conditioning)}"
        steps = {"of": "training"} | self._work(repeats * cell.train.batch_size, cell.dataset, cell.backbone, "training")
        runs = {"of": "sampling"} | self._work(repeats * images * planned_nfe(cell), cell.dataset, cell.backbone, "sampling")
        return {
            "throughput:training": self._add("throughput", training, task | steps, {}, f"training {backbone}"),
            "throughput:sampling": self._add("throughput", sampling, task | runs, {}, shown),
        }

    def content_of(self, cell: Cell) -> dict[str, Any]:
        """The identity of a cell's data set, its content included; raises DataError where it is missing or damaged."""
        return self._once(lambda: self._content(cell.dataset), "content", cell.dataset)

    def _content(self, dataset: Any) -> dict[str, Any]:
        if dataset not in self.fingerprints:
            try:
                self.fingerprints[dataset] = dataset.fingerprint()
            except OSError as error:
                raise DataError(f"dataset {self.names.full(dataset)}: {error}") from error
            if remark := dataset.remark():
                self.plan.remarks[self.names.label(dataset)] = remark
                self.plan.notes.append(f"{self.names.label(dataset)}: {remark}")
        return self.names.identity(dataset, "training") | {"content": self.fingerprints[dataset]}

    def _metrics(self, cell: Cell) -> tuple[list[Any], list[Any]]:
        """The metrics that apply to a cell, those of its samples and those of its denoiser; a note in the plan for each that does not."""
        def chosen() -> tuple[list[Any], list[Any]]:
            apply = [m for m in self.matrix.metrics if self._applies(m, cell)]
            return [m for m in apply if m.looks_at == "samples"], [m for m in apply if m.looks_at == "denoiser"]
        return self._once(chosen, "metrics", *cell.components().values(), cell.train, cell.sample)

    def _applies(self, metric: Any, cell: Cell) -> bool:
        reason = metric.why_not(cell)
        if metric.looks_at == "samples" and metric.needs_logits and not self.matrix.extractor.has_logits:
            reason = f"{self.names.full(self.matrix.extractor)} gives no logits"
        note = f"{metric.component_name()} is not measured: {reason}"
        if reason and note not in self.plan.notes:
            self.plan.notes.append(note)
        return reason is None

    def _train_label(self, cell: Cell) -> str:
        shown = [self.names.full(cell.backbone), *map(self.names.label, (cell.noise_schedule, cell.parameterization, cell.conditioning))]
        return f"{', '.join(shown)}, seed {cell.seed}"

    def _sample_label(self, cell: Cell) -> str:
        shown = [self.names.full(cell.backbone), *map(self.names.label, (cell.noise_schedule, cell.conditioning, cell.scheduler))]
        return f"{', '.join(shown)}, seed {cell.seed}" + (f", noise seed {cell.noise_seed}" if cell.noise_seed != cell.seed else "")

    def _add(self, name: str, content: dict[str, Any], task: dict[str, Any], parents: dict[str, str], shown: str) -> str:
        whole = {**self.heads[name], **content}
        key = digest(whole)
        if key not in self.plan.stages:
            self.plan.stages[key] = Stage(name, key, whole, task, parents, shown)
        return key

    def _work(self, units: int, *parts: Any) -> dict[str, Any]:
        """How much a stage does, and the parts that decide what one unit of it costs: what its time is estimated by."""
        like = self._once(lambda: digest([self.names.describe(p) if isinstance(p, Options) else p for p in parts])[:12], "work", *parts)
        return {"work": {"like": like, "units": max(1, units)}}

    def _once(self, make: Callable[[], Any], what: str, *parts: Any) -> Any:
        """What `make` gives, made once for the same parts; every part lives as long as the matrix."""
        key = (what, *map(id, parts))
        if key not in self.remembered:
            self.remembered[key] = make()
        return self.remembered[key]


def _under_development(stage: str) -> dict[str, str]:
    """The source of what computes a stage, where the harness is installed for development."""
    if not source.is_editable(importlib.metadata.distribution("diffbench")):
        return {}
    return {"harness": source.code_hash(*(f"diffbench.{module}" for module in CODE[stage]))}
