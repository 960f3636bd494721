"""Parser of durations (90s, 10m, 1.5h, 2d or a number of seconds) and of limits by stage. Used by `settings`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from diffbench.wording import did_you_mean

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: Any) -> float:
    """The seconds of a duration; raises ValueError for anything else."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([smhd])\s*", value)
        if match is None:
            raise ValueError("not a duration")
        return float(match[1]) * UNITS[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a duration")
    return float(value)


def budget(value: Any) -> float | str:
    """Seconds of a duration, or "none"; raises ValueError for anything else."""
    if value == "none":
        return "none"
    if seconds(value) <= 0:
        raise ValueError("not positive")
    return seconds(value)


def limits(value: Any, stages: Iterable[str]) -> tuple[tuple[str, float], ...]:
    """Limits by stage as sorted pairs, from {train: 3h} or one duration for "all".

    Raises ValueError for anything else.
    """
    if isinstance(value, tuple | list) and all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in value):
        value = dict(value)
    if not isinstance(value, Mapping):
        value = {"all": value}
    for stage in value:
        if stage not in stages and stage != "all":
            raise ValueError(f"no stage named {stage!r}.{did_you_mean(stage, stages)}")
    seconds_by_stage = {stage: seconds(duration) for stage, duration in value.items()}
    if any(duration <= 0 for duration in seconds_by_stage.values()):
        raise ValueError("not positive")
    return tuple(sorted(seconds_by_stage.items()))
