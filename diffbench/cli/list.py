"""diffbench list"""

from __future__ import annotations

import json

import click

from diffbench.cli import completing
from diffbench.cli.common import JSON, PLUGIN


@click.command()
@click.argument("kind", required=False, shell_complete=completing.kinds)
@JSON
@PLUGIN
def command(kind: str | None, as_json: bool, plugins: tuple[str, ...]) -> None:
    """List components: name, options with defaults, first line of the docstring, origin. Nothing is imported."""
    from diffbench.errors import UnknownComponent, unknown_name
    from diffbench.registry import HOME, load_registry

    registry = load_registry(plugins)
    if kind is not None and kind.replace("-", "_") not in registry.kinds:
        raise UnknownComponent(unknown_name("kind of component", kind, registry.kinds))
    kinds = [k for k in registry.kinds.values() if kind is None or k.name == kind.replace("-", "_")]
    found = {k.name: [(ref, ref.summary()) for ref in registry.refs(k.name)] for k in kinds}
    if as_json:
        click.echo(json.dumps({
            "components": [{"kind": name, "name": ref.full_name, "origin": ref.origin, "target": ref.target, "editable": ref.is_editable, "summary": s.text,
                            "options": dict(s.options), "aliases": list(s.aliases), "default": s.is_default}
                           for name, refs in found.items() for ref, s in refs],
            "problems": [{"distribution": p.distribution, "message": p.message} for p in registry.problems],
            "left_out": [{"distribution": name, "reason": reason} for name, reason in sorted(registry.kept_out.items())]}, indent=1))
        return
    for each in kinds:
        click.echo(f"{each.name}  ({each.summary})")
        for ref, summary in found[each.name]:
            options = ", ".join(f"{name}={default}" for name, default in summary.options)
            origin = "" if ref.distribution == HOME else f"  [{ref.origin}]"
            click.echo(f"  {ref.full_name}({options}){'  (default)' if summary.is_default else ''}{origin}")
            click.echo(f"      {summary.text}")
        if not found[each.name]:
            click.echo("  (none is installed)")
    for name, reason in sorted(registry.kept_out.items()):
        click.echo(f"{name} is left out: {reason}")
    for problem in registry.problems:
        click.echo(f"diffbench: {problem.message}", err=True)
