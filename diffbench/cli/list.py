"""diffbench list"""

from __future__ import annotations

import click

from diffbench.cli import completing
from diffbench.cli.common import JSON, PLUGIN
from diffbench.cli.output import say, say_data


@click.command()
@click.argument("kind", required=False, shell_complete=completing.kinds)
@JSON
@PLUGIN
def command(kind: str | None, as_json: bool, plugins: tuple[str, ...]) -> None:
    """List components: name, options with defaults, first line of the docstring, origin. Nothing is imported."""
    from diffbench.registry.ref import HOME
    from diffbench.registry.registry import load_registry

    registry = load_registry(plugins)
    kinds = [*registry.kinds.values()] if kind is None else [registry.kind(kind)]
    by_kind = {k.name: [(ref, ref.summary()) for ref in registry.refs(k.name)] for k in kinds}
    if as_json:
        say_data({
            "components": [{"kind": name, "name": ref.full_name, "origin": ref.origin, "target": ref.target,
                            "editable": ref.is_editable, "summary": s.text,
                            "options": dict(s.options), "aliases": list(s.aliases), "default": s.is_default}
                           for name, refs in by_kind.items() for ref, s in refs],
            "problems": [{"distribution": p.distribution, "message": p.message} for p in registry.problems],
            "left_out": [{"distribution": name, "reason": reason}
                         for name, reason in sorted(registry.kept_out.items())]}, indent=1)
        return
    for each in kinds:
        say(f"{each.name}  ({each.summary})")
        for ref, summary in by_kind[each.name]:
            options = ", ".join(f"{name}={default}" for name, default in summary.options)
            origin = "" if ref.distribution == HOME else f"  [{ref.origin}]"
            say(f"  {ref.full_name}({options}){'  (default)' if summary.is_default else ''}{origin}")
            say(f"      {summary.text}")
        if not by_kind[each.name]:
            say("  (none is installed)")
    for name, reason in sorted(registry.kept_out.items()):
        say(f"{name} is left out: {reason}")
    for problem in registry.problems:
        say(f"diffbench: {problem.message}", err=True)
