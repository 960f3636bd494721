"""Component specs: `ddim`, `ddim: {steps: 50}` or `ddim: {steps: [10, 50]}` from a matrix, made into components.

Every mistake is collected with its path, none stops the search for the next.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

from diffbench.contracts.options import Options, half_of, hint, is_of, plain
from diffbench.errors import OptionError
from diffbench.registry import code_identity
from diffbench.registry.registry import Registry
from diffbench.registry.remembered import Remembered


def describe(component: Any, registry: Registry) -> dict[str, Any]:
    """Everything needed to build a component again, as JSON: its full name and all its options, nested components too.
    """
    options = {f.name: _json(getattr(component, f.name), registry) for f in fields(component)}
    return {"component": registry.ref_of(component).full_name, "options": options}


def trained(component: Any, registry: Registry) -> Any:
    """The component as a training sees it: options that only sampling or measuring reads are at their defaults.

    The same for all components that are one to a training; see `identity`.
    """
    component = component.equal_to()
    otherwise = registry.kinds[component.kind].half
    seen = {f.name: _trained_value(getattr(component, f.name), registry) for f in fields(component)
            if f.default is MISSING or half_of(f, otherwise) in ("training", "incidental")}
    try:
        return type(component)(**seen)
    except OptionError:                                   # a rule between options that the defaults do not keep
        return component


def _trained_value(value: Any, registry: Registry) -> Any:
    if isinstance(value, Options):
        return trained(value, registry)
    return tuple(_trained_value(v, registry) for v in value) if isinstance(value, tuple) else value


def rebuild(kind: str, description: dict[str, Any], registry: Registry) -> Any:
    """The component that `describe` described."""
    from diffbench.contracts.component import Component

    cls = registry.component(kind, description["component"])
    options = {}
    for name, value in description["options"].items():
        wanted = hint(cls, name)
        if is_of(wanted, Component):
            options[name] = rebuild(wanted.kind, value, registry)
        else:
            options[name] = plain(value)
    return cls(**options)


def code_of(cls: type, is_editable: bool) -> dict[str, str]:
    """Part of an identity that stands for the code of a component:
    version or source, and the source of what it reaches in diffbench.
    """
    version: Any = getattr(cls, "version", 1)
    return {"code": code_identity.of_class(cls) if is_editable else f"version {version}",
            **code_identity.of_harness(cls)}


def identity(component: Any, registry: Registry, halves: tuple[str, ...],
             code: Callable[[type, bool], dict[str, str]] = code_of) -> dict[str, Any]:
    """Identity of a component, by which two are the same for these halves of a cell: name, options, and the code behind
    them.

    A released component counts by the version its class declares, one under development by the source of its class and
    of what that reaches, so that an edit re-runs what it touches. Where diffbench is under development, what the class
    reaches there counts too.
    """
    component = component.equal_to()
    ref = registry.ref_of(component)
    otherwise = registry.kinds[component.kind].half
    options = {f.name: _identity_value(getattr(component, f.name), registry, halves, code)
               for f in fields(component) if half_of(f, otherwise) in halves}
    return {"component": ref.full_name, **code(type(component), ref.is_editable), "options": options}


def label(component: Any, registry: Registry) -> str:
    """A short name for people: 'cfg(inner=film, scale=1.5)', options at their default left out, a preset by its name.
    """
    parts, given = [], {f.name: getattr(component, f.name) for f in fields(component)}
    preset = next((name for name, options in type(component).presets.items()
                   if all(given[o] == v for o, v in options.items())), None)
    covered: Any = type(component).presets[preset] if preset else {}
    if preset:
        parts.append(f"preset={preset}")
    for f in fields(component):
        value = given[f.name]
        if value != f.default and f.name not in covered:
            parts.append(f"{f.name}={label(value, registry) if hasattr(value, 'component_name') else _compact(value)}")
    name = registry.ref_of(component).full_name
    return f"{name}({', '.join(parts)})" if parts else name


class Names(Remembered):
    """Descriptions, identities and labels of components, each worked out once for a component of one plan."""

    def __init__(self, registry: Registry):
        super().__init__()
        self.registry = registry
        self._code = functools.cache(code_of)             # of a class, for all its configurations

    def describe(self, component: Any) -> dict[str, Any]:
        """See `describe`."""
        return self.once(lambda: describe(component, self.registry), "description", component)

    def describe_trained(self, component: Any) -> dict[str, Any]:
        """See `trained`; described."""
        return self.once(lambda: describe(trained(component, self.registry), self.registry), "trained", component)

    def identity(self, component: Any, *halves: str) -> dict[str, Any]:
        """See `identity`."""
        return self.once(lambda: identity(component, self.registry, halves, self._code), halves, component)

    def label(self, component: Any) -> str:
        """See `label`."""
        return self.once(lambda: label(component, self.registry), "label", component)

    def is_default(self, component: Any) -> bool:
        """See `Registry.is_default`."""
        return self.once(lambda: self.registry.is_default(component), "default", component)

    def is_default_in_training(self, component: Any) -> bool:
        """The same of the component as a training sees it."""
        return self.once(lambda: self.registry.is_default(trained(component, self.registry)), "default in training",
                         component)

    def full(self, component: Any) -> str:
        """Its full name."""
        return self.registry.ref_of(component).full_name


def _json(value: Any, registry: Registry) -> Any:
    if isinstance(value, Options):
        return describe(value, registry)
    return [_json(v, registry) for v in value] if isinstance(value, tuple) else value


def _identity_value(value: Any, registry: Registry, halves: tuple[str, ...],
                    code: Callable[[type, bool], dict[str, str]]) -> Any:
    if isinstance(value, Options):
        return identity(value, registry, halves, code)
    return [_identity_value(v, registry, halves, code) for v in value] if isinstance(value, tuple) else value


def _compact(value: Any) -> str:
    return ("-".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float)
            else str(value))
