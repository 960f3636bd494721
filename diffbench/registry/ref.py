"""Registered components that are not imported, and the built-in plug-in that finds them by entry points.
Used by the registry and all that asks it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from diffbench.registry import entry_points
from diffbench.registry.admission import PluginProblem
from diffbench.registry.hooks import hookimpl
from diffbench.registry.kinds import Kind

HOME = "diffbench"                    # components of this distribution have bare names
SESSION = "this session"              # in place of a distribution, for what @register added


@dataclass(frozen=True, kw_only=True)
class Ref:
    """One registered component, not yet imported."""

    kind: str
    name: str                                 # as registered: "rk4"
    target: str                               # "module:Class"
    distribution: str                         # "my-samplers", or "file NAME.py" for a loose one
    version: str = ""
    is_editable: bool = False                 # under development: cached by its source instead of its version
    loaded: type | None = None                # set where the class exists already (`@diffbench.register`)
    told: entry_points.Summary | None = None  # set where there is no source to read it from, as of a class that a hook
                                              # makes

    @property
    def full_name(self) -> str:
        """'ddim' for a built-in, 'my-samplers.rk4' for a stranger's."""
        return self.name if self.distribution == HOME or self.loaded else f"{self.distribution}.{self.name}"

    @property
    def origin(self) -> str:
        """Who offers it, for messages: 'my-samplers 0.3'."""
        return f"{self.distribution} {self.version}".strip()

    def summary(self) -> entry_points.Summary:
        """First docstring line, options and defaults from the syntax tree; nothing is imported."""
        return self.told or entry_points.summary(self.target)


@dataclass(eq=False)
class EntryPoints:
    """The built-in plug-in: components are what the entry points say."""

    problems: list[PluginProblem] = field(default_factory=list)

    @hookimpl
    def diffbench_components(self, kinds: dict[str, Kind]) -> list[Ref]:
        refs: dict[tuple[str, str, str], Ref] = {}
        for kind in kinds.values():
            for point in entry_points.entry_points(kind.group):
                if not entry_points.is_name(point.name):
                    self.problems.append(PluginProblem(point.distribution,
                                                       f"{kind.name} {point.name!r} is left out: a name is "
                                                       "[a-z][a-z0-9_]{0,63}"))
                    continue
                ref = Ref(kind=kind.name, name=point.name, target=point.value, distribution=point.distribution,
                          version=point.version,
                          is_editable=point.is_editable)
                refs[kind.name, point.name, point.distribution] = ref
        return list(refs.values())
