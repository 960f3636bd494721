"""The registry: every component that exists, found through entry points without importing any of them.

`load_registry()` is the door. Reading names, origins, first docstring lines and defaults costs no import; a component's
module is imported when it is first used, and a failure is a problem of its distribution alone.
"""

from __future__ import annotations

import copy
import importlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from diffbench import hookspecs, plugins, source
from diffbench.errors import BrokenComponent, OptionError, UnknownComponent, unknown_name
from diffbench.hookspecs import hookimpl
from diffbench.kinds import BUILT_IN_KINDS, Kind
from diffbench.launchers import built_in
from diffbench.options import Options, check_value, unknown_option, with_preset
from diffbench.plugins import SLOW_COMPONENT_SECONDS, PluginProblem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas

    from diffbench.contracts import Component
    from diffbench.launchers import Launcher
    from diffbench.report.sections import Section

HOME = "diffbench"                    # components of this distribution have bare names


@dataclass(frozen=True, kw_only=True)
class Ref:
    """One registered component, not yet imported."""

    kind: str
    name: str                         # as registered: "rk4"
    target: str                       # "module:Class"
    distribution: str                 # "my-samplers", or "file NAME.py" for a loose one
    version: str = ""
    is_editable: bool = False         # under development: cached by its source instead of its version
    loaded: type | None = None        # set where the class exists already (`@diffbench.register`)
    told: source.Summary | None = None        # set where there is no source to read it from, as of a class that a hook makes

    @property
    def full_name(self) -> str:
        """'ddim' for a built-in, 'my-samplers.rk4' for a stranger's."""
        return self.name if self.distribution == HOME or self.loaded else f"{self.distribution}.{self.name}"

    @property
    def origin(self) -> str:
        """Who offers it, for messages: 'my-samplers 0.3'."""
        return f"{self.distribution} {self.version}".strip()

    def summary(self) -> source.Summary:
        """First docstring line, options and defaults from the syntax tree; nothing is imported."""
        return self.told or source.summary(self.target)


_session: dict[tuple[str, str], Ref] = {}             # what @register and loose files added in this process


Registered = TypeVar("Registered", bound="Component")


def register(cls: type[Registered]) -> type[Registered]:
    """Class decorator: makes a component usable in this process under its class name in snake case.

    Workers see it where its file is given with `--plugin`; packages use an entry point instead.
    """
    name = cls.component_name()
    ref = Ref(kind=cls.kind, name=name, target=f"{cls.__module__}:{cls.__qualname__}", distribution="this session", is_editable=True, loaded=cls)
    _session[cls.kind, name] = ref
    return cls


def load_registry(plugins: Iterable[str] = ()) -> Registry:
    """The registry of this environment; `plugins` are loose Python files whose @register classes are added."""
    for path in plugins:
        source.run_file(path)
    return Registry()


class Registry:
    """Components by kind and name, the hooks, and what was found broken on the way."""

    def __init__(self) -> None:
        self.problems: list[PluginProblem] = []
        self.import_seconds: dict[str, float] = {}
        self.kept_out = plugins.kept_out()                # why a distribution takes no part, by its name
        self.hooks = pluggy.PluginManager("diffbench")
        self.hooks.add_hookspecs(hookspecs)
        self.hooks.register(_EntryPoints(self.problems), name="diffbench entry points")
        self.hooks.register(built_in, name="diffbench launchers")
        self.problems += plugins.load_hooks(self.hooks, self.kept_out)
        self.kinds: dict[str, Kind] = {kind.name: kind for kind in BUILT_IN_KINDS}
        for name, kind in self._offers("diffbench_kinds", Kind):
            if self.kinds.setdefault(kind.name, kind) is not kind:
                self.problems.append(PluginProblem(name, f"the kind {kind.name!r} of plug-in {name} is left out: there is one of that name already"))
        self.problems += plugins.faults(kind.group for kind in self.kinds.values())
        self._refs: dict[str, list[Ref]] = {kind: [] for kind in self.kinds}
        self._out: list[Ref] = []
        offered = [*self._offers("diffbench_components", Ref, kinds=self.kinds), *(("this session", ref) for ref in _session.values())]
        for name, ref in offered:
            if ref.kind not in self.kinds:
                self.problems.append(PluginProblem(name, f"{ref.full_name} of plug-in {name} is left out: {unknown_name('kind', ref.kind, self.kinds)}"))
            else:
                (self._out if ref.distribution in self.kept_out else self._refs[ref.kind]).append(ref)
        self._classes: dict[type, Ref] = {}
        self._meant: dict[tuple[str, str], Ref] = {}      # what `find` found

    def refs(self, kind: str) -> list[Ref]:
        """All components of a kind, built-ins first, then by full name."""
        return sorted(self._refs[kind], key=lambda r: (r.distribution != HOME, r.full_name))

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
        found = [r for r in refs if _folded(r.full_name) == wanted] or [r for r in refs if _folded(r.name) == wanted]
        found = found or [r for r in refs if wanted in map(_folded, r.summary().aliases)]
        spaced = kind.replace("_", " ")
        if not found:
            out = next((r for r in self._out if r.kind == kind and wanted in (_folded(r.full_name), _folded(r.name))), None)
            offer = f". {out.distribution} offers it, and is left out: {self.kept_out[out.distribution]}" if out else ""
            raise UnknownComponent(unknown_name(spaced, name, {r.full_name for r in refs}) + offer)
        if len(found) > 1:
            offers = ", ".join(f"{r.full_name} ({r.origin})" for r in found)
            raise UnknownComponent(f"{len(found)} packages offer a {spaced} named {name!r}: {offers}. Use the full name, or uninstall one of them")
        self._meant[kind, name] = found[0]
        return found[0]

    def load(self, ref: Ref) -> type:
        """The class behind a reference, imported and checked on first use."""
        base = self._base(ref.kind)                       # first: torch, which it imports, is no part of a component's own time
        cls = ref.loaded or self._import(ref)
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise BrokenComponent(f"{ref.kind} {ref.full_name!r} of {ref.origin} cannot be used: {ref.target} is not a subclass of diffbench.{base.__name__}")
        missing = sorted(getattr(cls, "__abstractmethods__", ()))
        if missing:
            raise BrokenComponent(f"{ref.kind} {ref.full_name!r} of {ref.origin} cannot be used: {cls.__name__} does not define {', '.join(missing)}")
        self._classes[cls] = ref
        return cls

    def component(self, kind: str, name: str) -> type:
        """The class of a component."""
        return self.load(self.find(kind, name))

    def create(self, kind: str, name: str, /, **options: Any) -> Any:
        """A configured component; an unknown or wrong option is refused with the sentence a matrix would get."""
        if kind not in self.kinds:
            raise UnknownComponent(unknown_name("kind of component", kind, self.kinds))
        ref = self.find(kind, name)
        cls = self.load(ref)
        options = with_preset(ref.full_name, cls, options)
        mistakes = check_options(ref.full_name, cls, options)
        if mistakes:
            raise OptionError(f"{kind} {ref.full_name}: " + "; ".join(mistakes))
        return cls(**options)

    def default(self, kind: str) -> Any:
        """The component taken where nothing is said about a kind."""
        for ref in self.refs(kind):
            if ref.summary().is_default:
                return self.load(ref)()
        names = ", ".join(r.full_name for r in self.refs(kind)) or "none is installed"
        raise UnknownComponent(f"no {kind.replace('_', ' ')} is the default; name one of {names}")

    def ref_of(self, component: Any) -> Ref:
        """Where a configured component comes from."""
        cls = type(component)
        if cls not in self._classes:
            for ref in self._refs.get(cls.kind, []):
                if ref.target == f"{cls.__module__}:{cls.__qualname__}":
                    self._classes[cls] = ref
                    break
            else:
                raise UnknownComponent(f"{cls.__name__} is not registered: give it an entry point, or decorate it with @diffbench.register")
        return self._classes[cls]

    def launcher(self, text: str) -> Callable[[str], Launcher]:
        """What `--launcher TEXT` means: a function of the device that opens it. Raises DiffbenchError with the known names, or with what to install."""
        from diffbench.launchers.choosing import chosen

        return chosen(text, self.answers("diffbench_launchers"))

    def report_sections(self, rows: pandas.DataFrame, folder: Path) -> list[tuple[str, Section]]:
        """What plug-ins add to the page of results: (plug-in, section)."""
        from diffbench.report.sections import Section

        return list(self._offers("diffbench_report_sections", Section, rows=rows, folder=folder))

    def answers(self, hook: str, **facts: Any) -> list[Any]:
        """Calls a hook, one plug-in at a time; one that raises is named in `problems` and heard no more. What the others answered."""
        return [answer for _, answer in self._answers(hook, facts)]

    def first(self, hook: str, **facts: Any) -> Any:
        """The first answer to a hook, or None; plug-ins after the one that gave it are not called."""
        return next((answer for _, answer in self._answers(hook, facts)), None)

    def plugins(self) -> list[Any]:
        """The plug-ins with hooks, in the order of their names."""
        return sorted(self.hooks.get_plugins(), key=lambda plugin: self.hooks.get_name(plugin) or "")

    def ask(self, plugin: Any, hook: str, **facts: Any) -> list[Any]:
        """What one plug-in answers to a hook, None left out; what it raises is passed on."""
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
                self._switch_off(self.hooks.get_plugin(name), f"what its hook {hook} gave cannot be read: {type(error).__name__}: {error}")
                continue
            strange = next((thing for thing in offered if not isinstance(thing, wanted)), None)
            if strange is not None:
                self._switch_off(self.hooks.get_plugin(name), f"its hook {hook} gives diffbench.{wanted.__name__}s, got {strange!r}")
                continue
            yield from ((name, thing) for thing in offered)

    def _answers(self, hook: str, facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """(plug-in, answer)."""
        for plugin in self.plugins():
            try:
                found = self.ask(plugin, hook, **facts)
            except Exception as error:  # noqa: BLE001  a stranger's hook must not stop a run
                self._switch_off(plugin, f"its hook {hook} raised {type(error).__name__}: {error}")
                continue
            yield from ((str(self.hooks.get_name(plugin)), answer) for answer in found)

    def _switch_off(self, plugin: Any, reason: str) -> None:
        name = self.hooks.get_name(plugin) or repr(plugin)
        self.hooks.unregister(plugin)
        self.problems.append(PluginProblem(name, f"plug-in {name} is switched off: {reason}"))

    def _import(self, ref: Ref) -> Any:
        module, _, attribute = ref.target.partition(":")
        start = time.perf_counter()
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            said = plugins.why(error, ref.distribution)
            self.problems.append(PluginProblem(ref.distribution, f"{ref.kind} {ref.full_name}: importing {module} failed: {said}"))
            raise BrokenComponent(f"{ref.kind} {ref.full_name!r} of {ref.origin} cannot be used: importing {ref.target} failed with {said}") from error
        finally:
            seconds = time.perf_counter() - start
            if self.import_seconds.setdefault(ref.full_name, seconds) == seconds > SLOW_COMPONENT_SECONDS and ref.distribution != HOME:
                said = f"importing {module} takes {seconds:.1f} s, and every worker waits for it: import what is heavy where it is used"
                self.problems.append(PluginProblem(ref.distribution, f"{ref.kind} {ref.full_name} of {ref.origin}: {said}"))
        return cls

    def _base(self, kind: str) -> type:
        module, _, attribute = self.kinds[kind].base.partition(":")
        return getattr(importlib.import_module(module), attribute)


def check_options(owner: str, cls: type[Options], options: dict[str, Any]) -> list[str]:
    """Every mistake in a set of options, as sentences."""
    known = {f.name: f for f in fields(cls)}
    mistakes = [unknown_option(owner, cls, name) for name in options if name not in known]
    mistakes += [f"{owner} needs the option {name!r}" for name, f in known.items() if f.default is MISSING and name not in options]
    mistakes += [said for name, value in options.items() if name in known and (said := check_value(cls, name, value))]
    return mistakes


@dataclass(eq=False)
class _EntryPoints:
    """The built-in plug-in: components are what the entry points say."""

    problems: list[PluginProblem] = field(default_factory=list)

    @hookimpl
    def diffbench_components(self, kinds: dict[str, Kind]) -> list[Ref]:
        refs: dict[tuple[str, str, str], Ref] = {}
        for kind in kinds.values():
            for point in source.entry_points(kind.group):
                if not source.is_name(point.name):
                    self.problems.append(PluginProblem(point.distribution, f"{kind.name} {point.name!r} is left out: a name is [a-z][a-z0-9_]{{0,63}}"))
                    continue
                ref = Ref(kind=kind.name, name=point.name, target=point.value, distribution=point.distribution, version=point.version,
                          is_editable=point.is_editable)
                refs[kind.name, point.name, point.distribution] = ref
        return list(refs.values())


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")
