"""The registry: every component that exists, found through entry points without importing any of them.

`load_registry()` is the door. Reading names, origins, first docstring lines and defaults costs no import; a component's
module is imported when it is first used, and a failure is a problem of its distribution alone.
"""

from __future__ import annotations

import copy
import importlib
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from diffbench.contracts.options import check_options, with_preset
from diffbench.errors import BrokenComponent, OptionError, UnknownComponent
from diffbench.registry import admission as plugins
from diffbench.registry import hooks as hookspecs
from diffbench.registry import loading, loose_files
from diffbench.registry.admission import SLOW_COMPONENT_SECONDS, PluginProblem
from diffbench.registry.kinds import BUILT_IN_KINDS, Kind
from diffbench.registry.ref import HOME, SESSION, EntryPoints, Ref
from diffbench.registry.stage_kinds import StageKinds
from diffbench.store.stage_kinds import StageKind
from diffbench.wording import unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas

    from diffbench.contracts.component import Component
    from diffbench.contracts.sections import Section

ENTRY_POINTS = "diffbench entry points"               # the built-in plug-in that reads them


_session: dict[tuple[str, str], Ref] = {}             # what @register and loose files added in this process


Registered = TypeVar("Registered", bound="Component")


def register(cls: type[Registered]) -> type[Registered]:
    """Class decorator: makes a component usable in this process under its class name in snake case.

    Workers see it where its file is given with `--plugin`; packages use an entry point instead.
    """
    name = cls.component_name()
    ref = Ref(kind=cls.kind, name=name, target=f"{cls.__module__}:{cls.__qualname__}", distribution=SESSION,
              is_editable=True, loaded=cls)
    earlier = _session.get((cls.kind, name))
    if earlier is not None and earlier.loaded is not None and loose_files.are_two(earlier.loaded, cls):
        raise BrokenComponent(f"the {cls.kind} {name!r} is registered already, by "
                              f"{sys.modules[earlier.loaded.__module__].__file__}: rename one of them")
    _session[cls.kind, name] = ref
    return cls


def load_registry(plugins: Iterable[str] = (), hooks: Iterable[str] | None = None) -> Registry:
    """The registry of this environment; `plugins` are loose Python files whose @register classes are added.

    hooks: the only modules of hooks to import, by label; None for all of them.
    """
    for path in plugins:
        loose_files.run(path)
    return Registry(hooks)


class Registry:
    """Components by kind and name, the hooks, and what was found broken on the way."""

    def __init__(self, hooks: Iterable[str] | None = None) -> None:
        self.problems: list[PluginProblem] = []
        self.import_seconds: dict[str, float] = {}
        self.kept_out = plugins.kept_out()                # why a distribution takes no part, by its name
        self.hooks = pluggy.PluginManager("diffbench")
        self.hooks.add_hookspecs(hookspecs)
        self.hooks.register(EntryPoints(self.problems), name=ENTRY_POINTS)
        self.problems += plugins.load_hooks(self.hooks, self.kept_out, hooks)
        self.kinds: dict[str, Kind] = {kind.name: kind for kind in BUILT_IN_KINDS}
        # plug-in with hooks, by the kind or the component that it offers
        self._owners: dict[Any, str] = {}
        for name, kind in self._offers("diffbench_kinds", Kind):
            self._owners.setdefault(kind.name, name)
            if self.kinds.setdefault(kind.name, kind) is not kind:
                self.problems.append(
                    PluginProblem(name, f"the kind {kind.name!r} of plug-in {name} is left out: there is one of that "
                                        "name already"))
        self.stage_kinds = StageKinds(self._offers("diffbench_stage_kinds", StageKind), self.problems)
        self.problems += plugins.faults(kind.group for kind in self.kinds.values())
        self._refs: dict[str, list[Ref]] = {kind: [] for kind in self.kinds}
        self._out: list[Ref] = []
        offered = [*self._offers("diffbench_components", Ref, kinds=self.kinds),
                   *((SESSION, ref) for ref in _session.values())]
        for name, ref in offered:
            if name not in (ENTRY_POINTS, SESSION):
                self._owners[ref.kind, ref.full_name] = name
            if ref.kind not in self.kinds:
                self.problems.append(
                    PluginProblem(name, f"{ref.full_name} of plug-in {name} is left out: "
                                        f"{unknown_name('kind', ref.kind, self.kinds)}"))
            else:
                (self._out if ref.distribution in self.kept_out else self._refs[ref.kind]).append(ref)
        self._classes: dict[type, Ref] = {}
        self._meant: dict[tuple[str, str], Ref] = {}      # what `find` found

    def kind(self, name: str) -> Kind:
        """A kind by its name, in which '-' reads as '_'."""
        folded = name.replace("-", "_")
        if folded not in self.kinds:
            raise UnknownComponent(unknown_name("kind of component", name, self.kinds))
        return self.kinds[folded]

    def refs(self, kind: str) -> list[Ref]:
        """All components of a kind, built-ins first, then by full name."""
        return sorted(self._refs[kind], key=lambda r: (r.distribution != HOME, r.full_name))

    def owners(self, ref: Ref) -> set[str]:
        """The plug-ins whose hooks offer a component and its kind."""
        return {self._owners[key] for key in (ref.kind, (ref.kind, ref.full_name)) if key in self._owners}

    def part(self, keep: Callable[[Ref], bool]) -> Registry:
        """This registry with some of its components only."""
        part = copy.copy(self)
        part._refs, part._meant = {kind: list(filter(keep, refs)) for kind, refs in self._refs.items()}, {}
        return part

    def find(self, kind: str, name: str) -> Ref:
        """The component a user means: full name, bare name while unambiguous, or alias; '-' reads as '_'."""
        if (kind, name) in self._meant:
            return self._meant[kind, name]
        wanted = _folded(name)
        refs = self.refs(kind)
        matches = [r for r in refs if _folded(r.full_name) == wanted] or [r for r in refs if _folded(r.name) == wanted]
        matches = matches or [r for r in refs if wanted in map(_folded, r.summary().aliases)]
        spaced = kind.replace("_", " ")
        if not matches:
            out = next((r for r in self._out if r.kind == kind and wanted in (_folded(r.full_name), _folded(r.name))),
                       None)
            offer = f". {out.distribution} offers it, and is left out: {self.kept_out[out.distribution]}" if out else ""
            raise UnknownComponent(unknown_name(spaced, name, {r.full_name for r in refs}) + offer)
        if len(matches) > 1:
            offers = ", ".join(f"{r.full_name} ({r.origin})" for r in matches)
            raise UnknownComponent(f"{len(matches)} packages offer a {spaced} named {name!r}: {offers}. Use the full "
                                   "name, or uninstall one of them")
        self._meant[kind, name] = matches[0]
        return matches[0]

    def load(self, ref: Ref) -> type:
        """The class behind a reference, imported and checked on first use."""
        # first: torch, which it imports, is no part of a component's own time
        base = self._base(ref.kind)
        cls = ref.loaded or self._import(ref)
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise BrokenComponent(f"{ref.kind} {ref.full_name!r} of {ref.origin} cannot be used: {ref.target} is not a "
                                  f"subclass of diffbench.{base.__name__}")
        missing = sorted(getattr(cls, "__abstractmethods__", ()))
        if missing:
            raise BrokenComponent(f"{ref.kind} {ref.full_name!r} of {ref.origin} cannot be used: {cls.__name__} does "
                                  f"not define {', '.join(missing)}")
        self._classes[cls] = ref
        return cls

    def component(self, kind: str, name: str) -> type:
        """The class of a component."""
        return self.load(self.find(kind, name))

    def create(self, kind: str, name: str, /, **options: Any) -> Any:
        """A configured component; an unknown or wrong option is refused with the sentence a matrix would get."""
        ref = self.find(self.kind(kind).name, name)
        cls = self.load(ref)
        options = with_preset(ref.full_name, cls, options)
        mistakes = check_options(ref.full_name, cls, options)
        if mistakes:
            raise OptionError(f"{kind} {ref.full_name}: " + "; ".join(mistakes))
        return cls(**options)

    def default(self, kind: str) -> Any:
        """The component taken where nothing is said about a kind."""
        ref = self._default_ref(kind)
        if ref is not None:
            return self.load(ref)()
        names = ", ".join(r.full_name for r in self.refs(kind)) or "none is installed"
        raise UnknownComponent(f"no {kind.replace('_', ' ')} is the default; name one of {names}")

    def is_default(self, component: Component) -> bool:
        """Whether a component computes what the default of its kind does."""
        ref = self._default_ref(component.kind)
        return ref is not None and component.equal_to() == self.load(ref)()

    def _default_ref(self, kind: str) -> Ref | None:
        return next((ref for ref in self.refs(kind) if ref.summary().is_default), None)

    def ref_of(self, component: Any) -> Ref:
        """Reference that a configured component comes from."""
        cls = type(component)
        if cls not in self._classes:
            for ref in self._refs.get(cls.kind, []):
                if ref.target == f"{cls.__module__}:{cls.__qualname__}":
                    self._classes[cls] = ref
                    break
            else:
                raise UnknownComponent(f"{cls.__name__} is not registered: give it an entry point, or decorate it with "
                                       "@diffbench.register")
        return self._classes[cls]

    def report_sections(self, rows: pandas.DataFrame, folder: Path) -> list[tuple[str, Section]]:
        """Sections that plug-ins add to the page of results: (plug-in, section)."""
        from diffbench.contracts.sections import Section

        return list(self._offers("diffbench_report_sections", Section, rows=rows, folder=folder))

    def answers(self, hook: str, **facts: Any) -> list[Any]:
        """Calls a hook, one plug-in at a time; one that raises is named in `problems` and heard no more.
        What the others answered.
        """
        return [answer for _, answer in self._answers(hook, facts)]

    def first(self, hook: str, **facts: Any) -> Any:
        """The first answer to a hook, or None; plug-ins after the one that gave it are not called."""
        return next((answer for _, answer in self._answers(hook, facts)), None)

    def plugins(self) -> list[Any]:
        """The plug-ins with hooks, in the order of their names."""
        return sorted(self.hooks.get_plugins(), key=lambda plugin: self.hooks.get_name(plugin) or "")

    def ask(self, plugin: Any, hook: str, **facts: Any) -> list[Any]:
        """Answers of one plug-in to a hook, None left out; what it raises is passed on."""
        caller = self.hooks.subset_hook_caller(hook, [p for p in self.hooks.get_plugins() if p is not plugin])
        answer = caller(**facts)
        if caller.spec is not None and caller.spec.opts["firstresult"]:
            return [] if answer is None else [answer]
        return answer

    def _offers(self, hook: str, wanted: type, **facts: Any) -> Iterator[tuple[str, Any]]:
        """(plug-in, thing) of a hook that gives several; a plug-in that gives anything else is switched off."""
        for name, answer in self._answers(hook, facts):
            try:
                offered = list(answer)
            except Exception as error:  # noqa: BLE001  a generator of a stranger's, or no iterable at all
                self._switch_off(self.hooks.get_plugin(name),
                                 f"what its hook {hook} gave cannot be read: {type(error).__name__}: {error}")
                continue
            strange = next((thing for thing in offered if not isinstance(thing, wanted)), None)
            if strange is not None:
                self._switch_off(self.hooks.get_plugin(name),
                                 f"its hook {hook} gives diffbench.{wanted.__name__}s, got {strange!r}")
                continue
            yield from ((name, thing) for thing in offered)

    def _answers(self, hook: str, facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """(plug-in, answer)."""
        for plugin in self.plugins():
            try:
                answers = self.ask(plugin, hook, **facts)
            except Exception as error:  # noqa: BLE001  a stranger's hook must not stop a run
                self._switch_off(plugin, f"its hook {hook} raised {type(error).__name__}: {error}")
                continue
            yield from ((str(self.hooks.get_name(plugin)), answer) for answer in answers)

    def _switch_off(self, plugin: Any, reason: str) -> None:
        name = self.hooks.get_name(plugin) or repr(plugin)
        self.hooks.unregister(plugin)
        self.problems.append(PluginProblem(name, f"plug-in {name} is switched off: {reason}"))

    def _import(self, ref: Ref) -> Any:
        module, _, attribute = ref.target.partition(":")
        start = time.perf_counter()
        try:
            with loading.importing(f"{ref.kind} {ref.full_name} of {ref.origin}", is_watched=ref.distribution != HOME):
                cls = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            reason = plugins.why(error, ref.distribution)
            self.problems.append(PluginProblem(ref.distribution,
                                               f"{ref.kind} {ref.full_name}: importing {module} failed: {reason}"))
            raise BrokenComponent(f"{ref.kind} {ref.full_name!r} of {ref.origin} cannot be used: importing "
                                  f"{ref.target} failed with {reason}") from error
        finally:
            seconds = time.perf_counter() - start
            if (self.import_seconds.setdefault(ref.full_name, seconds) == seconds > SLOW_COMPONENT_SECONDS
                and ref.distribution != HOME):
                remark = (f"importing {module} takes {seconds:.1f} s, and every worker waits for it: import what is "
                          "heavy where it is used")
                self.problems.append(PluginProblem(ref.distribution,
                                                   f"{ref.kind} {ref.full_name} of {ref.origin}: {remark}"))
        return cls

    def _base(self, kind: str) -> type:
        module, _, attribute = self.kinds[kind].base.partition(":")
        return getattr(importlib.import_module(module), attribute)


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")
