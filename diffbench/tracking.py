"""Trackers: plug-ins that follow a run and are off unless a run names them.

An entry point of the group `diffbench.tracker` gives a name to a module of hook implementations, which is imported only where a run
asks for it by `--tracker NAME` or `run: {trackers: [NAME]}`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
from collections.abc import Iterable, Iterator

import pluggy

from diffbench import plugins, source
from diffbench.errors import BrokenComponent, DiffbenchError, unknown_name
from diffbench.registry import Registry

GROUP = "diffbench.tracker"


@contextlib.contextmanager
def loaded(registry: Registry, names: Iterable[str]) -> Iterator[None]:
    """Has trackers in the registry while a run lasts.

    Raises DiffbenchError for a name nobody offers, or two packages do, and BrokenComponent for a tracker that cannot be imported:
    before anything is run.
    """
    registered: list[object] = []
    try:
        for name in dict.fromkeys(names):
            module = _import(name)
            if not registry.hooks.is_registered(module):
                registered.append(module)
                _register(registry, name, module)
        yield
    finally:
        for module in registered:
            if registry.hooks.is_registered(module):      # one whose hook raised has been taken out already
                registry.hooks.unregister(module)


def _register(registry: Registry, name: str, module: object) -> None:
    try:
        registry.hooks.register(module, name=f"tracker {name}")
        registry.hooks.check_pending()
    except pluggy.PluginValidationError as error:
        raise BrokenComponent(f"tracker {name} cannot be used: {error}") from None


def find(name: str) -> importlib.metadata.EntryPoint:
    """Who offers a tracker; raises DiffbenchError where nobody does, or two packages do. Nothing is imported."""
    out = plugins.kept_out()
    points = [point for point in source.entry_points(GROUP) if point.distribution not in out]
    found = [point for point in points if point.name == name]
    if not found:
        offers = "".join(f". {p.distribution} offers it, and is left out: {out[p.distribution]}" for p in source.entry_points(GROUP)
                         if p.name == name and p.distribution in out)
        raise DiffbenchError(unknown_name("tracker", name, {point.name for point in points}) + offers)
    if len(found) > 1:
        raise DiffbenchError(f"{len(found)} packages offer a tracker named {name!r}: {', '.join(p.distribution for p in found)}. Uninstall all but one")
    return found[0]


def _import(name: str) -> object:
    point = find(name)
    try:
        return importlib.import_module(point.value)
    except ImportError as error:
        extra = f"[{name}]" if name in point.extras else ""
        raise BrokenComponent(f"tracker {name} needs pip install '{point.distribution}{extra}': importing {point.value} failed with {error}") from None
    except Exception as error:
        said = f"importing {point.value} failed with {type(error).__name__}: {error}"
        raise BrokenComponent(f"tracker {name} of {point.distribution} cannot be used: {said}") from error
