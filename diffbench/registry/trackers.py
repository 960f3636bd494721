"""Trackers: plug-ins that follow a run and are off unless a run names them.

An entry point of the group `diffbench.tracker` gives a name to a module of hook implementations, which is imported only
where a run asks for it by `--tracker NAME` or `run: {trackers: [NAME]}`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import pluggy

from diffbench.errors import BrokenComponent
from diffbench.registry import offered
from diffbench.registry.registry import Registry


@contextlib.contextmanager
def loaded(registry: Registry, names: Iterable[str]) -> Iterator[None]:
    """Has trackers in the registry while a run lasts.

    Raises DiffbenchError for a name nobody offers, or two packages do, and BrokenComponent for a tracker that cannot be
    imported: before anything is run.
    """
    registered: list[object] = []
    try:
        for name in dict.fromkeys(names):
            module = offered.load("tracker", name)
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
