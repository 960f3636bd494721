"""The plug-ins that the worker of a stage imports: what its components need, and what wraps stages.
Made in the driver, used by the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from diffbench.planning.stage import Stage
from diffbench.registry.loose_files import file_for_workers
from diffbench.registry.ref import Ref
from diffbench.registry.registry import Registry
from diffbench.stages.wrappers import HOOK


class StageImports:
    """What the workers of a plan import, by what the tasks of its stages name."""

    def __init__(self, registry: Registry):
        self.registry = registry
        self._refs: dict[str, list[Ref]] = {}
        for kind in registry.kinds:
            for ref in registry.refs(kind):
                self._refs.setdefault(ref.full_name, []).append(ref)
        self._files: dict[Ref, str] = {}
        self._wrapping = {str(i.plugin_name) for i in getattr(registry.hooks.hook, HOOK).get_hookimpls()}

    def of(self, stage: Stage) -> dict[str, list[str]]:
        """{"plugins": loose files, "hooks": modules of hooks by label} for a stage.

        A module of hooks is imported where it wraps stages, brings this kind of stage or that of a parent, or offers a
        component of the stage or its kind. Raises BrokenComponent for a component that no worker can know.
        """
        refs = self.refs(stage.task)
        files = {self._file(ref) for ref in refs if ref.loaded is not None}
        kinds = [stage.name, *(role.partition(":")[0] for role in stage.parents)]
        hooks = self._wrapping.union(self.registry.stage_kinds.owners(kinds), *map(self.registry.owners, refs))
        return {"plugins": sorted(files), "hooks": sorted(hooks)}

    def files(self, tasks: Iterable[dict[str, Any]]) -> set[str]:
        """The loose files of all these tasks."""
        if not any(ref.loaded is not None for refs in self._refs.values() for ref in refs):
            # else each of the 50,000 tasks of 10,000 cells is looked through
            return set()
        return {self._file(ref) for task in tasks for ref in self.refs(task) if ref.loaded is not None}

    def refs(self, task: dict[str, Any]) -> list[Ref]:
        """The components that a task names, with what is nested in their options."""
        return [ref for kind, name in _named(task) for ref in self._refs.get(name, ()) if kind == ref.kind
                or kind not in self.registry.kinds]

    def _file(self, ref: Ref) -> str:
        assert ref.loaded is not None
        if ref not in self._files:
            self._files[ref] = file_for_workers(ref.loaded, f"{ref.kind} {ref.full_name}")
        return self._files[ref]


def _named(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """(where it stands, full name) of each component in a task: the place is its kind, or an option that holds it."""
    if isinstance(value, list):
        for one in value:
            yield from _named(one, place)
    elif isinstance(value, dict):
        if "component" in value and "options" in value:
            yield place, value["component"]
        for name, inner in value.items():
            yield from _named(inner, f"option {name}" if "component" in value else name)
