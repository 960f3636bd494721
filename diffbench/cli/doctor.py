"""diffbench doctor"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from diffbench.cli.common import PLUGIN

if TYPE_CHECKING:
    from diffbench.store import Store


@click.command()
@click.option("--store", "whole_store", is_flag=True, help="Verify every artefact of the store; damaged ones are set aside.")
@click.option("--environment", "as_environment", is_flag=True, help="Print what a run here and now would note in environment.json.")
@PLUGIN
def command(whole_store: bool, as_environment: bool, plugins: tuple[str, ...]) -> int:
    """Explain the installation: Python, torch, devices, components, data sets, launchers, store; or verify a whole store.

    Exit code 1 where something is broken or was damaged.
    """
    from diffbench.errors import DiffbenchError
    from diffbench.store import Store

    if as_environment:
        from diffbench.environment import environment
        from diffbench.machine import resolve_device

        try:
            device = resolve_device("auto")
        except ValueError as error:
            raise DiffbenchError(str(error)) from None
        click.echo(json.dumps(environment(device), indent=1))
        return 0
    store = Store.default()
    if whole_store:
        if not store.root.is_dir():
            raise DiffbenchError(f"there is no store at {store.root.resolve()}; say where it is with DIFFBENCH_HOME")
        return _verify(store)
    from diffbench.health import examine
    from diffbench.registry import load_registry

    findings = examine(load_registry(plugins), store)
    for finding in findings:
        click.echo(f"{'PROBLEM  ' if finding.is_problem else ''}{finding.about}: {finding.text}")
    return 1 if any(finding.is_problem for finding in findings) else 0


def _verify(store: Store) -> int:
    from diffbench.durable import in_bytes
    from diffbench.health import audit

    found = audit(store)
    click.echo(f"{store.root.resolve()}: {sum(found.artefacts.values())} whole artefacts, {in_bytes(sum(found.sizes.values()))}")
    for stage, count in sorted(found.artefacts.items()):
        click.echo(f"  {stage}: {count}, {in_bytes(found.sizes[stage])}")
    for item in found.damaged:
        click.echo(f"damaged and set aside: {item.stage} {item.key}; the next run that needs it builds it again")
    leftovers = (("being written, or left by a kill, in staging/", len(found.staging)), ("partial results of stages that are done", len(found.partials)),
                 ("stages that were tried and are not done (their logs are in attempts/)", len(found.attempts)),
                 ("claims of processes that are no more", len(found.void_claims)), ("damaged artefacts set aside before", found.set_aside))
    for what, count in leftovers:
        if count:
            click.echo(f"{count} {what}")
    for line in found.strange:
        click.echo(f"note: {line}")
    if any(count for _, count in leftovers):
        click.echo("diffbench gc removes what no run needs")
    return 1 if found.damaged else 0
