"""diffbench check"""

from __future__ import annotations

import time
from collections import Counter

import click

from diffbench.cli import completing
from diffbench.cli.common import JSON, PLUGIN
from diffbench.cli.output import say, say_data


@click.command()
@click.argument("names", nargs=-1, shell_complete=completing.subjects)
@click.option("-v", "--verbose", is_flag=True, help="Show every check, and why one does not apply.")
@click.option("--quick", is_flag=True, help="Beside one noise schedule of each sort instead of all: seconds instead of "
                                            "a minute.")
@JSON
@PLUGIN
def command(names: tuple[str, ...], verbose: bool, quick: bool, as_json: bool, plugins: tuple[str, ...]) -> int:
    """Run the conformance suite: of components by name, of a kind, of a whole package, or of everything installed.

    Exit code 1 where a check fails, or where something is wrong with a package that is checked. A check that does not
    apply has a reason (-v shows it) and does not count as passed.
    """
    import torch

    from diffbench.registry.registry import load_registry
    from diffbench.testing.checks.form import where
    from diffbench.testing.conformance import NO_CHECKS, checks, outcome, subjects

    torch.set_num_threads(1)                              # many small tensors: more threads only wait for each other
    registry = load_registry(plugins)
    total: Counter[str] = Counter()
    records = []
    refs = subjects(registry, names)
    for ref in refs:
        began, counted, lines = time.perf_counter(), Counter[str](), []
        for check in checks(registry, ref, quick=quick):
            result = outcome(check)
            counted[result.status] += 1
            records.append({"kind": ref.kind, "component": ref.full_name, "subject": check.subject,
                            "statement": check.statement,
                            "status": result.status, "detail": result.detail, "measured": result.measured})
            if not as_json and (verbose or result.status == "failed" or result.detail == NO_CHECKS.format(ref.kind)):
                lines.append(f"{result.status:>14}  {check.subject} {check.statement}"
                             + (f": {result.detail}" if result.detail else ""))
        total += counted
        if counted and not as_json:
            lines += [f"{'':>14}  its class: {where(registry, ref)}"] if counted["failed"] else []
            say("\n".join([f"{ref.kind} {ref.full_name}: {_said(counted)} ({time.perf_counter() - began:.1f} s)",
                           *lines]))
    checked = {ref.distribution for ref in refs}
    problems = [p for p in registry.problems if p.distribution.partition(":")[0] in checked]
    if as_json:
        say_data(records, indent=1, default=str)
    else:
        say(f"in all {_said(total)}" if total else "no check applies")
    for problem in problems:
        say(f"diffbench: {problem.message}", err=True)
    return 1 if total["failed"] or problems else 0


def _said(counted: Counter[str]) -> str:
    return ", ".join(f"{counted[status]} {status}" for status in ("passed", "failed", "not applicable")
                     if counted[status])
