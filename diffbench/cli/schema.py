"""diffbench schema"""

from __future__ import annotations

from pathlib import Path

import click

from diffbench.cli.common import PLUGIN


@click.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it to a file instead.")
@PLUGIN
def command(out: Path | None, plugins: tuple[str, ...]) -> None:
    """Write the JSON Schema of matrix.yaml: every component that is installed, plug-ins included, with its options, ranges and meanings.

    An editor with a YAML language server completes and checks a file whose first line is

        # yaml-language-server: $schema=matrix.schema.json
    """
    from diffbench.durable import make_folders, write_atomically
    from diffbench.registry import load_registry
    from diffbench.schema import as_text

    text = as_text(load_registry(plugins))
    if out is None:
        click.echo(text, nl=False)
        return
    make_folders(out.parent)
    write_atomically(out, text.encode())
