"""The stage kinds of a registry: the harness's own and those that plug-ins bring.
Used by the plan for keys and by workers.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from diffbench.errors import BrokenComponent
from diffbench.registry import code_identity, entry_points, loading
from diffbench.registry.admission import PluginProblem, why
from diffbench.store import stage_kinds
from diffbench.store.stage_kinds import AROUND, StageKind


class StageKinds(dict[str, StageKind]):
    """Stage kinds by name; what is wrong with the offers of plug-ins is added to `problems`."""

    def __init__(self, offers: Iterable[tuple[str, StageKind]], problems: list[PluginProblem]):
        super().__init__({kind.name: kind for kind in (*stage_kinds.BUILT_IN_STAGES, *stage_kinds.OF_FILES)})
        self._owners: dict[str, str] = {}                 # label of a plug-in, by the stage that it brings
        for label, kind in offers:
            if kind.name in self:
                problems.append(PluginProblem(label, f"the stage {kind.name!r} of plug-in {label} is left out: there "
                                                     "is one of that name already"))
            else:
                self[kind.name], self._owners[kind.name] = kind, label
        # for those who read the store, the settings or a run, and know no registry
        stage_kinds.STAGE_KINDS.update(self)

    def owners(self, names: Iterable[str]) -> set[str]:
        """The labels of the plug-ins that bring kinds of stage."""
        return {self._owners[name] for name in names if name in self._owners}

    def function(self, name: str) -> Callable[..., Any]:
        """Function that does stages of a kind, imported; raises BrokenComponent where that fails."""
        target, owner = self[name].does, self._owners.get(name)
        module, _, function = target.partition(":")
        try:
            with loading.importing(f"the stage {name} of {owner}", is_watched=owner is not None):
                return getattr(importlib.import_module(module), function)
        except Exception as error:
            distribution = (owner or "diffbench").partition(":")[0]
            raise BrokenComponent(f"the stage {name} of {owner or 'diffbench'} cannot be done: importing {target} "
                                  f"failed with {why(error, distribution)}") from error

    def key_material(self, name: str) -> dict[str, Any]:
        """Part of the keys of all stages of a kind:
        its version and, where it is under development, the source that it reaches.
        """
        kind, owner = self[name], self._owners.get(name)
        points = [point for point in entry_points.entry_points("diffbench") if point.label == owner]
        code = {"code": code_identity.of_function(kind.does)} if any(point.is_editable for point in points) else {}
        return {"stage": name, "schema": kind.version, **code, **code_identity.of_harness(kind.does, *AROUND)}
