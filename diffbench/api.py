"""`diffbench.plan` and `diffbench.run`: what the command line does, from Python."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from diffbench import columns, finished, interrupts, selection, tracking
from diffbench import matrix as matrices
from diffbench.claims import Claims, sweep
from diffbench.engine import Engine, Watcher
from diffbench.environment import FILE as ENVIRONMENT
from diffbench.environment import environment, files_of, git_commit, without_secrets
from diffbench.errors import DiffbenchError
from diffbench.events import EventLog
from diffbench.graph import make_plan
from diffbench.launchers import Launcher
from diffbench.machine import fingerprint
from diffbench.observers import Observers
from diffbench.planning import Plan, describe_cell
from diffbench.registry import Registry, load_registry
from diffbench.results import Rows, of_real_images, write_tables
from diffbench.specs import label
from diffbench.store import Store, write_atomically

WAIT_SECONDS = 1.0                    # between looks at whether another run has ended


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run that has ended: where its results lie and how its cells fared."""

    folder: Path
    counts: dict[str, int]            # cells by status
    stages_run: int
    stages_found: int                 # in the store already

    @property
    def is_complete(self) -> bool:
        """Whether every cell is ok or skipped."""
        return set(self.counts) <= {"ok", "skipped"}


def plan(matrix: str | Path | Mapping[str, Any], *, device: str = "auto", plugins: Iterable[str] = (), changes: Iterable[str] = (),
         only: Iterable[str] = (), smoke: bool = False, max_cells: int = matrices.MAX_CELLS, registry: Registry | None = None) -> Plan:
    """The plan of a matrix: a path to its file or a mapping. Raises MatrixError with every mistake, DataError where data are missing."""
    registry = registry or load_registry(plugins)
    loaded = matrices.load(matrix, registry, changes=changes, only=only, max_cells=max_cells, smoke=smoke)
    return make_plan(loaded, registry, _checked_device(device))


def run(matrix: str | Path | Mapping[str, Any], *, out: str | Path | None = None, device: str = "auto", jobs: int | None = None, plugins: Iterable[str] = (),
        changes: Iterable[str] = (), smoke: bool = False, store: Store | None = None, watchers: Iterable[Watcher] = (),
        wait: bool = False, trackers: Iterable[str] = (), launcher: str = "local", threads: int | None = None) -> Finished:
    """Runs a matrix to its tables; what the store holds already is not done again. Arguments as on the command line."""
    plugins = list(plugins)
    made = plan(matrix, device=device, plugins=plugins, changes=changes, smoke=smoke)
    return execute(made, out=out, jobs=jobs, plugins=plugins, store=store, watchers=list(watchers), smoke=smoke, wait=wait, trackers=trackers,
                   launcher=launcher, threads=threads)


def execute(made: Plan, *, out: str | Path | None = None, jobs: int | None = None, plugins: list[str] | None = None, store: Store | None = None,
            watchers: list[Watcher] | None = None, smoke: bool = False, wait: bool = False, trackers: Iterable[str] = (),
            on_ready: Callable[[Engine], None] = lambda engine: None, make_launcher: Callable[[], Launcher] | None = None,
            launcher: str = "local", threads: int | None = None) -> Finished:
    """Runs a plan.

    wait: for another run into the same folder to end; trackers: names, besides those the matrix asks for; on_ready: is told the
    engine once it knows what is done already.
    """
    open_launcher = made.registry.launcher(launcher)
    make_launcher = make_launcher or (lambda: open_launcher(made.device))
    # What `rerun` needs besides the matrix and the plan; what is in those is not said twice.
    request = {"device": made.device, "smoke": smoke, "launcher": without_secrets(launcher), "jobs": jobs, "threads": threads,
               "plugins": files_of(plugins or [])}
    store, folder, watchers = store or Store.default(), run_folder(made, out, smoke), watchers or []
    with tracking.loaded(made.registry, [*made.matrix.run.trackers, *trackers]):
        store.prepare()
        _prepare(folder)
        with _alone_in(folder, wait) as check:
            started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            _describe_run(made, folder, request)
            store.register_run(folder, made.needed())     # before any work: what is being made is named by a run
            with EventLog(folder, warn=lambda text: _note(watchers, text)) as log, \
                    Observers(made.registry, folder, note=lambda text: _note([log, *watchers], text)) as observers:
                rows = Rows(made, store, folder, _facts(made, started), listeners=[log.row_added, observers.row_added])
                engine = Engine(made, store, make_launcher, [log, observers, rows, *watchers], jobs=jobs, threads=threads, plugins=plugins or [],
                                check=check)
                log.run_started(made)
                observers.run_started(made)
                made_of = finished.made_of(folder, made.device)
                rows.start(kept=finished.records(folder, made_of))
                try:
                    engine.find_done()
                    log.flush()
                    on_ready(engine)
                    engine.run()
                finally:
                    if rows.are_changed:
                        _report(made, store, engine, rows, folder)
                        finished.note(folder, made_of)
                    observers.run_finished(rows.counts())
                log.run_finished(rows.counts())
    found = sum(o.cached for o in engine.outcomes.values())
    return Finished(folder=folder, counts=rows.counts(), stages_run=len(engine.outcomes) - found, stages_found=found)


def run_folder(made: Plan, out: str | Path | None, smoke: bool) -> Path:
    """Where the results of a plan lie: as asked for, or under runs/ by the matrix's name."""
    return Path(out) if out else Path("runs") / (made.matrix.name + ("-smoke" if smoke else ""))


def _note(watchers: Iterable[Watcher], text: str) -> None:
    for watcher in watchers:
        watcher.note(text)


def _checked_device(device: str) -> str:
    """The device's name, resolved; DiffbenchError where it is not there."""
    from diffbench.machine import resolve_device

    try:
        return resolve_device(device)
    except ValueError as error:
        raise DiffbenchError(f"--device: {error}") from None


def _report(made: Plan, store: Store, engine: Engine, rows: Rows, folder: Path) -> None:
    """Tables and grids of what there is, also after an interruption."""
    from diffbench.report import grids, page, tables
    from diffbench.report.reading import Run

    if not rows.written:
        return
    meaning, asked = columns.describe(made, store, engine.outcomes), made.matrix.report.baseline
    table = write_tables(folder, meaning)
    wanted = selection.conditions(asked) if asked else []
    baseline = frozenset(p.cell_id for p in made.cells if wanted and selection.meets(selection.named(describe_cell(p.cell, made.names)), wanted))
    real = tables.RealImages(held_out=of_real_images(made.floors, store, engine), training=of_real_images(made.copies, store, engine))
    write_atomically(folder / tables.REAL, json.dumps(asdict(real)).encode())
    facts = tables.Facts(name=made.matrix.name, real=real, machine=fingerprint(made.device), columns=meaning, records=rows.written, baseline=baseline)
    tables.write(folder, table, made.matrix.report.rows, made.matrix.report.columns, facts)
    for planned in made.cells:
        outcome = engine.outcomes.get(planned.stages.get("sample", ""))
        if outcome is not None and outcome.status == "ok" and rows.written.get(planned.cell_id, {}).get("status") == "ok":
            grids.write(store, planned.stages["sample"], folder / "samples" / f"{planned.cell_id}.png")
    run = Run(folder=folder)
    page.write(run, folder / page.FILE, store, made.registry.report_sections(run.rows, folder))


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ".writable", b"")
        (folder / ".writable").unlink()
    except OSError as error:
        raise DiffbenchError(f"--out {folder}: the folder cannot be written: {error.strerror or error}") from None


@contextlib.contextmanager
def _alone_in(folder: Path, wait: bool) -> Iterator[Callable[[], None]]:
    """Keeps other runs out of a folder of results; the claim of a run that is no more holds nobody up. Gives a check that it is still ours."""
    claims, lock = Claims(), folder / ".run"
    try:
        while (holder := claims.take(lock)) is not None:
            if not wait:
                raise DiffbenchError(f"--out {folder}: {holder} writes to this folder; wait for it with --wait, or name another folder with --out")
            interrupts.check()
            time.sleep(WAIT_SECONDS)
        sweep(folder)
        for left in folder.rglob(".*-*"):                 # unfinished files of a run that was killed; other claims are folders
            if left.is_file():
                left.unlink()

        def check() -> None:
            if not claims.holds(lock):
                raise DiffbenchError(f"--out {folder}: the claim {lock.name} of this run was removed, another run may write there; stopped")
        yield check
    finally:
        claims.close()


def _facts(made: Plan, started: str) -> dict[str, Any]:
    import torch

    return {"device": made.device, "torch": str(torch.__version__), "diffbench": metadata.version("diffbench"), "energy_joules": None,
            "git_commit": git_commit(Path(__file__).parent), "started_at": started}


def _describe_run(made: Plan, folder: Path, request: dict[str, Any]) -> None:
    """The matrix, its plan and the environment, beside the results."""
    registry = made.registry
    cells = [{"cell_id": p.cell_id, "skipped": p.skipped, "stages": p.stages, "cell": describe_cell(p.cell, made.names)} for p in made.cells]
    content = {"summary": made.summary(), "cells": cells, "extractor": label(made.matrix.extractor, registry), "stages": {
        key: {"name": s.name, "label": s.label, "parents": s.parents} for key, s in made.needed().items()}}
    facts = environment(made.device, request=request, matrix=made.matrix.path, is_deterministic=made.matrix.run.deterministic)
    for more in registry.answers("diffbench_environment"):
        facts |= more
    for name, data in (("matrix.json", made.matrix.document), ("plan.json", content), (ENVIRONMENT, facts)):
        write_atomically(folder / name, json.dumps(data, indent=None if name == "plan.json" else 1).encode())       # a plan may be long
