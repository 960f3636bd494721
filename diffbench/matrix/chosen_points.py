"""Points of a matrix that become cells: those that rules of `exclude` and `--only` leave. Used by `expansion`."""

from __future__ import annotations

from typing import Any

from diffbench.errors import DiffbenchError, MatrixError
from diffbench.matrix import selection
from diffbench.matrix.matrix import Excluded
from diffbench.matrix.reading import Path, Reader
from diffbench.registry.registry import Registry
from diffbench.wording import brief

Point = dict[str, Any]                # one cell that is not built yet: axis, or axis.option -> value


def excluded_from(points: list[Point], rules: list[tuple[Any, Path]],
                  reader: Reader) -> tuple[list[Point], list[Excluded]]:
    """The points that no rule of `exclude` leaves out, and what each rule left out.

    rules: each with its path in the file; faults of rules go to the reader.
    """
    excluded, work = list[Excluded](), selection.Work()
    rows = selection.named_points(points, reader.registry) if rules else []
    keys = {key for row in rows for key in row}
    for rule, path in rules:
        if not isinstance(rule, dict) or not set(rule) - {"why"}:
            reader.fault(path, f"a rule maps axes to the values it leaves out, got {brief(rule)}")
            continue
        if not isinstance(rule.get("why", ""), str):
            reader.fault((*path, "why"), f"why is a text, got {brief(rule['why'])}")
            continue
        conditions = {key: value for key, value in rule.items() if key != "why"}
        unknown = {key: fault for key in conditions if (fault := selection.unknown_key(key, keys))}
        for key, fault in unknown.items():
            reader.fault((*path, key), fault, on_key=True)
        if unknown:
            continue
        try:
            is_excluded = selection.meets(rows, conditions.items(), reader.registry, work)
        except DiffbenchError as error:
            reader.fault(path, str(error))
            continue
        if not any(is_excluded):
            reader.fault(path, f"this rule leaves out no cell (of {len(points)}): correct or remove it")
        excluded.append(Excluded(count=sum(is_excluded), why=rule.get("why", "excluded without a reason")))
        points, rows = ([item for item, is_out in zip(items, is_excluded, strict=True) if not is_out]
                        for items in (points, rows))
    return points, excluded


def selected(points: list[Point], only: tuple[str, ...], registry: Registry) -> list[Point]:
    """The points that meet every `--only`; raises MatrixError for a condition that cannot be met."""
    rows, work = selection.named_points(points, registry) if only else [], selection.Work()
    for text in only:
        try:
            places = selection.select(rows, text, registry, work)
        except DiffbenchError as error:
            raise MatrixError([f"--only {error}"]) from None
        points, rows = ([items[i] for i in places] for items in (points, rows))
    return points
