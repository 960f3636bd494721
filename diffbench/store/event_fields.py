"""Fields of events, with their types and ranges. Used by readers of event logs and by observers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diffbench.wording import plain_values

SECONDS = 1e10                        # three hundred years: no clock of a run says more
COUNT = 1 << 62
STATUSES = ("ok", "failed", "diverged", "blocked")

Check = Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """Whether a value is a finite number within +-1e300, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def is_count(value: Any) -> bool:
    """Whether a value is an integer of at least 0, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= COUNT


def _are_figures(value: Any) -> bool:
    """Whether a value is {name: number or None}."""
    return isinstance(value, dict) and all(isinstance(k, str) and (v is None or is_number(v)) for k, v in value.items())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def _is_seconds(value: Any) -> bool:
    return is_number(value) and 0 <= value <= SECONDS


def _is_status(value: Any) -> bool:
    return isinstance(value, str) and value in STATUSES


def _are_keys(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(key, str) for key in value)


def _are_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and is_count(v) for k, v in value.items())


FIELDS: dict[str, dict[str, Check]] = {
    "run_started": {"name": _is_text, "host": _is_text, "pid": is_count, "number": is_count, "locked": _is_truth},
    "stages_found": {"keys": _are_keys},
    "stage_started": {"key": _is_text, "try": is_count},
    "stage_progress": {"key": _is_text, "done": is_count, "of": is_count, "figures": _are_figures},
    "stage_finished": {"key": _is_text, "status": _is_status, "reason": _is_text, "cached": _is_truth,
                       "seconds": _is_seconds},
    "row_added": {"cell_id": _is_text, "status": _is_text},
    "note": {"text": _is_text},
    "run_finished": {"counts": _are_counts},
    "run_interrupted": {"reason": _is_text},
    "run_failed": {"reason": _is_text},
}


def is_whole(event: Any) -> bool:
    """Whether an event has every field of its kind, with right types and ranges. Unknown kinds have no fields."""
    if not isinstance(event, Mapping) or not isinstance(event.get("event"), str) or not _is_seconds(event.get("t")):
        return False
    return all(name in event and check(event[name]) for name, check in FIELDS.get(event["event"], {}).items())


def checked(event: Any) -> dict[str, Any] | None:
    """A copy of an event of a log with plain texts, or None where it is no event."""
    return plain_values(event) if is_whole(event) and isinstance(event.get("time"), str) else None
