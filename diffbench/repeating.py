"""`diffbench.rerun`: one row of a finished run made again from nothing, and compared with what it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffbench import agreement, api, environment
from diffbench import matrix as matrices
from diffbench.agreement import Rerun
from diffbench.columns import RECORDS
from diffbench.engine import Watcher
from diffbench.environment import Change
from diffbench.errors import DiffbenchError
from diffbench.graph import make_plan
from diffbench.machine import cores, resolve_device
from diffbench.pairs import Row, Run
from diffbench.planning import Plan, rebuild_cell
from diffbench.registry import Registry, load_registry
from diffbench.settings import Report
from diffbench.store import Store

MOST_CELLS = 1_000_000                # of a matrix that was run once: its limit then is not known


def rerun(run: str | Path, row: str, *, keep: str | Path | None = None, threads: int | None = None, plugins: Iterable[str] = (), store: Store | None = None,
          watch: Callable[[Plan], Iterable[Watcher]] = lambda plan: ()) -> Rerun:
    """Makes one row of a run again in a fresh store, on the same device with as many threads, and compares the two.

    run: its folder of results, which may come from another machine. row: a cell id or its beginning, or conditions such as
    'scheduler=ddim,steps=50', that mean one row. keep: a new folder that gets the results (run/) and the store (home/) of the repetition; without
    it they are deleted. threads: instead of as many as then. plugins: loose files, by default those of the run. store: where the run's own
    artefacts lie, by default the store in use; where it does not hold them, numbers and pictures are compared and artefacts are not. watch:
    gives the watchers of the repetition, told its plan.

    Raises DiffbenchError where the row cannot be repeated here: several or no rows are meant, no such device, other plug-ins, missing data.
    """
    then = _Then.read(Path(run), row)
    request = then.environment.get("request", {})
    files = _plugin_files(request, list(plugins))
    made = _plan(then, request, load_registry(files))
    since = time.monotonic()
    with _workplace(keep) as place:
        fresh, batch = Store(place / "home"), {made.cells[0].stages["sample"]: then.row.record["sample_batch_size"]}
        done = api.execute(made, out=place / "run", store=fresh, plugins=files, watchers=list(watch(made)), smoke=request.get("smoke", False),
                           on_ready=lambda engine: engine.batches.update(batch), **_workers(then, request, threads))
        return _compared(then, made, store or Store.default(), fresh, done.folder, time.monotonic() - since)


@dataclass(frozen=True)
class _Then:
    """What a folder of results tells of one of its rows."""

    folder: Path
    row: Row
    planned: dict[str, Any]           # the row's cell in the plan: its description and its stages
    plan: dict[str, Any]
    matrix: dict[str, Any]
    environment: dict[str, Any]

    @classmethod
    def read(cls, folder: Path, text: str) -> _Then:
        """Raises DiffbenchError where a file of the run is missing or damaged, or where the text does not mean one row."""
        rows = Run(folder).chosen(text)
        if len(rows) > 1:
            ids = ", ".join(row.cell_id for row in rows[:5]) + (" ..." if len(rows) > 5 else "")
            raise DiffbenchError(f"{text!r} means {len(rows)} rows of {folder}, and one is repeated at a time: {ids}; write one of these, or more conditions")
        record, plan = rows[0].record, _json(folder, "plan.json")
        missing = [name for name in ("device", "threads", "sample_batch_size") if name not in record]
        if missing:
            raise DiffbenchError(f"the record of cell {rows[0].cell_id} of {folder} does not tell its {', '.join(missing)}: run its matrix again")
        planned = next(cell for cell in plan["cells"] if cell["cell_id"] == rows[0].cell_id)
        return cls(folder, rows[0], planned, plan, _json(folder, "matrix.json"), _json(folder, environment.FILE))

    def notes(self) -> Iterator[str]:
        """What should be known before the two are compared."""
        if "request" not in self.environment:
            yield f"{environment.FILE} is of an earlier version, which says less: it is taken for a whole run without plug-in files"
        elif self.environment["request"]["launcher"].partition(":")[0] != "local":
            yield f"the run was made by --launcher {self.environment['request']['launcher']}: {environment.FILE} tells of the machine that started it alone"

    def words(self) -> str:
        """The cell, for people."""
        record = self.row.record
        shown = [record[name] for name in ("backbone", "noise_schedule", "parameterization", "conditioning", "scheduler") if name in record]
        return f"{', '.join(shown)}, {record['steps']} steps, seed {record['seed']}"


def _compared(then: _Then, made: Plan, store: Store, fresh: Store, folder: Path, seconds: float) -> Rerun:
    """store: of the run; fresh, folder: store and results of the repetition."""
    before, cell_id = then.row.record, then.row.cell_id
    now, here = _json(folder / RECORDS, f"{cell_id}.json"), _json(folder, environment.FILE)
    stages = agreement.pairs(then.plan, then.planned["stages"], made)
    described: dict[str, Any] = dict(run=str(then.folder), cell_id=cell_id, made_of=then.words(), seconds=seconds, notes=tuple(then.notes()),
                                     stages_changed=tuple(agreement.what_changed(stages, made, store)))
    changes = environment.differences(then.environment, here)
    if now["status"] != "ok":
        return Rerun(**described, numbers=(), clocks=(), artefacts=(), changes=tuple(changes), failure=f"{now['status']}: {now['reason']}")
    changes += [Change(f"row.{name}", before[name], now[name]) for name in ("threads", "sample_batch_size") if before[name] != now[name]]
    of_stages = dict.fromkeys(agreement.made_otherwise(stages, store, fresh, then.environment.get("machine")))
    changes += [change for change in of_stages if not any(known.what == "row.threads" and known[1:] == change[1:] for known in changes)]
    artefacts = list(agreement.compare_artefacts(stages, store, fresh))
    picture = agreement.pictures(then.folder / "samples" / f"{cell_id}.png", folder / "samples" / f"{cell_id}.png")
    if picture is not None and any(a.stage == "sample" and a.is_equal is None for a in artefacts):
        artefacts.append(picture)
    return Rerun(**described, numbers=agreement.numbers(before, now), clocks=agreement.clocks(before, now), artefacts=tuple(artefacts), changes=tuple(changes),
                 failure="")


def _plan(then: _Then, request: Mapping[str, Any], registry: Registry) -> Plan:
    """The plan of the one cell, as it is described in the plan of the run: --only, --set and --smoke have had their effect on it."""
    matrix = matrices.load(then.matrix, registry, smoke=request.get("smoke", False), max_cells=MOST_CELLS)
    cell, cell_id = rebuild_cell(then.planned["cell"], registry), then.row.cell_id
    made = make_plan(replace(matrix, cells=(cell,), cell_ids=(cell_id,), run=replace(matrix.run, trackers=()), report=Report()), registry, _device(then))
    if made.cells[0].skipped:
        raise DiffbenchError(f"cell {cell_id} of {then.folder} cannot be repeated: it is skipped here, because {made.cells[0].skipped}")
    made.floors, made.copies = {}, {}                     # of real images, for the captions of tables: no part of a row
    return made


def _device(then: _Then) -> str:
    device = then.row.record["device"]
    try:
        return resolve_device(device)
    except ValueError as error:
        raise DiffbenchError(f"cell {then.row.cell_id} of {then.folder} was made on {device!r}, and the same device is needed: {error}") from None


def _workers(then: _Then, request: Mapping[str, Any], threads: int | None) -> dict[str, int]:
    """How many workers at once, or how many threads for each, so that every stage has as many as then."""
    record = then.row.record
    if threads is None and request.get("threads", 0) is None and record["device"] == "cpu" and record.get("cores") == cores():
        # The cores were divided among workers, but for stages that measure speed, which have them all: divided so again. n = c // (c // n).
        return {"jobs": cores() // record["threads"]}
    return {"threads": threads or record["threads"]}


def _plugin_files(request: Mapping[str, Any], given: list[str]) -> list[str]:
    """The loose plug-in files to use. A path in a folder of results may be a stranger's: what lies there is run only if it is what was run then."""
    for file in [] if given else request.get("plugins", []):
        path = Path(file["path"])
        if not path.is_file():
            raise DiffbenchError(f"the run used the plug-in file {path.name}, and there is no {path}: name it with --plugin")
        if hashlib.sha256(path.read_bytes()).hexdigest() != file["sha256"]:
            raise DiffbenchError(f"the plug-in file {path} is not what the run used: its SHA-256 differs; to use it all the same name it with --plugin")
    return given or [file["path"] for file in request.get("plugins", [])]


@contextlib.contextmanager
def _workplace(keep: str | Path | None) -> Iterator[Path]:
    """A folder of one's own: a new one that stays, or one that is deleted."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="diffbench-rerun-") as made:
            yield Path(made)
        return
    folder = Path(keep)
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise DiffbenchError(f"--keep {folder}: there is something already; name a folder that is empty or not there")
    yield folder


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_bytes())
    except OSError as error:
        raise DiffbenchError(f"{folder / name} cannot be read ({error.strerror}): give the folder of a finished run, such as runs/quickstart") from None
    except ValueError as error:
        raise DiffbenchError(f"{folder / name} is damaged: {error}; run its matrix again") from None
    if not isinstance(content, dict):
        raise DiffbenchError(f"{folder / name} is damaged: a mapping is expected, found {type(content).__name__}; run its matrix again")
    return content
