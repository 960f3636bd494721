"""What the components of a cell have against it. Used by the plan and by sampler runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from diffbench.contracts.component import Component
from diffbench.errors import BrokenComponent, DiffbenchError

if TYPE_CHECKING:
    from diffbench.contracts.cell import Cell


def first_refusal(cell: Cell, more: Iterable[Component] = ()) -> str | None:
    """Reason of the first component that refuses a cell, or None: the spacing, the process, of where it starts, then
    the other components and `more`. The spacing comes first because others ask it for its times, which this schedule
    may not have.
    """
    refusals = (_refusal(component, cell) for component in (*cell.components().values(), *more))
    return _refusal(cell.spacing, cell) or _refusal(cell.process, cell) or next(filter(None, refusals), None)


def _refusal(component: Component, cell: Cell) -> str | None:
    """Reason of a component against a cell, or None; BrokenComponent where it raises anything but an error of ours."""
    try:
        return component.why_not(cell)
    except DiffbenchError:
        raise
    except Exception as error:
        raise BrokenComponent(f"{component.kind} {component.component_name()} cannot say whether it fits a cell: its "
                              f"why_not raised {type(error).__name__}: {error}") from error
