"""`diffbench.plan` and `diffbench.run`: the plan of a matrix and its execution, from Python. Used by the command line.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import gc
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from diffbench.api.run_report import RunReport
from diffbench.errors import DiffbenchError
from diffbench.launchers import Launcher
from diffbench.launchers.choosing import chosen
from diffbench.matrix import loading as matrices
from diffbench.matrix.describing import describe_cell
from diffbench.matrix.reading import MAX_CELLS
from diffbench.planning.plan import Plan
from diffbench.planning.stage_graph import make_plan
from diffbench.registry import loading
from diffbench.registry import trackers as tracking
from diffbench.registry.describing import label
from diffbench.registry.registry import Registry, load_registry
from diffbench.results import unchanged
from diffbench.results.checked_json import Request
from diffbench.results.environment import FILE as ENVIRONMENT
from diffbench.results.environment import environment, files_of, git_commit, without_secrets
from diffbench.results.rows import Rows
from diffbench.results.run_files import explained
from diffbench.running.engine import Engine
from diffbench.running.outcome import Watcher
from diffbench.stages.stage_imports import StageImports
from diffbench.store import output_folder
from diffbench.store.artefacts import Store, write_atomically
from diffbench.store.paths import user_path
from diffbench.watching.event_log import EventLog
from diffbench.watching.observers import Observers, refuse_unready

BUDGET_ENDED = "the budget of the run ended before it; the same line again goes on"


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run that has ended: where its results lie and how its cells fared."""

    folder: Path
    counts: dict[str, int]            # cells by status
    stages_run: int
    stages_found: int                 # in the store already
    answer: tuple[str, ...] = ()      # its best rows beside real images, as lines for people
    ended_early: bool = False         # by its budget
    not_written: tuple[str, ...] = () # files that could not be made of the rows, and why; the others are there

    @property
    def is_complete(self) -> bool:
        """Whether every cell is ok or skipped, and every file was written."""
        return set(self.counts) <= {"ok", "skipped"} and not self.not_written and not self.ended_early


def plan(matrix: str | Path | Mapping[str, Any], *, device: str = "auto", plugins: Iterable[str] = (),
         changes: Iterable[str] = (),
         only: Iterable[str] = (), smoke: bool = False, max_cells: int = MAX_CELLS,
         registry: Registry | None = None) -> Plan:
    """The plan of a matrix: a path to its file or a mapping.
    Raises MatrixError with every mistake, DataError where data are missing.
    """
    import torch  # noqa: F401  before any plug-in, so that what one changes in it can be told

    registry = registry or load_registry([str(user_path(file)) for file in plugins])
    loading.refuse_changes()
    with _without_collector():
        loaded = matrices.load(matrix, registry, changes=changes, only=only, max_cells=max_cells, smoke=smoke)
        planned = make_plan(loaded, registry, _checked_device(device))
        # a component that no worker can know is a mistake, not a failed row
        _loose_files(planned)
    loading.refuse_changes()
    return planned


def run(matrix: str | Path | Mapping[str, Any], *, out: str | Path | None = None, device: str = "auto",
        jobs: int | None = None, plugins: Iterable[str] = (),
        changes: Iterable[str] = (), smoke: bool = False, store: Store | None = None, watchers: Iterable[Watcher] = (),
        wait: bool = False, trackers: Iterable[str] = (), launcher: str = "local",
        threads: int | None = None, budget: float | None = None) -> Finished:
    """Runs a matrix to its tables; what the store holds already is not done again. Arguments as on the command line."""
    plugins = [str(user_path(file)) for file in plugins]
    planned = plan(matrix, device=device, plugins=plugins, changes=changes, smoke=smoke)
    return execute(planned, out=out, jobs=jobs, plugins=plugins, store=store, watchers=list(watchers), smoke=smoke,
                   wait=wait, trackers=trackers,
                   launcher=launcher, threads=threads, budget=budget)


def execute(plan: Plan, *, out: str | Path | None = None, jobs: int | None = None, plugins: list[str] | None = None,
            store: Store | None = None,
            watchers: list[Watcher] | None = None, smoke: bool = False, wait: bool = False,
            trackers: Iterable[str] = (),
            on_ready: Callable[[Engine], None] = lambda engine: None,
            make_launcher: Callable[[], Launcher] | None = None,
            launcher: str = "local", threads: int | None = None, budget: float | None = None) -> Finished:
    """Runs a plan.

    budget: seconds after which it ends and the same call again goes on, in place of the matrix's `run.budget`;
    wait: for another run into the same folder to end; trackers: names, besides those the matrix asks for; on_ready: is
    told the engine once it knows what is done already.
    """
    loading.refuse_while_importing("a run")
    files = list(dict.fromkeys([*(str(Path(file).resolve()) for file in plugins or []), *_loose_files(plan)]))
    open_launcher = chosen(launcher)
    make_launcher = make_launcher or (lambda: open_launcher(plan.device))
    # What `rerun` needs besides the matrix and the plan; what is in those is not said twice.
    request = Request(device=plan.device, smoke=smoke, launcher=without_secrets(launcher), jobs=jobs, threads=threads,
                      plugins=files_of(files))
    store, folder, watchers = store or Store.default(), run_folder(plan, out, smoke), watchers or []
    with tracking.loaded(plan.registry, [*plan.matrix.run.trackers, *trackers]):
        refuse_unready(plan.registry)
        store.prepare()
        output_folder.prepare(folder)
        with explained(folder), output_folder.alone_in(folder, wait) as check:
            started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            _describe_run(plan, folder, request)
            # before any work: what is being made is named by a run
            store.register_run(folder, plan.needed(), plan.matrix.name)
            with EventLog(folder, warn=lambda text: _note(watchers, text)) as log, \
                    Observers(plan.registry, folder, note=lambda text: _note([log, *watchers], text)) as observers:
                rows = Rows(plan, store, folder, _facts(plan, started), listeners=[log.row_added, observers.row_added],
                            early=log.row_added,
                            on_quality=lambda: quality_is_known())
                engine = Engine(plan, store, make_launcher, [log, observers, rows, *watchers], jobs=jobs,
                                threads=threads, check=lambda: now_and_then(),
                                budget=budget or plan.matrix.run.budget_seconds)
                report = RunReport(plan, store, engine, rows, folder)
                log.run_started(plan)
                observers.run_started(plan)
                made_of = unchanged.made_of(folder, plan.device)
                rows.start(kept=unchanged.records(folder, made_of))

                def now_and_then() -> None:
                    check()
                    report.follow()

                def quality_is_known() -> None:
                    report.write()
                    _note([log, *watchers], f"the quality of all rows is in {folder}; timings follow")
                try:
                    engine.find_done()
                    log.flush()
                    on_ready(engine)
                    rows.settle()
                    engine.run()
                    if not engine.is_done:
                        rows.end_early(BUDGET_ENDED)
                finally:
                    if rows.are_changed and folder.is_dir():
                        check()                           # nothing is written where another run may be writing by now
                        report.write()
                        # The same line must not take for whole what is not.
                        unchanged.note(folder, made_of if engine.is_done and not report.problems else "")
                        for problem in report.problems:
                            _note([log, *watchers], problem)
                    observers.run_finished(rows.counts())
                if not folder.is_dir():
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
                log.run_finished(rows.counts())
    found_done = sum(o.cached for o in engine.outcomes.values())
    return Finished(folder=folder, counts=rows.counts(), stages_run=len(engine.outcomes) - found_done,
                    stages_found=found_done, answer=tuple(report.answer),
                    ended_early=not engine.is_done, not_written=tuple(report.problems))


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """No search for cycles: a plan makes millions of objects that all live on,
    and looking through them takes a third of its time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _loose_files(plan: Plan) -> list[str]:
    """The files that workers must run for what @register added;
    raises BrokenComponent where a component stands in none.
    """
    return sorted(StageImports(plan.registry).files(stage.task for stage in plan.needed().values()))


def run_folder(plan: Plan, out: str | Path | None, smoke: bool) -> Path:
    """Folder of the results of a plan: as asked for, or under runs/ by the matrix's name."""
    return user_path(out) if out else Path("runs") / (plan.matrix.name + ("-smoke" if smoke else ""))


def _note(watchers: Iterable[Watcher], text: str) -> None:
    for watcher in watchers:
        watcher.note(text)


def _checked_device(device: str) -> str:
    """The device's name, resolved; DiffbenchError where it is not there."""
    from diffbench.machine.fingerprint import resolve_device

    try:
        return resolve_device(device)
    except ValueError as error:
        raise DiffbenchError(f"--device: {error}") from None


def _facts(plan: Plan, started: str) -> dict[str, Any]:
    import torch

    return {"device": plan.device, "torch": str(torch.__version__), "diffbench": metadata.version("diffbench"),
            "energy_joules": None,
            "git_commit": git_commit(Path(__file__).parents[1]), "started_at": started}


def _describe_run(plan: Plan, folder: Path, request: Request) -> None:
    """The matrix, its plan and the environment, beside the results."""
    registry = plan.registry
    cells = [{"cell_id": p.cell_id, "skipped": p.skipped, "stages": p.stages, "cell": describe_cell(p.cell, plan.names)}
             for p in plan.cells]
    content = {"summary": plan.summary(), "cells": cells, "extractor": label(plan.matrix.extractor, registry),
               "stages": {
                   key: s.described() for key, s in plan.needed().items()}}
    facts = environment(plan.device, request=request, matrix=plan.matrix.path,
                        is_deterministic=plan.matrix.run.deterministic)
    for more in registry.answers("diffbench_environment"):
        facts |= more
    for name, data in (("matrix.json", plan.matrix.document), ("plan.json", content), (ENVIRONMENT, facts)):
        # a plan may be long
        write_atomically(folder / name, json.dumps(data, indent=None if name == "plan.json" else 1).encode())
