"""`diffbench.rerun`: a run of one cell into a fresh store, and its comparison with the row of the earlier run."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffbench.api import running
from diffbench.errors import DiffbenchError
from diffbench.machine.fingerprint import cores, resolve_device
from diffbench.matrix import loading as matrices
from diffbench.matrix.describing import rebuild_cell
from diffbench.matrix.settings import Report
from diffbench.planning.plan import Plan
from diffbench.planning.stage_graph import make_plan
from diffbench.registry.registry import Registry, load_registry
from diffbench.results import reproduced
from diffbench.results.checked_json import Request
from diffbench.results.comparing import ComparedRun, Row
from diffbench.results.folder import RunFolder
from diffbench.results.reproduced import Rerun
from diffbench.running.outcome import Watcher
from diffbench.store.artefacts import Store
from diffbench.store.paths import user_path

MOST_CELLS = 1_000_000                # of a matrix that was run once: its limit then is not known


def rerun(run: str | Path, row: str, *, keep: str | Path | None = None, threads: int | None = None,
          plugins: Iterable[str] = (), store: Store | None = None,
          watch: Callable[[Plan], Iterable[Watcher]] = lambda plan: ()) -> Rerun:
    """Makes one row of a run again in a fresh store, on the same device with as many threads, and compares the two.

    run: its folder of results, which may come from another machine. row: a cell id or its beginning, or conditions such
    as 'scheduler=ddim,steps=50', that mean one row. keep: a new folder that gets the results (run/) and the store
    (home/) of the repetition; without it they are deleted. threads: instead of as many as then. plugins: loose files,
    by default those of the run. store: where the run's own artefacts lie, by default the store in use; where it does
    not hold them, numbers and pictures are compared and artefacts are not. watch: gives the watchers of the repetition,
    told its plan.

    Raises DiffbenchError where the row cannot be repeated here: several or no rows are meant, no such device, other
    plug-ins, missing data.
    """
    then = ComparedRun(user_path(run))
    before = chosen_row(then, row)
    request = then.request or Request()
    files = _plugin_files(request, list(plugins))
    plan = _plan(then, before, request, load_registry(files))
    since = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="diffbench-rerun-") as temporary:
        place = Path(temporary) if keep is None else _new_folder(keep)
        fresh, batch = Store(place / "home"), {plan.cells[0].stages["sample"]: before.record["sample_batch_size"]}
        done = running.execute(plan, out=place / "run", store=fresh, plugins=files, watchers=list(watch(plan)),
                               smoke=request.get("smoke", False),
                               on_ready=lambda engine: engine.batches.update(batch),
                               **_workers(before, request, threads))
        return reproduced.compare(then, before, store or Store.default(), RunFolder(done.folder), plan, fresh,
                                  time.monotonic() - since)


def chosen_row(run: ComparedRun, text: str) -> Row:
    """The one row that the text means, which tells how it was made.
    Raises DiffbenchError for several, and for a record that says too little.
    """
    rows = run.chosen(text)
    if len(rows) > 1:
        ids = ", ".join(row.cell_id for row in rows[:5]) + (" ..." if len(rows) > 5 else "")
        raise DiffbenchError(f"{text!r} means {len(rows)} rows of {run.folder}, and one is repeated at a time: {ids}; "
                             "write one of these, or more conditions")
    missing = [name for name in ("device", "threads", "sample_batch_size") if name not in rows[0].record]
    if missing:
        raise DiffbenchError(f"the record of cell {rows[0].cell_id} of {run.folder} does not tell its "
                             f"{', '.join(missing)}: run its matrix again")
    return rows[0]


def _plan(then: ComparedRun, row: Row, request: Request, registry: Registry) -> Plan:
    """The plan of the one cell, as it is described in the plan of the run:
    --only, --set and --smoke have had their effect on it.
    """
    matrix = matrices.load(then.matrix, registry, smoke=request.get("smoke", False), max_cells=MOST_CELLS)
    cell = rebuild_cell(then.planned(row.cell_id)["cell"], registry)
    one = replace(matrix, cells=(cell,), cell_ids=(row.cell_id,), run=replace(matrix.run, trackers=()), report=Report())
    plan = make_plan(one, registry, _device(then, row))
    if plan.cells[0].skipped:
        raise DiffbenchError(f"cell {row.cell_id} of {then.folder} cannot be repeated: it is skipped here, because "
                             f"{plan.cells[0].skipped}")
    plan.floors, plan.copies = {}, {}                     # of real images, for the captions of tables: no part of a row
    return plan


def _device(then: ComparedRun, row: Row) -> str:
    device = row.record["device"]
    try:
        return resolve_device(device)
    except ValueError as error:
        raise DiffbenchError(f"cell {row.cell_id} of {then.folder} was made on {device!r}, and the same device is "
                             f"needed: {error}") from None


def _workers(row: Row, request: Request, threads: int | None) -> dict[str, Any]:
    """The arguments `jobs` or `threads` of the run, by which every stage has as many threads as then."""
    record = row.record
    if (threads is None and request.get("threads", 0) is None and record["device"] == "cpu"
        and record.get("cores") == cores()):
        # The cores were divided among workers, but for stages that measure speed, which have them all: divided so
        # again. n = c // (c // n).
        return {"jobs": cores() // record["threads"]}
    return {"threads": threads or record["threads"]}


def _plugin_files(request: Request, given: list[str]) -> list[str]:
    """The loose plug-in files to use. A path in a folder of results may be a stranger's:
    what lies there is run only if it is what was run then.
    """
    for file in [] if given else request.get("plugins", []):
        path = Path(file["path"])
        if not path.is_file():
            raise DiffbenchError(f"the run used the plug-in file {path.name}, and there is no {path}: name it with "
                                 "--plugin")
        if hashlib.sha256(path.read_bytes()).hexdigest() != file["sha256"]:
            raise DiffbenchError(f"the plug-in file {path} is not what the run used: its SHA-256 differs; to use it "
                                 "all the same name it with --plugin")
    return given or [file["path"] for file in request.get("plugins", [])]


def _new_folder(keep: str | Path) -> Path:
    """--keep, where nothing lies there yet."""
    folder = user_path(keep)
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise DiffbenchError(f"--keep {folder}: there is something already; name a folder that is empty or not there")
    return folder
