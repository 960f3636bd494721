"""diffbench plan"""

from __future__ import annotations

import json
from typing import Any

import click

from diffbench.cli.common import JSON, make_plan, matrix_options


@click.command()
@matrix_options
@JSON
def command(as_json: bool, **asked: Any) -> None:
    """Show what a run of MATRIX would do: cells, shared stages, what the store holds already, what is skipped and why."""
    from diffbench.store import Store

    plan = make_plan(**asked)
    store = Store.default()
    stages = plan.needed()
    done = {key for key, stage in stages.items() if store.has(stage.name, key)}
    if as_json:
        cells = [{"cell_id": p.cell_id, "skipped": p.skipped, "stages": p.stages} for p in plan.cells]
        listed = {key: {"stage": s.name, "label": s.label, "parents": s.parents, "done": key in done} for key, s in stages.items()}
        click.echo(json.dumps(plan.summary() | {"device": plan.device, "listed_cells": cells, "listed_stages": listed}, indent=1))
        return
    for line in plan_lines(plan, len(done)):
        click.echo(line)
    for stage in stages.values():
        if stage.name == "train":
            users = sum(p.stages.get("train") == stage.key for p in plan.cells)
            click.echo(f"  train {'(done) ' if stage.key in done else ''}{stage.label}: {users} cells")


def plan_lines(plan: Any, done: int) -> list[str]:
    """The plan in a few lines, for people."""
    summary = plan.summary()
    stages = summary["stages"]
    lines = [f"{plan.matrix.name}: {summary['cells']} cells, {sum(stages.values())} stages on {plan.device}"
             + (f", {done} of them in the store already" if done else "") + f" ({', '.join(f'{n} {name}' for name, n in stages.items())})"]
    steps, alone = summary["train_steps"], summary["train_steps_if_every_cell_were_trained_alone"]
    if alone > steps:
        lines.append(f"  {steps:,} training steps instead of {alone:,}: cells that differ only in sampling share a training")
    lines += [f"  equal cells, sampled once: {', '.join(ids)}" for ids in summary["equal_cells"]]
    lines += [f"  excluded: {e['count']} cells: {e['why']}" for e in summary["excluded"]]
    lines += [f"  skipped: {count} cells: {reason}" for reason, count in summary["skipped_because"].items()]
    return lines + [f"  note: {note}" for note in summary["notes"]]
