"""Which rows are meant: by cell id, or by what their cells are made of, such as 'scheduler=ddim,steps=50'.

Read from plans as they lie beside results: nothing that made them need be installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffbench import yaml_file
from diffbench.errors import DiffbenchError, MatrixError, did_you_mean

if TYPE_CHECKING:
    from diffbench.settings import Report

SEEDS = ("seed", "noise_seed")
STEPS = ("steps", "scheduler.steps")
_COMMA = re.compile(r",(?![^\[]*\])")                     # not inside of a list

Named = dict[str, Any]                # 'scheduler', 'scheduler.eta', 'steps', 'train.lr', 'seed', ... -> value


def named(cell: Mapping[str, Any]) -> Named:
    """Everything that a cell as described in a plan is made of, nested components too, by name."""
    found: Named = {}
    for key, value in cell.items():
        if key in ("train", "sample"):
            found |= {f"{key}.{option}": v for option, v in value.items() if (key, option) != ("sample", "seed")}
        elif key != "seed":
            _add(found, key, value)
    of_noise = cell["sample"].get("seed", "cell")
    return found | {"steps": found["scheduler.steps"], "seed": cell["seed"], "noise_seed": cell["seed"] if of_noise == "cell" else of_noise}


def conditions(text: str) -> list[tuple[str, Any]]:
    """'KEY=VALUE,KEY=VALUE' as pairs; a value is read as YAML, a list means any of them. Raises DiffbenchError for a text that is none."""
    found = []
    for part in _COMMA.split(text):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not key or not equals or not value:
            raise DiffbenchError(f"{text!r}: write KEY=VALUE, such as scheduler=ddim,steps=50 or conditioning.scale=[1.5, 3.0]; got {part.strip()!r}")
        key = {"sample.seed": "noise_seed", "scheduler.steps": "steps"}.get(key, key)
        try:
            found.append((key.replace("-", "_"), yaml_file.parse(value, key).data))
        except MatrixError as error:
            raise DiffbenchError(f"{text!r}: {error.rendered[0]}") from None
    return found


def meets(row: Named, wanted: Iterable[tuple[str, Any]]) -> bool:
    """Whether a row has every value; a key that it has not, such as an option of another component, it does not meet."""
    return all(key in row and any(_same(row[key], one) for one in (value if isinstance(value, list) else [value])) for key, value in wanted)


def chosen(rows: Iterable[Named], text: str) -> list[int]:
    """The places of the rows that are meant by an expression; raises DiffbenchError where a key is unknown or nothing is meant."""
    wanted, rows = conditions(text), list(rows)
    known = sorted({key for row in rows for key in row})
    for key, value in wanted:
        if key not in known:
            names = ", ".join(k for k in known if "." not in k)
            raise DiffbenchError(f"{text!r}: no row has {key!r}.{did_you_mean(key, known)} Known: {names}, <kind>.<option>")
        if not any(meets(row, [(key, value)]) for row in rows):
            there = sorted({json.dumps(row[key]) for row in rows if key in row})
            raise DiffbenchError(f"{text!r}: no row has {key}={value}; there are {', '.join(there[:12])}" + (" ..." if len(there) > 12 else ""))
    found = [i for i, row in enumerate(rows) if meets(row, wanted)]
    if not found:
        raise DiffbenchError(f"{text!r}: no row has all of these at once")
    return found


def without_seeds(row: Named) -> str:
    """A text that rows share which differ in nothing but their seeds."""
    return json.dumps({k: v for k, v in row.items() if k not in SEEDS}, sort_keys=True)


def varying(rows: Iterable[Named], leaving_out: Iterable[str] = SEEDS) -> list[str]:
    """The keys in which rows differ, in their order; one that only some rows have counts."""
    rows = list(rows)
    keys = dict.fromkeys(key for row in rows for key in row)
    return [k for k in keys if k not in leaving_out and k != "scheduler.steps" and len({json.dumps(row.get(k), sort_keys=True) for row in rows}) > 1]


def faults_of_report(report: Report, kinds: Sequence[str], blocks: Sequence[str],
                     cells: Iterable[Mapping[str, Any]] | None) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What is wrong with how tables are asked for: (path below `report`, sentence). cells: all of the matrix as described, or None where unknown."""
    known = [*kinds, *SEEDS, "steps", "guidance_scale"]
    for side in ("rows", "columns"):
        for i, name in enumerate(getattr(report, side)):
            if name.partition(".")[0] not in (*known, *blocks):
                yield (side, i), (f"there is no column {name!r} to lay a table out by.{did_you_mean(name, known)} "
                                  f"Known: {', '.join(known)}, <axis>.<option>")
    if report.baseline and cells is not None:
        fault = _fault_of_baseline(report.baseline, cells)
        if fault:
            yield ("baseline",), fault


def _fault_of_baseline(text: str, cells: Iterable[Mapping[str, Any]]) -> str | None:
    """Why an expression names no row that others could be compared with, or None."""
    rows = [named(cell) for cell in cells]
    try:
        meant = [rows[i] for i in chosen(rows, text)]
    except DiffbenchError as error:
        return str(error)
    if len({without_seeds(row) for row in meant}) > 1:
        return f"{text!r} means rows that differ in {', '.join(varying(meant))}; a baseline is one row for each seed: say which"
    return None


def _add(found: Named, key: str, described: Any) -> None:
    if not isinstance(described, dict):
        found[key] = described
        return
    found[key] = described["component"]
    for option, value in described["options"].items():
        _add(found, f"{key}.{option}", value)


def _same(value: Any, wanted: Any) -> bool:
    """Equal, names with hyphens or underscores alike and without the distribution they come from."""
    if isinstance(value, str) and isinstance(wanted, str):
        wanted = wanted.replace("-", "_")
        return value.replace("-", "_") == wanted or value.rpartition(".")[2] == wanted
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted
