"""diffbench doctor"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from diffbench.cli.common import PLUGIN
from diffbench.cli.output import say, say_data

if TYPE_CHECKING:
    from diffbench.store.artefacts import Store


@click.command()
@click.option("--store", "whole_store", is_flag=True,
              help="Verify every artefact of the store; damaged ones are set aside.")
@click.option("--environment", "as_environment", is_flag=True,
              help="Print what a run here and now would note in environment.json.")
@PLUGIN
def command(whole_store: bool, as_environment: bool, plugins: tuple[str, ...]) -> int:
    """Explain the installation: Python, torch, devices, components, data sets, launchers, store; or verify a whole
    store.

    Exit code 1 where something is broken or was damaged.
    """
    from diffbench.errors import DiffbenchError
    from diffbench.store.artefacts import Store

    if as_environment:
        from diffbench.machine.fingerprint import resolve_device
        from diffbench.results.environment import environment

        try:
            device = resolve_device("auto")
        except ValueError as error:
            raise DiffbenchError(str(error)) from None
        say_data(environment(device), indent=1)
        return 0
    store = Store.default()
    if whole_store:
        if not store.root.is_dir():
            raise DiffbenchError(f"there is no store at {store.root.resolve()}; say where it is with DIFFBENCH_HOME")
        return _verify(store)
    from diffbench.cli.installation import examine
    from diffbench.registry.registry import load_registry

    findings = examine(load_registry(plugins), store)
    for finding in findings:
        say(f"{'PROBLEM  ' if finding.is_problem else ''}{finding.about}: {finding.text}")
    return 1 if any(finding.is_problem for finding in findings) else 0


def _verify(store: Store) -> int:
    from diffbench.store.audit import audit
    from diffbench.wording import in_bytes

    state = audit(store)
    say(f"{store.root.resolve()}: {sum(state.artefacts.values())} whole artefacts, "
        f"{in_bytes(sum(state.sizes.values()))}")
    for stage, count in sorted(state.artefacts.items()):
        say(f"  {stage}: {count}, {in_bytes(state.sizes[stage])}")
    for item in state.damaged:
        say(f"damaged and set aside: {item.stage} {item.key}; the next run that needs it builds it again")
    leftovers = (("being written, or left by a kill, in staging/", len(state.staging)),
                 ("partial results of stages that are done", len(state.partials)),
                 ("stages that were tried and are not done (their logs are in attempts/)", len(state.attempts)),
                 ("claims of processes that are no more", len(state.void_claims)),
                 ("damaged artefacts set aside before", state.set_aside))
    for what, count in leftovers:
        if count:
            say(f"{count} {what}")
    for line in state.strange:
        say(f"note: {line}")
    if any(count for _, count in leftovers):
        say("diffbench gc removes what no run needs")
    return 1 if state.damaged else 0
