"""From cells to stages: what each stage depends on, and so its key. Parts that cells share are worked out once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from diffbench.contracts.cell import Cell, Recipe
from diffbench.contracts.component import Component
from diffbench.contracts.needs import Need, may_need, needs_of
from diffbench.contracts.settings import settings_json
from diffbench.errors import BrokenComponent
from diffbench.machine.fingerprint import fingerprint
from diffbench.matrix.describing import (
    describe_cell,
    describe_recipe,
    keyed,
    planned_nfe,
    seen_in_training,
)
from diffbench.matrix.matrix import Matrix
from diffbench.matrix.settings import TIMED_TRAIN_STEPS, Throughput
from diffbench.planning.fitting import why_not
from diffbench.planning.plan import CellPlan, Plan
from diffbench.planning.remarks import Remarks
from diffbench.planning.stage_book import StageBook
from diffbench.registry.registry import Registry
from diffbench.wording import unknown_name

PASSES = 3                            # forward passes that one image of a training step takes the time of
WARM = 5                              # laps besides those asked for: warm-up, and those of the anchor
# Stages that the plan makes of cells and metrics; all others are made for components that need them.
OF_CELLS = frozenset({"train", "sample", "reference", "features", "evaluate", "throughput"})


def make_plan(matrix: Matrix, registry: Registry, device: str) -> Plan:
    """The plan of a matrix on a device ("cpu", "cuda" or "cuda:N"); raises DataError where data are missing."""
    plan = Plan(matrix=matrix, registry=registry, device=device)
    builder = _Builder(plan, remarks := Remarks(plan))
    for cell_id, cell in zip(matrix.cell_ids, matrix.cells, strict=True):
        # before anything else: missing data are a mistake, not a skipped row
        builder.content_of(cell.dataset)
        planned = CellPlan(cell_id, cell, skipped=builder.why_not(cell))
        plan.cells.append(planned)
        if planned.skipped is None:
            planned.stages = builder.stages_of(cell)
            remarks.describe_classes(cell)
    registry.answers("diffbench_modify_plan", plan=plan)
    return plan


class _Builder(StageBook):
    """The stages of one cell after another, added to a plan."""

    def why_not(self, cell: Cell) -> str | None:
        """Why a cell cannot work; asked once for cells that differ in the seed alone."""
        return self.once(lambda: why_not(cell, self.matrix, self.names), "why_not", *cell.components().values(),
                          cell.train, cell.sample)

    def stages_of(self, cell: Cell) -> dict[str, str]:
        """The keys of a cell's stages by their role; stages that are new join the plan."""
        described = {"cell": describe_cell(cell, self.names)}
        training_half = (*cell.training_components().values(), cell.train)
        train = self._train(cell)
        sample = self._sample(cell, described, train)
        stages = {"train": train, "sample": sample}
        of_samples, of_denoiser = self._metrics(cell)
        if of_samples:
            stages |= self._measured(cell, sample, of_samples)
        for metric in of_denoiser:
            role = f"evaluate:{metric.column(self.matrix.extractor)}"
            stages[role] = self.once(lambda metric=metric: self._of_denoiser(cell, described, train, metric),
                                      "of denoiser", *training_half, cell.seed, metric)
        timed = self.matrix.throughput
        return stages if timed is None else stages | self.once(
            lambda: self._throughput(cell, described, timed), "throughput",
            *(component for kind, component in cell.components().items() if kind != "spacing"), cell.train, cell.sample)

    def _train(self, recipe: Recipe) -> str:
        return self.once(lambda: self._training(recipe), "train", *recipe.training_components().values(), recipe.train,
                          recipe.seed)

    def _training(self, recipe: Recipe) -> str:
        parts, needs = self._in_training(recipe), self._needs("train", recipe, recipe.training_components().values())
        if not recipe.method.trains:
            return self._given(recipe, parts, needs)
        # auto is not one thing
        settings = settings_json(recipe.train, identity=True) | {"precision": recipe.train.dtype_on(self.device)}
        content = {"dataset": self.content_of(recipe.dataset), **parts, "train": settings, "seed": recipe.seed}
        work = self.work(recipe.train.steps * recipe.train.batch_size, recipe.dataset, recipe.backbone,
                          recipe.train.batch_size, recipe.train.precision,
                          *self.further(recipe.training_components()).values(),
                          evaluations=PASSES * recipe.train.steps * recipe.train.batch_size)
        task = {"recipe": describe_recipe(recipe, self.names)} | work
        return self.add("train", content, task, {}, self.train_label(recipe), needs, gpus=recipe.train.gpus)

    def _given(self, recipe: Recipe, parts: dict[str, Any], needs: dict[str, str]) -> str:
        """Weights that are there already: their content decides, not how others would be trained."""
        content = {"dataset": self.content_of(recipe.dataset), **parts, "given": recipe.method.fingerprint()}
        task = {"recipe": describe_recipe(recipe, self.names)} | self.work(1, recipe.dataset, recipe.backbone,
                                                                           recipe.method)
        return self.add("train", content, task, {}, self.train_label(recipe), needs)

    def _in_training(self, recipe: Recipe) -> dict[str, Any]:
        """The identities of the components that a training sees, without its data set."""
        seen = seen_in_training(recipe.training_components(), self.names)
        return self.identities({kind: component for kind, component in seen.items() if kind != "dataset"}, "training")

    def _sample(self, cell: Cell, described: dict[str, Any], train: str) -> str:
        components = cell.components()

        def without_seeds() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
            drawn = cell.sample.count * planned_nfe(cell)
            work = self.work(drawn, cell.dataset, cell.backbone, *self.further(components).values(), evaluations=drawn)
            return (self.identities(keyed(components, self.names), "training", "sampling"),
                    settings_json(cell.sample, identity=True), work)
        sampling, settings, work = self.once(without_seeds, "sampling", *components.values(), cell.sample)
        parents, needs = {"train": train}, self._needs("sample", cell, components.values())
        content = {**parents, **sampling, "sample": {**settings, "seed": cell.noise_seed}, "seed": cell.seed}
        batch = None if cell.sample.batch_size == "auto" else min(int(cell.sample.batch_size), cell.sample.count)
        return self.add("sample", content, described | work, parents, self.sample_label(cell), needs, batch=batch)

    def _needs(self, stage: str, recipe: Recipe, components: Iterable[Component]) -> dict[str, str]:
        """The keys of what components need of a stage, by role; the stages that make it join the plan."""
        needs: dict[str, str] = {}
        parts = tuple(components)
        for component in self.once(lambda: tuple(filter(may_need, parts)), "may need", *parts):
            try:
                keys = [(need.role, self._fit(need, component)) for need in needs_of(component, stage, recipe)]
            except RecursionError:
                raise BrokenComponent(
                    f"{self.names.full(component)} needs stages that need others without end") from None
            for role, key in keys:
                if needs.setdefault(role, key) != key:
                    raise BrokenComponent(f"{self.names.full(component)} needs another {role} than a component beside "
                                          "it: give its need a name of its own")
        return needs

    def _fit(self, need: Need, component: Component) -> str:
        """The stage that makes what a component needs."""
        if need.recipe is not None:
            return self._of_recipe(need, need.recipe, component)
        if need.stage not in self.stage_kinds or need.stage in OF_CELLS:
            reason = unknown_name("stage for components", need.stage, set(self.stage_kinds) - OF_CELLS)
            raise BrokenComponent(f"{self.names.full(component)} needs a stage that cannot be: {reason}")
        halves = {part.kind: self.plan.registry.kinds[part.kind].half for part in need.parts}
        content = {part.kind: self.content_of(part) if part.kind == "dataset"
                   else self.names.identity(part, halves[part.kind]) for part in need.parts}
        task = {part.kind: self.names.describe(part) for part in need.parts} | dict(need.settings) | self.work(
            1, *need.parts)
        label = ", ".join([*map(self.names.full, need.parts[:1]), *map(self.names.label, need.parts[1:])])
        needs = {inner.role: self._fit(inner, component) for inner in need.needs}
        return self.add(need.stage, content | dict(need.settings), task, {}, label, needs)

    def _of_recipe(self, need: Need, recipe: Recipe, component: Component) -> str:
        """Another training, or the samples of another cell."""
        if need.stage == "train":
            return self._train(recipe)
        if need.stage == "sample" and isinstance(recipe, Cell):
            return self._sample(recipe, {"cell": describe_cell(recipe, self.names)}, self._train(recipe))
        raise BrokenComponent(f"{self.names.full(component)} needs the stage {need.stage!r} of a recipe: only 'train' "
                              "is made of one, and 'sample' of a cell")

    def _of_denoiser(self, cell: Cell, described: dict[str, Any], train: str, metric: Any) -> str:
        """A metric of a training: what it sees of the cell is what the training is keyed by,
        and these three as they act once trained.
        """
        acting = {kind: getattr(cell, kind) for kind in ("backbone", "noise_schedule", "parameterization")}
        acting |= self.further(cell.training_components())
        content = {"train": train, **self._measuring(metric), **self.identities(acting, "training", "sampling")}
        task = described | {"metric": self.names.describe(metric)} | self.work(
            1, cell.dataset, cell.backbone, cell.noise_schedule, metric)
        needs = self._needs("evaluate", cell, [*cell.training_components().values(), metric])
        return self.add("evaluate", content, task, {"train": train},
                         f"{metric.column(self.matrix.extractor)} of {self.train_label(cell)}", needs)

    def _measured(self, cell: Cell, sample: str, metrics: list[Any]) -> dict[str, str]:
        extractor = self.matrix.extractor
        eyes, reference, task, sees_training = self.once(lambda: self._reference(cell, metrics), "reference",
                                                          cell.dataset, *metrics)
        label = self.sample_label(cell)
        seen = task | self.work(cell.sample.count, cell.dataset, extractor)
        features = self.add("features", {"sample": sample}, seen, {"sample": sample}, label, eyes)
        stages = {"features": features}
        for metric in metrics:
            column, name, measured, task = self.once(
                lambda metric=metric: self._measuring_samples(cell, metric, reference),
                "measuring", cell.dataset, cell.sample, metric, *metrics)
            needs = self._needs("evaluate", cell, [metric])
            if metric.has_floor:
                floor = self._floor("held_out", "held-out real images", cell, metric, column, measured, task, needs)
                self.plan.floors[name] = floor
            parents = {"features": features, "reference": reference}
            if metric.beside_held_out:
                parents["held_out"] = self.plan.floors[name]
            stages[f"evaluate:{column}"] = self.add("evaluate", {**measured, **parents}, task, parents,
                                                     f"{column} of {label}", needs)
            if metric.prefers_copies and sees_training:
                count = {"count": cell.sample.count}
                self.plan.copies[name] = self._floor("train", "training images", cell, metric, column, measured | count,
                                                     task | count, needs)
        return stages

    def _measuring_samples(self, cell: Cell, metric: Any,
                           reference: str) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
        """Column, name, key material and task of a metric of samples: the same for cells of one data set and count."""
        extractor = self.matrix.extractor
        column = metric.column(extractor)
        class_names = {"class_names": list(cell.dataset.class_names)} if metric.needs_class_names else {}
        measured = {**self._measuring(metric), "reference": reference, **class_names}
        work = self.work(cell.sample.count, cell.dataset, extractor, metric)
        return (column, f"{self.names.label(cell.dataset)}:{column}", measured,
                {"metric": self.names.describe(metric), **class_names} | work)

    def _measuring(self, metric: Any) -> dict[str, Any]:
        """The identity of a metric, with what it reads from outside."""
        outside = self.once(metric.fingerprint, "fingerprint", metric)
        return {"metric": self.names.identity(metric, "measuring")} | ({"outside": outside} if outside else {})

    def _floor(self, split: str, what: str, cell: Cell, metric: Any, column: str, measured: dict[str, Any],
               task: dict[str, Any],
               needs: dict[str, str]) -> str:
        """A metric of real images in place of generated ones."""
        def add() -> str:
            parents = {"reference": measured["reference"]}
            return self.add("evaluate", {"features": split, **measured}, task | {"split": split}, parents,
                             f"{column} of {what}", needs)
        return self.once(add, f"{split} {sorted(needs.items())}", cell.dataset, metric, measured["reference"],
                          task.get("count"))

    def _reference(self, cell: Cell, metrics: list[Any]) -> tuple[dict[str, str], str, dict[str, Any], bool]:
        """Keys of the networks that see images: the extractor's weights and, where a metric asks for one, the judge; of
        what they see in the real images, with the task that names the extractor, and whether they see the training
        images too.
        """
        extractor, sees_training = self.matrix.extractor, any(metric.needs_training for metric in metrics)
        task = {"dataset": self.names.describe(cell.dataset), "extractor": self.names.describe(extractor)}
        eyes = self._needs("features", cell, [extractor, *metrics])
        reference = self.add("reference", {"dataset": self.content_of(cell.dataset), "train": sees_training},
                              task | self.work(1, cell.dataset, extractor) | {"needs_training": sees_training}, {},
                              self.names.full(cell.dataset), eyes)
        return eyes, reference, task, sees_training

    def _throughput(self, cell: Cell, described: dict[str, Any], timed: Throughput) -> dict[str, str]:
        settings = settings_json(timed)
        around = {"image_shape": list(cell.data_shape), "classes": cell.dataset.classes,
                  "condition_shape": cell.dataset.condition_shape,
                  "machine": fingerprint(self.plan.device)}
        repeats, images = timed.repeats, sum(timed.batch_size)
        training = around | {kind: part for kind, part in self._in_training(cell).items()
                             if kind != "noise_schedule"} | {
                                 "of": "training", "throughput": {"repeats": repeats},
                                 "batch_size": cell.train.batch_size, "dtype": cell.train.dtype_on(self.device)}
        costs = self.once(cell.conditioning.costs_as, "costs", cell.conditioning)
        network = {"backbone": cell.backbone, "parameterization": cell.parameterization, "conditioning": costs,
                   **self.further(cell.components())}
        sampling = around | self.identities(network, "training", "sampling") | {
            "of": "sampling", "throughput": settings, "scheduler": self.names.identity(cell.scheduler, "sampling"),
            "clip": cell.sample.clip,
            "dtype": "float32", "learned_variance": cell.objective.learns_variance}
        backbone, task = self.names.label(cell.backbone), described | {"throughput": settings}
        label = f"{self.names.label(cell.scheduler)} on {backbone}, {self.names.label(cell.conditioning)}"
        steps = {"of": "training"} | self.work(repeats * cell.train.batch_size, cell.dataset, cell.backbone,
                                               "training",
                                               evaluations=PASSES * (repeats + WARM) * TIMED_TRAIN_STEPS
                                               * cell.train.batch_size)
        runs = {"of": "sampling"} | self.work(repeats * images * planned_nfe(cell), cell.dataset, cell.backbone,
                                               "sampling",
                                               evaluations=(repeats + WARM) * images * planned_nfe(cell))
        in_training, in_sampling = (self._needs("throughput", cell, parts)
                                    for parts in (cell.training_components().values(), cell.components().values()))
        return {
            "throughput:training": self.add("throughput", training, task | steps, {}, f"training {backbone}",
                                             in_training),
            "throughput:sampling": self.add("throughput", sampling, task | runs, {}, label, in_sampling),
        }

    def _metrics(self, cell: Cell) -> tuple[list[Any], list[Any]]:
        """The metrics that apply to a cell, those of its samples and those of its denoiser;
        a note in the plan for each that does not.
        """
        def chosen() -> tuple[list[Any], list[Any]]:
            apply = [m for m in self.matrix.metrics if self._applies(m, cell)]
            return [m for m in apply if m.looks_at == "samples"], [m for m in apply if m.looks_at == "denoiser"]
        return self.once(chosen, "metrics", *cell.components().values(), cell.train, cell.sample)

    def _applies(self, metric: Any, cell: Cell) -> bool:
        reason, extractor = metric.why_not(cell), self.matrix.extractor
        if metric.looks_at == "samples" and metric.needs_logits and not extractor.has_logits:
            reason = f"{self.names.full(extractor)} gives no logits"
        note = f"{metric.component_name()} is not measured: {reason}" if reason else ""
        if not reason and metric.looks_at == "samples" and (doubt := metric.why_no_interval(cell, extractor)):
            note = f"{metric.column(extractor)} may have no interval: {doubt}"
        if note and note not in self.plan.notes:
            self.plan.notes.append(note)
        return reason is None
