"""The hooks: what happens when. One sentence each; entry points say what exists.

A package that changes behaviour names a module of implementations under [project.entry-points.diffbench], each decorated
with `diffbench.hookimpl`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import click

    from diffbench.contracts import Component
    from diffbench.kinds import Kind
    from diffbench.planning import Plan, Stage
    from diffbench.registry import Ref, Registry

hookspec = pluggy.HookspecMarker("diffbench")
hookimpl = pluggy.HookimplMarker("diffbench")


@hookspec
def diffbench_kinds() -> Iterable[Kind]:
    """New kinds of component."""


@hookspec
def diffbench_components(kinds: dict[str, Kind]) -> Iterable[Ref]:
    """The components this plug-in offers; the built-in implementation reads the entry points of every kind."""


@hookspec
def diffbench_commands(cli: click.Group) -> None:
    """Adds commands to the command line."""


@hookspec
def diffbench_launchers() -> dict[str, str]:
    """Ways to start workers, by the name that `--launcher` takes: "module:Class" of a `diffbench.launchers.Launcher`, imported when it is asked for."""


@hookspec
def diffbench_modify_plan(plan: Plan) -> None:
    """May skip cells of a plan by `plan.skip(cell_id, reason)` before anything runs."""


@hookspec
def diffbench_stage_started(stage: Stage) -> None:
    """A stage has been handed to a worker."""


@hookspec
def diffbench_stage_finished(stage: Stage, status: str, seconds: float) -> None:
    """A stage ended with status "ok", "failed" or "diverged"."""


@hookspec
def diffbench_row_added(row: dict[str, Any]) -> None:
    """A cell has got its line of the result table."""


@hookspec
def diffbench_checks(kind: str) -> Callable[[Registry, Component], Iterator[tuple[str, Callable[[], Any]]]] | None:
    """Further conformance checks for a kind: a function (registry, component) -> (statement, check) pairs; a check raises AssertionError where it fails."""


@hookspec
def diffbench_environment() -> dict[str, Any]:
    """Further facts about the machine, stored beside the results."""
