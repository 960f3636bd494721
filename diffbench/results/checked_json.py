"""JSON files of a run, read and checked: what each must hold. Used by the reader of a run's folder, and by imports of
archives.

A run may have been killed, edited, or come from a stranger. What is not as a run writes it is one sentence with its
place.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from diffbench.errors import DiffbenchError
from diffbench.stats.jackknife import NO_INTERVAL
from diffbench.store import shapes
from diffbench.store.manifest import KEY, STAGE
from diffbench.store.shapes import (
    Check,
    anything,
    count,
    fields,
    flag,
    list_of,
    mapping,
    mapping_of,
    matching,
    number,
    one_of,
    optional,
    text,
)

MOST_BYTES = 2**30                    # of one file
# The names of its files; see `output_folder.CELL_ID` for those of today's.
CELL = matching(re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}"), "the id of a cell")
STAGES = mapping_of(fields(name=matching(STAGE, "the name of a stage"), label=text, parents=mapping_of(text)),
                    names=matching(KEY, "a key"))


class PluginFile(TypedDict):
    """A loose plug-in file of a run."""

    path: str
    sha256: str


class Request(TypedDict, total=False):
    """How a run was asked for, besides its matrix and its plan:
    `request` in environment.json, which `rerun` asks for again.
    """

    device: str
    smoke: bool
    launcher: str
    jobs: int | None
    threads: int | None
    plugins: list[PluginFile]


class StageOfPlan(TypedDict):
    """A stage in plan.json; it has fields besides, for those who watch."""

    name: str
    label: str
    parents: dict[str, str]           # their keys by role


class CellOfPlan(TypedDict, total=False):
    """A cell in plan.json."""

    cell_id: str
    skipped: str | None               # why it is left out
    stages: dict[str, str]            # their keys by role
    cell: dict[str, Any]              # the components, options and seeds; see `matrix.describing`


class PlanFile(TypedDict):
    """plan.json, as far as it is read."""

    cells: list[CellOfPlan]
    stages: dict[str, StageOfPlan]    # by key


def _described(value: Any, where: str) -> None:
    """A component of a cell with its options, nested ones too, or an option's value."""
    if not isinstance(value, dict):
        anything(value, where)
        return
    fields(component=text, options=mapping)(value, where)
    for name, option in value["options"].items():
        _described(option, f"{where}.{name}")


def _cell(value: Any, where: str) -> None:
    """Check of the parts of a cell."""
    seed = optional(number)
    fields(scheduler=fields(options=fields(steps=number)), sample=fields(may_have={"seed": _seed}), train=mapping,
           seed=seed)(
               value, where)
    for name, part in value.items():
        if name not in ("train", "sample", "seed"):
            _described(part, f"{where}.{name}")


def _seed(value: Any, where: str) -> None:
    if value != "cell":
        number(value, where)


def _values(value: Any, where: str) -> None:
    """Check of the values of metrics: numbers, and why one has no interval."""
    mapping(value, where)
    for name, entry in value.items():
        (text if name.endswith(NO_INTERVAL) else optional(number))(entry, f"{where}.{name}")


_CELLS = list_of(fields(cell_id=CELL, may_have={
    "cell": _cell, "skipped": optional(text), "stages": mapping_of(matching(KEY, "a key"))}))
LOOKED_AT = fields(cells=_CELLS, may_have={"stages": STAGES})         # all that is needed to compare and to report
PLAN = fields(cells=_CELLS, stages=STAGES)
# Of a plan, which may be large, what is needed to watch a run, to export it, and to put its rows in order.
WATCHED = fields(stages=STAGES)
ORDER = fields(cells=list_of(fields(cell_id=CELL)))
MATRIX = fields(may_have={"name": text, "report": optional(fields(may_have={"baseline": text}))})
REAL = fields(may_have=dict.fromkeys(("held_out", "training"), mapping_of(_values)))
COLUMNS = mapping_of(fields(metric=text, better=one_of("lower", "higher", None), interval=flag, same=list_of(text)))
_PARTS = mapping_of(anything)
ENVIRONMENT = fields(may_have={
    "machine": optional(_PARTS), "packages": optional(mapping_of(text)), "settings": optional(_PARTS),
    "memory_bytes": number,
    "variables": optional(mapping_of(text)), "command": optional(list_of(text)), "python": text, "platform": text,
    "git": optional(mapping_of(optional(fields(commit=text)))),
    "gpus": optional(list_of(fields(may_have={"name": text, "compute_capability": text}))),
    "request": fields(may_have={
        "launcher": text, "jobs": optional(count), "threads": optional(count), "smoke": flag,
        "plugins": list_of(fields(path=text, sha256=text))})})


def read(path: Path, check: Check, otherwise: Callable[[str], str]) -> Any:
    """The value of a JSON file. Raises DiffbenchError with what `otherwise` makes of the reason
    where it is not as expected.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is no file")
        if about.st_size > MOST_BYTES:
            raise ValueError(f"it has {about.st_size:,} bytes")
        value = shapes.parse(path.read_bytes())
        check(value, "it")
    except OSError as error:
        raise DiffbenchError(otherwise(str(error.strerror or error))) from None
    except ValueError as error:
        raise DiffbenchError(otherwise(str(error))) from None
    return value


def part(folder: Path, name: str, check: Check | None = None) -> Any:
    """matrix.json, plan.json, environment.json or real.json of a run; check: for less than all that is in it."""
    path = folder / name
    return read(path, check or _CHECKS[name], lambda why: f"{path} cannot be read: {why}; running the matrix again "
                                                          "writes it anew")


_CHECKS = {"plan.json": LOOKED_AT, "matrix.json": MATRIX, "environment.json": ENVIRONMENT, "real.json": REAL}
