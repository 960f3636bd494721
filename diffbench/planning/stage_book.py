"""The book of a plan's stages: keys and parents of stages, and what is worked out once for all cells. Used by
`stage_graph`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffbench.contracts.cell import Cell, Recipe
from diffbench.contracts.options import Options
from diffbench.errors import DataError
from diffbench.matrix.describing import further, is_necessary
from diffbench.planning.plan import Plan
from diffbench.planning.remarks import Remarks
from diffbench.planning.stage import Stage
from diffbench.registry.remembered import Remembered
from diffbench.store.digest import digest


class StageBook(Remembered):
    """Adds stages to a plan; equal ones fall together by their keys.

    A matrix builds each component once and its cells share them, so what depends on some parts of a cell is remembered
    by these parts themselves.
    """

    def __init__(self, plan: Plan, remarks: Remarks):
        super().__init__()
        self.plan, self.matrix, self.names, self.remarks = plan, plan.matrix, plan.names, remarks
        self.device, self.stage_kinds = plan.device.partition(":")[0], plan.registry.stage_kinds
        self.fingerprints: dict[Any, str] = {}
        self.heads: dict[str, dict[str, Any]] = {}        # what stands in the keys of all stages of a kind

    def add(self, name: str, content: dict[str, Any], task: dict[str, Any], parents: dict[str, str], shown: str,
             needs: Mapping[str, str] | None = None, **how: Any) -> str:
        """The key of a stage, which joins the plan.
        needs: keys of further parents, each of which becomes part of its own.
        """
        if name not in self.heads:
            self.heads[name] = self.stage_kinds.key_material(name)
        needs = needs or {}
        # named like a component of the stage
        apart = {role: key for role, key in needs.items() if role in content}
        whole = {**self.heads[name], **content, **{role: key for role, key in needs.items() if role not in apart},
                 **({"needs": apart} if apart else {})}
        key = digest(whole)
        if key not in self.plan.stages:
            self.plan.stages[key] = Stage(name, key, whole, task, {**parents, **needs}, shown, **how)
        return key

    def work(self, units: int, *parts: Any, evaluations: int = 0) -> dict[str, Any]:
        """Work of a stage, and the parts that decide what one unit of it costs: the basis of its estimated time.

        evaluations: of the network that the first two parts, data set and backbone, decide, of one image each and
        about. In stages of any kind they take about the same time.
        """
        def digest_of(parts: tuple[Any, ...]) -> str:
            return self.once(lambda: digest([self.names.describe(p) if isinstance(p, Options) else p for p in parts])[
                :12], "work", *parts)
        work: dict[str, Any] = {"like": digest_of(parts), "units": max(1, units)}
        return {"work": work | ({"network": digest_of(parts[:2]), "evaluations": evaluations} if evaluations else {})}

    def identities(self, components: Mapping[str, Any], *halves: str) -> dict[str, Any]:
        """Of components by kind; those of other than necessary kinds stand apart,
        as one may have the name of another part.
        """
        parts = {kind: self.names.identity(component, *halves) for kind, component in components.items()}
        extra = {kind: parts.pop(kind) for kind in components if not is_necessary(kind)}
        return parts | ({"extra": extra} if extra else {})

    def further(self, components: Mapping[str, Any]) -> dict[str, Any]:
        return further(components, self.names)

    def content_of(self, dataset: Any) -> dict[str, Any]:
        """The identity of a data set, its content included; raises DataError where it is missing or damaged."""
        return self.once(lambda: self._content(dataset), "content", dataset)

    def _content(self, dataset: Any) -> dict[str, Any]:
        if dataset not in self.fingerprints:
            try:
                self.fingerprints[dataset] = dataset.fingerprint()
            except OSError as error:
                raise DataError(f"dataset {self.names.full(dataset)}: {error}") from error
            self.remarks.add(self.names.label(dataset), dataset.remark())
        return self.names.identity(dataset, "training") | {"content": self.fingerprints[dataset]}

    def train_label(self, recipe: Recipe) -> str:
        """Name of a training, for people: 'unet, linear, epsilon, film, seed 0'."""
        components = recipe.training_components()
        return self._label(components, "noise_schedule", "parameterization", "conditioning") + f", seed {recipe.seed}"

    def sample_label(self, cell: Cell) -> str:
        """Name of the samples of a cell: 'unet, linear, film, ddim(steps=20), seed 0'."""
        label = self._label(cell.components(), "noise_schedule", "conditioning", "scheduler") + f", seed {cell.seed}"
        return label + (f", noise seed {cell.noise_seed}" if cell.noise_seed != cell.seed else "")

    def _label(self, components: dict[str, Any], *kinds: str) -> str:
        """The backbone, the components of these kinds and those that are no defaults of further kinds, for people."""
        def made() -> str:
            named = [components[kind] for kind in kinds] + [*self.further(components).values()]
            return ", ".join([self.names.full(components["backbone"]), *map(self.names.label, named)])
        return self.once(made, ("label", *kinds), *components.values())
