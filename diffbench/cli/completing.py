"""Completions for a shell: names of kinds, components, packages and trackers, read without importing any of them."""

from __future__ import annotations

import click


def kinds(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Kinds of component."""
    from diffbench.registry.registry import load_registry

    return _from(load_registry().kinds, begun)


def kinds_and_tracker(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Names of what `diffbench new` makes."""
    from diffbench.registry.registry import load_registry
    from diffbench.scaffold import TRACKER

    return _from([*load_registry().kinds, TRACKER], begun)


def components(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Components of the kind that stands before."""
    from diffbench.registry.registry import load_registry

    registry, kind = load_registry(), str(ctx.params.get("kind")).replace("-", "_")
    return _from([ref.full_name for ref in registry.refs(kind)], begun) if kind in registry.kinds else []


def subjects(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Names that `diffbench check` takes: kinds, packages and components."""
    from diffbench.registry.registry import load_registry

    registry = load_registry()
    refs = [ref for kind in registry.kinds for ref in registry.refs(kind)]
    return _from([*registry.kinds, *(ref.distribution for ref in refs), *(ref.full_name for ref in refs)], begun)


def trackers(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Trackers that are installed."""
    from diffbench.registry import entry_points

    return _from([point.name for point in entry_points.entry_points("diffbench.tracker")], begun)


def _from(names: list[str] | dict[str, object], begun: str) -> list[str]:
    return sorted({name for name in names if name.replace("-", "_").startswith(begun.replace("-", "_"))})
