"""Times of cases with the machine they were measured on.

Used by `diffbench bench`, which compares times of one machine only.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench.errors import DataError, DiffbenchError

if TYPE_CHECKING:
    from diffbench.testing.speed.case import Case

REPEATS = 7                           # laps of a case, after warm-up


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The time of one case."""

    case: str
    seconds: float                    # of one run: median over laps
    low: float                        # first and third quartile over laps
    high: float
    images_per_second: float | None


def machine_key(device: str) -> dict[str, Any]:
    """All that a time depends on besides the code: processor or GPU, driver, torch, CUDA, threads, Python."""
    import torch

    from diffbench.machine.fingerprint import fingerprint

    return fingerprint(device) | {"threads": torch.get_num_threads(), "python": platform.python_version()}


def differences(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The differences of two keys, such as 'threads 1 and 4; torch 2.14.0 and 2.15.0'; '' where they are equal."""
    return "; ".join(f"{name} {one.get(name, 'unknown')} and {other.get(name, 'unknown')}"
                     for name in sorted({*one, *other})
                     if one.get(name) != other.get(name))


def measure(cases: Iterable[Case], device: str, say: Callable[[str], None] = lambda text: None) -> tuple[
        list[Figure], dict[str, str]]:
    """(a figure for each timed case, reasons by case that was not timed).

    `say` is given each name before its case is run.
    """
    import torch

    from diffbench.machine import laps

    place = torch.device(device)
    figures, left_out = [], {}
    for case in cases:
        if not case.is_timed:
            continue
        say(case.name)
        try:
            work = case.prepare(place)
        except (DataError, DiffbenchError) as error:
            left_out[case.name] = str(error)
            continue
        result = laps.timed(work.run, laps.warm_up(work.run, place), REPEATS, place)
        low, high = result.quartiles
        figures.append(Figure(case=case.name, seconds=result.median, low=low, high=high,
                              images_per_second=work.images / result.median if work.images else None))
    return figures, left_out


def as_data(figures: Iterable[Figure], left_out: dict[str, str], device: str) -> dict[str, Any]:
    """The figures in the form that `diffbench bench --json` writes."""
    return {"machine": machine_key(device), "figures": [asdict(figure) for figure in figures], "left_out": left_out}


def seconds_before(path: Path, device: str) -> dict[str, float]:
    """Seconds by case from an earlier `--json`. Raises DiffbenchError where they are of another machine."""
    try:
        stored = json.loads(path.read_bytes())
        machine, seconds = stored["machine"], {figure["case"]: float(figure["seconds"]) for figure in stored["figures"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DiffbenchError(
            f"{path} is not what `diffbench bench --json` writes: {type(error).__name__}: {error}") from None
    differ = differences(machine, machine_key(device))
    if differ:
        raise DiffbenchError(f"the figures of {path} were taken elsewhere and are not compared: then and now {differ}")
    return seconds
