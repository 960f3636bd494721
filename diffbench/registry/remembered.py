"""Results worked out once for the parts they depend on. Used by descriptions of components and by the plan."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Result = TypeVar("Result")


class Remembered:
    """Results by a name and the parts they are made of.

    By the object, not by its value: 1 and 1.0 are equal in Python and differ in JSON.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    def once(self, make: Callable[[], Result], what: Hashable, *parts: Any) -> Result:
        """Result of `make`, made once for the same parts."""
        key = (what, *map(id, parts))
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = (make(), parts)    # parts are kept, so that their ids stay their own
        result: Result = known[0]
        return result
