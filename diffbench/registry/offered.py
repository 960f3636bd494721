"""Launchers and trackers: what packages offer under a name and a run asks for by it, imported only then.
Used by `trackers` and `launchers.choosing`.
"""

from __future__ import annotations

import importlib
from typing import Any

from diffbench.errors import BrokenComponent, DiffbenchError
from diffbench.registry import admission, entry_points, loading
from diffbench.wording import unknown_name

HOME = "diffbench"                    # whose own are imported without a look at what they change


def find(noun: str, name: str) -> entry_points.Point:
    """Who offers a tracker or a launcher, by the entry points of the group `diffbench.<noun>`. Nothing is imported.

    Raises DiffbenchError where nobody does, or two packages do.
    """
    out, group = admission.kept_out(), list(entry_points.entry_points(f"{HOME}.{noun}"))
    points = [point for point in group if point.distribution not in out]
    named = [point for point in points if point.name == name]
    if not named:
        offers = "".join(f". {p.distribution} offers it, and is left out: {out[p.distribution]}" for p in group
                         if p.name == name and p.distribution in out)
        raise DiffbenchError(unknown_name(noun, name, {point.name for point in points}) + offers)
    if len(named) > 1:
        raise DiffbenchError(f"{len(named)} packages offer a {noun} named {name!r}: "
                             f"{', '.join(p.distribution for p in named)}. Uninstall all but one")
    return named[0]


def load(noun: str, name: str) -> Any:
    """Object that the entry point names, "module" or "module:attribute";
    raises BrokenComponent, with what to install, where that cannot be imported.
    """
    point = find(noun, name)
    module, _, attribute = point.value.partition(":")
    of = f"{noun} {name} of {point.distribution}"
    try:
        with loading.importing(f"{noun} {name} ({point.value})", is_watched=point.distribution != HOME):
            loaded = importlib.import_module(module)
            return getattr(loaded, attribute) if attribute else loaded
    except loading.StateChanged as error:
        raise BrokenComponent(f"{of} cannot be used: {error}") from error
    except ImportError as error:
        extra = f"[{name}]" if name in point.extras else ""
        raise BrokenComponent(f"{noun} {name} needs pip install '{point.distribution}{extra}': importing {module} "
                              f"failed with {error}") from None
    except Exception as error:
        raise BrokenComponent(f"{of} cannot be used: importing {point.value} failed with {type(error).__name__}: "
                              f"{error}") from error
