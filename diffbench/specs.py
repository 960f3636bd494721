"""Component specs: `ddim`, `ddim: {steps: 50}` or `ddim: {steps: [10, 50]}` from a matrix, made into components.

Every mistake is collected with its path, none stops the search for the next.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

from diffbench import source
from diffbench.errors import DiffbenchError, OptionError, Problem
from diffbench.options import Options, check_value, grid, half_of, hint, is_many, is_of, plain, unknown_option, with_preset
from diffbench.registry import Registry

Path = tuple[str | int, ...]


class Reader:
    """Turns plain data into components and settings, collecting problems."""

    def __init__(self, registry: Registry):
        self.registry = registry
        self.problems: list[Problem] = []

    def fault(self, path: Path, message: str, *, on_key: bool = False) -> None:
        """Notes a mistake."""
        self.problems.append(Problem(path, message, on_key))

    def components(self, kind: str, node: Any, path: Path) -> list[Any]:
        """The components of one spec: one, or one for each point of its grid; none where it is wrong."""
        from diffbench.contracts import Component

        if isinstance(node, Component):                   # from Python, already built
            return [node]
        spaced = kind.replace("_", " ")
        if isinstance(node, str):
            name, options, below = node, {}, path
        elif isinstance(node, dict) and len(node) == 1:
            (name, options), = node.items()
            below = (*path, name)
        else:
            found = f"{len(node)} names at once ({', '.join(node)}); write each as its own list item" if isinstance(node, dict) and node else repr(node)
            self.fault(path, f"a {spaced} is written as a name or as 'name: {{option: value}}', got {found}")
            return []
        try:
            ref = self.registry.find(kind, name)
            cls = self.registry.load(ref)
        except DiffbenchError as error:
            self.fault(below, str(error), on_key=below != path)
            return []
        if options is None:
            options = {}
        if not isinstance(options, dict):
            self.fault(below, f"the options of {ref.full_name} are written as {{option: value}}, got {options!r}")
            return []
        return self._configured(ref.full_name, cls, options, below)

    def settings(self, cls: type[Options], name: str, node: Any, path: Path) -> Options:
        """One block of settings, such as `train`; defaults where it is wrong."""
        if node is None:
            return cls()
        if not isinstance(node, dict):
            self.fault(path, f"'{name}' is written as {{option: value}}, got {node!r}")
            return cls()
        good = {}
        for option, value in node.items():
            if self._option_exists(f"'{name}'", cls, option, (*path, option)):
                good.update(self.value(cls, option, value, (*path, option)))
        try:
            return cls(**good)
        except OptionError as error:                      # a rule between options
            self.fault(path, f"'{name}': {error}")
            return cls()

    def value(self, cls: type[Options], option: str, value: Any, path: Path) -> dict[str, Any]:
        """{option: value} where the value is accepted, else nothing and a problem."""
        said = check_value(cls, option, plain(value))
        if said:
            self.fault(path, said)
        return {} if said else {option: plain(value)}

    def _configured(self, owner: str, cls: type, options: dict[str, Any], path: Path) -> list[Any]:
        if isinstance(options.get("preset"), list):       # a grid of presets
            return [made for i, name in enumerate(options["preset"]) for made in self._configured(owner, cls, {**options, "preset": name}, path)]
        try:
            options = with_preset(owner, cls, options)
        except OptionError as error:
            self.fault((*path, "preset"), str(error))
            return []
        before = len(self.problems)
        choices: dict[str, list[Any]] = {}
        for option, node in options.items():
            if self._option_exists(owner, cls, option, (*path, option)):
                choices[option] = self._choices(cls, option, node, (*path, option))
        for f in fields(cls):
            if f.default is MISSING and f.name not in options:
                self.fault(path, f"{owner} needs the option '{f.name}'")
        if len(self.problems) > before:
            return []
        made = []
        for chosen in grid(choices):
            try:
                made.append(cls(**chosen))
            except OptionError as error:                  # a rule between options
                self.fault(path, f"{owner}: {error}")
        return made

    def _choices(self, cls: type, option: str, node: Any, path: Path) -> list[Any]:
        """The values an option takes: a list is a grid, except that an option which itself holds a list needs a list of lists."""
        from diffbench.contracts import Component

        wanted = hint(cls, option)
        nested = wanted.kind if is_of(wanted, Component) else None
        is_grid = isinstance(node, list) and (not is_many(cls, option) or any(isinstance(v, list) for v in node))
        items = [(value, (*path, i)) for i, value in enumerate(node)] if is_grid else [(node, path)]
        if not items:
            self.fault(path, f"'{option}' has an empty list: name at least one value")
        found: list[Any] = []
        for value, place in items:
            if nested:
                found += self.components(nested, value, place)
            else:
                found += self.value(cls, option, value, place).values()
        return found

    def _option_exists(self, owner: str, cls: type[Options], option: str, path: Path) -> bool:
        known = any(f.name == option for f in fields(cls))
        if not known:
            self.fault(path, unknown_option(owner, cls, option), on_key=True)
        return known


def describe(component: Any, registry: Registry) -> dict[str, Any]:
    """Everything needed to build a component again, as JSON: its full name and all its options, nested components too."""
    options = {f.name: _json(getattr(component, f.name), registry) for f in fields(component)}
    return {"component": registry.ref_of(component).full_name, "options": options}


def rebuild(kind: str, description: dict[str, Any], registry: Registry) -> Any:
    """The component that `describe` described."""
    from diffbench.contracts import Component

    cls = registry.component(kind, description["component"])
    options = {}
    for name, value in description["options"].items():
        wanted = hint(cls, name)
        if is_of(wanted, Component):
            options[name] = rebuild(wanted.kind, value, registry)
        else:
            options[name] = plain(value)
    return cls(**options)


def identity(component: Any, registry: Registry, halves: tuple[str, ...]) -> dict[str, Any]:
    """What makes two components the same for these halves of a cell: name, options, and the code behind them.

    A released component counts by the version its class declares, one under development by its source, so that an edit
    re-runs what it touches.
    """
    component = component.equal_to()
    ref = registry.ref_of(component)
    code = source.code_hash(type(component).__module__) if ref.is_editable else f"version {type(component).version}"
    otherwise = registry.kinds[component.kind].half
    options = {f.name: _identity_value(getattr(component, f.name), registry, halves)
               for f in fields(component) if half_of(f, otherwise) in halves}
    return {"component": ref.full_name, "code": code, "options": options}


def label(component: Any, registry: Registry) -> str:
    """A short name for people: 'cfg(inner=film, scale=1.5)', options at their default left out, a preset by its name."""
    shown, given = [], {f.name: getattr(component, f.name) for f in fields(component)}
    preset = next((name for name, options in type(component).presets.items() if all(given[o] == v for o, v in options.items())), None)
    covered: Any = type(component).presets[preset] if preset else {}
    if preset:
        shown.append(f"preset={preset}")
    for f in fields(component):
        value = given[f.name]
        if value != f.default and f.name not in covered:
            shown.append(f"{f.name}={label(value, registry) if hasattr(value, 'component_name') else _compact(value)}")
    name = registry.ref_of(component).full_name
    return f"{name}({', '.join(shown)})" if shown else name


class Names:
    """Descriptions, identities and labels of components, each worked out once for a component of one plan.

    By the object, not by its value: 1 and 1.0 are equal in Python and differ in JSON.
    """

    def __init__(self, registry: Registry):
        self.registry = registry
        self._known: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    def describe(self, component: Any) -> dict[str, Any]:
        """See `describe`."""
        return self._once(describe, component)

    def identity(self, component: Any, *halves: str) -> dict[str, Any]:
        """See `identity`."""
        return self._once(identity, component, halves)

    def label(self, component: Any) -> str:
        """See `label`."""
        return self._once(label, component)

    def full(self, component: Any) -> str:
        """Its full name."""
        return self.registry.ref_of(component).full_name

    def _once(self, function: Callable[..., Any], component: Any, *more: Any) -> Any:
        key = (function, id(component), *more)
        if key not in self._known:
            self._known[key] = (function(component, self.registry, *more), component)     # kept, so that its id stays its own
        return self._known[key][0]


def canonical(content: Any) -> str:
    """One text per content: sorted keys, no spaces, no NaN."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(content: Any) -> str:
    """SHA-256 of the canonical text."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def _json(value: Any, registry: Registry) -> Any:
    if isinstance(value, Options):
        return describe(value, registry)
    return [_json(v, registry) for v in value] if isinstance(value, tuple) else value


def _identity_value(value: Any, registry: Registry, halves: tuple[str, ...]) -> Any:
    if isinstance(value, Options):
        return identity(value, registry, halves)
    return [_identity_value(v, registry, halves) for v in value] if isinstance(value, tuple) else value


def _compact(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
