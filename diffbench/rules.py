"""Which cells a condition means: the rules of `exclude` and of `--only`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from diffbench import yaml_file
from diffbench.errors import MatrixError, UnknownComponent
from diffbench.registry import Registry

Point = dict[str, Any]                # axis -> component, seed or setting: a cell before it is built


def is_known(key: str, point: Point) -> bool:
    """Whether points have this axis, or 'axis.option'."""
    axis, _, option = key.partition(".")
    return key in point or (bool(option) and axis in point)


def matches(point: Point, key: str, wanted: Any, registry: Registry) -> bool:
    """Whether a point is meant: by name, by 'name: {option: value}', or by 'axis.option: value'; a list means any of them.

    Raises UnknownComponent for a name that does not exist: it could never match.
    """
    if isinstance(wanted, list):
        return any(matches(point, key, w, registry) for w in wanted)
    axis, _, option = key.partition(".")
    value = point[key] if key in point else getattr(point[axis], option, None)
    if key not in registry.kinds:
        return value == wanted
    name, options = next(iter(wanted.items())) if isinstance(wanted, dict) and len(wanted) == 1 else (wanted, {})
    same = registry.find(key, str(name)) == registry.ref_of(value)
    return same and all(_has(value, o, w) for o, w in (options or {}).items())


def chosen_only(points: list[Point], conditions: Iterable[str], registry: Registry) -> list[Point]:
    """The points that meet every 'AXIS=VALUE' of --only; raises MatrixError for a condition that is none or leaves nothing."""
    for condition in conditions:
        key, equals, text = condition.partition("=")
        if not equals or (points and not is_known(key, points[0])):
            known = ", ".join(points[0]) if points else ""
            raise MatrixError([f"--only {condition}: write AXIS=VALUE with an axis of this matrix: {known}"])
        wanted = yaml_file.parse(text, f"--only {key}").data
        try:
            points = [p for p in points if is_known(key, p) and matches(p, key, wanted, registry)]
        except UnknownComponent as error:
            raise MatrixError([f"--only {condition}: {error}"]) from None
        if not points:
            raise MatrixError([f"--only {condition}: no cell is left"])
    return points


def _has(component: Any, option: str, wanted: Any) -> bool:
    """Whether an option has one of the wanted values; a nested component is meant by its name."""
    from diffbench.contracts import Component

    value = getattr(component, option, None)
    name = value.component_name() if isinstance(value, Component) else None
    return any(value == w or (name is not None and w == name) for w in (wanted if isinstance(wanted, list) else [wanted]))
