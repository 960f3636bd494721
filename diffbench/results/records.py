"""The records of a run, one JSON file per cell. Every value is checked when read: a bad file costs its own row only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffbench.results import speed_columns
from diffbench.results.columns import LEFT_OUT, MORE_KINDS, RECORDS, Record
from diffbench.results.frame import INT64, LEADING, MEASURED, PROVENANCE, kind_of
from diffbench.wording import message_of, plain, plain_values

NOT_RUN = "not run"                   # of a cell for which a budget left no time
STATUSES = ("ok", "skipped", "failed", "diverged", NOT_RUN)
MOST_BYTES = 64 << 20                 # of one record


def read_all(folder: Path) -> dict[str, Record]:
    """The records of a run by cell id; a file that is none is a failed row, whose reason names it."""
    return {plain(path.stem): _record_or_reason(path) for path in sorted((folder / RECORDS).glob("*.json"))}


def read(path: Path) -> Record:
    """One record. Raises OSError where it cannot be read, ValueError where it is none."""
    if not path.is_file():
        raise ValueError("it is no file")
    with open(path, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES >> 20} MiB")
    try:
        row = json.loads(data, parse_constant=_refused)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError("it is no mapping")
    row = storable(row)
    if row.get("cell_id") != plain(path.stem):
        raise ValueError(f"its cell_id is {row.get('cell_id')!r}")
    if row.get("status") not in STATUSES:
        raise ValueError(f"its status is {row.get('status')!r}, not one of {', '.join(STATUSES)}")
    kinds = row.get(MORE_KINDS, [])
    if not isinstance(kinds, list) or not {*map(str, kinds)}.isdisjoint((*LEADING, *MEASURED, *PROVENANCE)):
        raise ValueError(f"its {MORE_KINDS} is {plain(repr(kinds), 100)}")
    for name, value in row.items():
        if not (isinstance(value, str) if name in kinds else _fits(name, value)):
            raise ValueError(f"its {name} is {plain(repr(value), 100)}")
    return row


def storable(row: Mapping[str, Any]) -> Record:
    """A row as a record holds it: texts plain, NaN and infinity as None, truths among measured numbers as 1.0 and 0.0.
    """
    return {name: float(value) if isinstance(value, bool) and kind_of(name) == "number" else without_nan(value)
            for name, value in plain_values(row).items()}


def without_nan(value: Any) -> Any:
    """A value with None in place of NaN and infinity, which are no JSON."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _record_or_reason(path: Path) -> Record:
    try:
        return read(path)
    except (OSError, ValueError) as error:
        reason = (f"{RECORDS}/{plain(path.name)} is no record of a cell: {message_of(error)}. "
                  "Running the matrix again writes it anew")
        return {"cell_id": plain(path.stem), "status": "failed", "reason": reason}


def _fits(name: str, value: Any) -> bool:
    """Whether a column may hold a value."""
    if name == LEFT_OUT:
        return isinstance(value, dict) and all(isinstance(v, list) and all(map(_is_number, v)) for v in value.values())
    if name == MORE_KINDS:
        return all(isinstance(kind, str) for kind in value)
    if name in speed_columns.RAW or value is None:
        return value is not None or name != "seed"
    kind = kind_of(name)
    if kind == "text":
        return isinstance(value, str)
    if kind == "count" or name in ("seed", "steps"):
        return isinstance(value, int) and not isinstance(value, bool) and value in INT64
    if kind == "flag":
        return isinstance(value, bool)
    return _is_number(value) if kind == "number" else _is_option(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308


def _is_option(value: Any) -> bool:
    """Whether it is a text, a number, a truth, or a list of such."""
    if isinstance(value, list):
        return all(map(_is_option, value))
    return value is None or isinstance(value, str | int | float | bool)


def _refused(constant: str) -> float:
    raise ValueError(f"it holds {constant}, which is no number")
