"""The hooks: what happens when. One sentence each; entry points say what exists.

A package that changes behaviour names a module of implementations under [project.entry-points.diffbench], each
decorated with `diffbench.hookimpl`. An implementation takes as many of a hook's arguments as it needs. docs/hooks.md
says when each is called, in which process, and what becomes of one that fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import click
    import pandas

    from diffbench.contracts.component import Component
    from diffbench.contracts.sections import Section
    from diffbench.planning.plan import Plan
    from diffbench.planning.stage import Stage
    from diffbench.registry.kinds import Kind
    from diffbench.registry.ref import Ref
    from diffbench.registry.registry import Registry
    from diffbench.stages.context import Context
    from diffbench.store.stage_kinds import StageKind

hookspec = pluggy.HookspecMarker("diffbench")
hookimpl = pluggy.HookimplMarker("diffbench")


@hookspec
def diffbench_kinds() -> Iterable[Kind]:
    """New kinds of component."""


@hookspec
def diffbench_stage_kinds() -> Iterable[StageKind]:
    """New kinds of stage, for components that name them among their needs."""


@hookspec
def diffbench_components(kinds: dict[str, Kind]) -> Iterable[Ref]:
    """The components this plug-in offers; the built-in implementation reads the entry points of every kind."""


@hookspec
def diffbench_commands(cli: click.Group) -> None:
    """Adds commands to the command line."""


@hookspec
def diffbench_modify_plan(plan: Plan) -> None:
    """May skip cells of a plan by `plan.skip(cell_id, reason)` before anything runs."""


@hookspec
def diffbench_run_started(plan: Plan, folder: Path) -> None:
    """A run begins; its results will lie in `folder`."""


@hookspec
def diffbench_run_finished(folder: Path, counts: dict[str, int]) -> None:
    """A run has ended, also by an interruption, and its tables and sample grids are written;
    counts: cells by status.
    """


@hookspec
def diffbench_stage_started(stage: Stage, folder: Path) -> None:
    """A stage has been handed to a worker."""


@hookspec
def diffbench_stage_progress(stage: Stage, done: int, of: int, figures: dict[str, float], folder: Path) -> None:
    """A running stage has done so many of its units of work, with figures such as loss or images_per_second."""


@hookspec
def diffbench_stage_finished(stage: Stage, status: str, seconds: float, reason: str, folder: Path) -> None:
    """A stage of this run ended with status "ok", "failed" or "diverged",
    or cannot be done because one it needs did not: "blocked".
    """


@hookspec
def diffbench_row_added(row: dict[str, Any], folder: Path) -> None:
    """A cell has got its line of the result table."""


@hookspec(firstresult=True)
def diffbench_run_stage(stage: str, task: dict[str, Any], context: Context) -> dict[str, bytes | Path]:
    """A wrapper around the work of a stage, for profilers and power meters;
    what it yields to is the stage's files by name, in memory or by path.
    """


@hookspec(firstresult=True)
def diffbench_classify_failure(stage: Stage, code: int, reason: str, log_tail: str) -> str | None:
    """A better word or sentence for a failure, such as "preempted", which then stands before the reason;
    None where it knows no better.
    """


@hookspec
def diffbench_checks(kind: str) -> Callable[[Registry, Component], Iterator[tuple[str, Callable[[], Any]]]] | None:
    """Further conformance checks for a kind: a function (registry, component) -> (statement, check) pairs;
    a check raises AssertionError where it fails.
    """


@hookspec
def diffbench_environment() -> dict[str, Any]:
    """Further facts about the machine, stored beside the results."""


@hookspec
def diffbench_report_sections(rows: pandas.DataFrame, folder: Path) -> Iterable[Section]:
    """Sections of the page of results;
    rows: one per cell, `folder` where the run lies, of the first of several that are merged.
    """
