"""The cases measured here: those of registered components and of the harness. Used by `speed` and the tests."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.speed.harness import harness_cases
from diffbench.registry.ref import HOME
from diffbench.registry.registry import Registry
from diffbench.testing.speed.case import Case
from diffbench.testing.speed.components import cases_of


def cases(registry: Registry, names: Sequence[str] = (), phrases: Sequence[str] = ()) -> list[Case]:
    """The cases of components that are named as for `diffbench bench`, all and those of the harness where none is,
    whose names have every phrase.
    """
    of_harness = [] if names else harness_cases(registry)
    return cases_of(registry, names, phrases) + [case for case in of_harness
                                                 if all(phrase in case.name for phrase in phrases)]


def ours(registry: Registry, names: Sequence[str] = (), phrases: Sequence[str] = ()) -> list[Case]:
    """Those of the components of this distribution and of the harness: what benchmarks/counts.json holds."""
    return cases(registry.part(lambda ref: ref.distribution == HOME), names, phrases)
