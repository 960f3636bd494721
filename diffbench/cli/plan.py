"""diffbench plan"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import click

from diffbench.cli.common import JSON, make_plan, matrix_options
from diffbench.cli.output import say, say_data

if TYPE_CHECKING:
    from diffbench.planning.estimate import Estimate
    from diffbench.planning.history import History, Stale
    from diffbench.planning.plan import CellPlan, Plan
    from diffbench.planning.stage import Stage
    from diffbench.store.artefacts import Store

MOST_LINES = 12                       # of one sort, for people; --json lists all


@click.command()
@matrix_options
@click.option("--jobs", type=click.IntRange(min=1), help="Workers at once, for the estimate of time; as `run` would "
                                                         "choose unless told otherwise.")
@JSON
def command(as_json: bool, jobs: int | None, **asked: Any) -> None:
    """Show what a run of MATRIX would do: cells, shared stages, what the store holds already, what is skipped and why,
    how long it takes.
    """
    from diffbench.store.artefacts import Store

    plan, store = make_plan(**asked), Store.default()
    done = {key for key, stage in plan.needed().items() if store.is_published(stage.name, key)}
    history, estimated = estimated_time(plan, store, done, jobs)
    stale = stale_stages(plan, done, history)
    if as_json:
        say_data(as_data(plan, done, estimated, stale))
        return
    again = cells_again(plan, stale)
    for line in (*plan_lines(plan, done, estimated), *stale_lines(stale), *cell_lines(plan, again),
                 *training_lines(plan, done)):
        say(line)


def estimated_time(plan: Plan, store: Store, done: Collection[str], jobs: int | None) -> tuple[History, Estimate]:
    """History of stages on this machine that the store holds, and the time of what is left as the local launcher would
    run it.
    """
    from diffbench.launchers.local import LocalLauncher
    from diffbench.planning.estimate import estimate, history_of

    capacity = LocalLauncher().capacity(plan.device.partition(":")[0], plan.most_at_once(), jobs)
    history = history_of(plan, store, capacity.threads)
    return history, estimate(plan, done, history, capacity.slots)


def stale_stages(plan: Plan, done: Collection[str], history: History) -> list[tuple[Stage, Stale]]:
    """Stages done before something they are made of changed;
    not those that must be done again only because a parent is.
    """
    waiting = [s for key, s in plan.needed().items() if key not in done
               and all(parent in done for parent in s.parents.values())]
    return [(stage, change) for stage in waiting if (change := history.stale(stage)) is not None]


def cells_again(plan: Plan, stale: list[tuple[Stage, Stale]]) -> list[CellPlan]:
    """The cells whose rows depend on stages that were done before a change."""
    again = {stage.key for stage, _ in stale}
    for key, stage in plan.needed().items():              # parents come first
        if not again.isdisjoint(stage.parents.values()):
            again.add(key)
    return [planned for planned in plan.cells if not again.isdisjoint(planned.stages.values())]


def as_data(plan: Plan, done: Collection[str], estimated: Estimate, stale: list[tuple[Stage, Stale]]) -> dict[str, Any]:
    """`diffbench plan --json`; its fields are described in docs/plan.md."""
    def seconds(key: str) -> list[float] | None:
        time = estimated.stages.get(key)
        return None if time is None else [time.seconds, time.low, time.high]
    again = {planned.cell_id for planned in cells_again(plan, stale)}
    return plan.summary() | {
        "device": plan.device, "stages_done": len(done),
        "seconds": list(estimated.seconds) if estimated.stages else None, "workers": estimated.workers,
        "earlier_stages": estimated.earlier,
        "stages_of_unknown_time": estimated.unknown,
        "stale": [{"stage": s.name, "key": s.key, "before": time.key, "changed": list(time.changed)}
                  for s, time in stale],
        "listed_cells": [{"cell_id": p.cell_id, "skipped": p.skipped, "again": p.cell_id in again, "stages": p.stages}
                         for p in plan.cells],
        "listed_stages": {key: {"stage": s.name, "label": s.label, "parents": s.parents, "done": key in done,
                                "seconds": seconds(key)}
                          for key, s in plan.needed().items()},
    }


def plan_lines(plan: Plan, done: Collection[str], estimated: Estimate | None) -> list[str]:
    """The plan in a few lines, for people."""
    summary = plan.summary()
    stages = summary["stages"]
    lines = [f"{plan.matrix.name}: {summary['cells']:,} cells, {sum(stages.values()):,} stages on {plan.device}"
             + (f", {len(done):,} of them in the store already" if done else "")
             + f" ({', '.join(f'{n:,} {name}' for name, n in stages.items())})"]
    lines += _capped([f"  {names}: {classes}" for names, classes in summary["classes"].items()], "data sets")
    steps, alone = summary["train_steps"], summary["train_steps_if_every_cell_were_trained_alone"]
    if alone > steps:
        lines.append(f"  {steps:,} training steps instead of {alone:,}: cells that differ only in sampling share a "
                     "training")
    nfe, nfe_alone = summary["nfe"], summary["nfe_if_every_cell_were_sampled_alone"]
    lines.append(f"  {nfe:,} network evaluations to sample" + (
        f" instead of {nfe_alone:,}: equal cells are sampled once" if nfe_alone > nfe else ""))
    if estimated is not None:                             # other launchers run on machines that nothing is known of
        lines.append(f"  {estimated.line()}")
    lines += _capped([f"  equal cells, sampled once: {', '.join(ids)}" for ids in summary["equal_cells"]],
                     "groups of equal cells")
    lines += _capped([f"  excluded: {e['count']:,} cells: {e['why']}" for e in summary["excluded"]], "rules")
    lines += _capped([f"  skipped: {count:,} cells: {reason}" for reason, count in summary["skipped_because"].items()],
                     "reasons to skip cells")
    return lines + _capped([f"  note: {note}" for note in summary["notes"]], "notes")


def stale_lines(stale: list[tuple[Stage, Stale]]) -> Iterable[str]:
    """'stale: 3 train stages will be done again, with what depends on them: backbone unet changed'."""
    counts = Counter((stage.name, ", ".join(change.changed)) for stage, change in stale)
    return _capped(
        [f"  stale: {count:,} {name} stage{'s' if count > 1 else ''} will be done again, with what depends on "
         f"{'them' if count > 1 else 'it'}: {changed} changed" for (name, changed), count in counts.items()],
        "sorts of stale stages")


def cell_lines(plan: Plan, again: list[CellPlan]) -> Iterable[str]:
    """A line for each cell whose row is made again: '  again: 5d15ad120e85 unet, linear, film, ddim(steps=20), seed 0'.
    """
    return _capped([f"  again: {planned.cell_id} {plan.stages[planned.stages['sample']].label}" for planned in again],
                   "cells that are made again")


def training_lines(plan: Plan, done: Collection[str]) -> list[str]:
    """A line for each training, those that differ in the seed alone together."""
    users = Counter(p.stages["train"] for p in plan.cells if not p.skipped)
    groups: dict[str, list[str]] = {}
    for key in users:
        groups.setdefault(plan.stages[key].label.rpartition(", seed ")[0], []).append(key)
    lines = []
    for training, keys in groups.items():
        ready = sum(key in done for key in keys)
        seeds = plan.stages[keys[0]].label.rpartition(", ")[2] if len(keys) == 1 else f"{len(keys)} trainings"
        lines.append(f"  train {'(done) ' if ready == len(keys) else f'({ready} done) ' if ready else ''}{training}, "
                     f"{seeds}: {sum(users[key] for key in keys):,} cells")
    return _capped(lines, "sorts of trainings")


def _capped(lines: list[str], what: str) -> list[str]:
    """The first lines, and how many more there are."""
    return lines if len(lines) <= MOST_LINES else [*lines[:MOST_LINES],
                                                   f"  and {len(lines) - MOST_LINES:,} more {what}; --json lists all"]
