"""Conversion of cells and recipes to JSON and back, and planned network evaluations.

Used by `planning` and `stages`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffbench.contracts.cell import Cell, Recipe, component_kinds, optional_kinds
from diffbench.contracts.settings import Sample, Train, settings_json
from diffbench.registry.describing import Names, rebuild
from diffbench.registry.registry import Registry

if TYPE_CHECKING:
    from diffbench.contracts.component import Component

SETTINGS = {"train": Train, "sample": Sample}             # fields of a cell that are no components


def planned_nfe(cell: Cell) -> int:
    """Network evaluations per sample as components claim them.

    The conformance suite checks the claims; results hold counts.
    """
    return cell.scheduler.nfe(cell.scheduler.steps) * cell.conditioning.evaluations * cell.pipeline.runs


def identity_of(cell: Cell, names: Names) -> dict[str, Any]:
    """All that decides the result of a cell, as JSON. Two cells are the same where this is equal."""
    components = cell.components()

    def without_seeds() -> dict[str, Any]:
        return {kind: names.identity(c, "training", "sampling", "measuring")
                for kind, c in keyed(components, names).items()} | {
                    "train": settings_json(cell.train, identity=True),
                    "sample": settings_json(cell.sample, identity=True)}
    parts = names.once(without_seeds, "cell", *components.values(), cell.train, cell.sample)
    return {**parts, "sample": {**parts["sample"], "seed": cell.noise_seed}, "seed": cell.seed}


def describe_cell(cell: Cell, names: Names, without: str = "") -> dict[str, Any]:
    """A cell as JSON, to be rebuilt by a worker; without: a kind that is left out."""
    components = {kind: c for kind, c in cell.components().items() if kind != without}
    parts = names.once(lambda: {**{kind: names.describe(c) for kind, c in components.items()},
                                "train": settings_json(cell.train), "sample": settings_json(cell.sample)},
                       "described", *components.values(), cell.train, cell.sample)
    return {**parts, "seed": cell.seed}


def describe_recipe(recipe: Recipe, names: Names) -> dict[str, Any]:
    """A recipe as JSON, without what its training does not read: cells that share a training have equal ones."""
    parts = {kind: getattr(recipe, kind) for kind in component_kinds(Recipe)} | seen_in_training(recipe.extra, names)
    return {kind: names.describe_trained(part) for kind, part in parts.items()} | {
        "train": settings_json(recipe.train), "seed": recipe.seed}


@functools.cache
def is_necessary(kind: str) -> bool:
    """Whether a cell computes nothing without a kind, so that its default is part of identities too."""
    return kind in component_kinds() and kind not in optional_kinds()


def keyed(components: Mapping[str, Component], names: Names) -> dict[str, Component]:
    """Those that are part of identities: all but the defaults of kinds without which a cell computes the same."""
    return {kind: c for kind, c in components.items() if is_necessary(kind) or not names.is_default(c)}


def further(components: Mapping[str, Component], names: Names) -> dict[str, Component]:
    """Those of them whose kinds are not necessary."""
    return {kind: component for kind, component in keyed(components, names).items() if not is_necessary(kind)}


def seen_in_training(components: Mapping[str, Component], names: Names) -> dict[str, Component]:
    """Those of the training half that are part of identities as a training sees them."""
    return {kind: c for kind, c in components.items() if is_necessary(kind) or not names.is_default_in_training(c)}


def rebuild_cell(description: Mapping[str, Any], registry: Registry, **given: Component) -> Cell:
    """The cell that `describe_cell` described; given: components by kind that stand in place of described ones."""
    parts = _rebuilt(Cell, description, registry, given)
    return Cell(**parts, sampling_extra=_extra("sampling", description, registry))


def rebuild_recipe(description: Mapping[str, Any], registry: Registry) -> Recipe:
    """The recipe that `describe_recipe` described."""
    return Recipe(**_rebuilt(Recipe, description, registry, {}))


def _rebuilt(of: type[Recipe], description: Mapping[str, Any], registry: Registry,
             given: Mapping[str, Component]) -> dict[str, Any]:
    settings = {name: cls(**description[name]) for name, cls in SETTINGS.items() if name in description}
    # What was described before there was an optional kind is of its default.
    parts = {kind: given.get(kind) or (rebuild(kind, description[kind], registry)
                                       if kind in description or is_necessary(kind) else registry.default(kind))
             for kind in component_kinds(of)}
    return {**parts, **settings, "seed": description["seed"], "extra": _extra("training", description, registry)}


def _extra(half: str, description: Mapping[str, Any], registry: Registry) -> dict[str, Component]:
    """The components of one half ("training" or "sampling") whose kinds come from plug-ins."""
    kinds = [kind for kind in description if kind not in (*component_kinds(), *SETTINGS, "seed")
             and registry.kind(kind).half == half]
    return {kind: rebuild(kind, description[kind], registry) for kind in kinds}
